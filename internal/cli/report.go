package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/internal/betterauthdb"
)

// statuses are the results of an import, in the order in which they are told.
var statuses = []string{"created", "exists", "conflict", "invalid"}

// report tells what became of an import: with --json every result, else counts,
// and what was not imported as it was.
type report struct {
	c      *call
	json   *bufio.Writer // nil: for people
	dryRun bool
	totals map[string]int64 // by status
	lost   int64            // records that were imported without something
	faults []*fault
}

// fault is something that happened to one or more records.
type fault struct {
	status, field, message string
	records                int64
	examples               []string
}

const maxExamples = 3

func newReport(c *call, dryRun bool) *report {
	r := &report{c: c, dryRun: dryRun, totals: map[string]int64{}}
	if c.json {
		r.json = bufio.NewWriter(c.OutOrStdout())
		r.json.WriteString(`{"results":[`) //nolint:errcheck // Flush returns the error
	}
	return r
}

// outcome is one result in the JSON report.
type outcome struct {
	admin.ImportResult
	Line  int64               `json:"line,omitempty"`
	Notes []betterauthdb.Note `json:"notes,omitempty"`
}

// add notes the result of a record.
func (r *report) add(one item, result admin.ImportResult) error {
	r.totals[result.Status]++
	example := one.id
	if result.ID != nil {
		example = *result.ID
	}
	if one.line > 0 {
		example = sprintf("line %d", one.line)
	}
	if result.Error != "" {
		message := strings.TrimPrefix(result.Error, result.Field+": ")
		if result.Field == "configId" && one.config != "" {
			message = sprintf("%q %s", one.config, message)
		}
		r.fault(result.Status, result.Field, message, example)
	}
	if result.Status != "created" {
		one.notes = nil // of the record that was not imported now
	}
	lost := false
	for _, note := range one.notes {
		lost = lost || note.Lost
		r.fault(result.Status, note.Field, note.Message, example)
	}
	if lost {
		r.lost++
	}
	if r.json == nil {
		return nil
	}
	return r.write(outcome{result, one.line, one.notes})
}

func (r *report) total() (n int64) {
	for _, one := range r.totals {
		n += one
	}
	return n
}

func (r *report) fault(status, field, message, example string) {
	for _, f := range r.faults {
		if f.status == status && f.field == field && f.message == message {
			f.records++
			if len(f.examples) < maxExamples {
				f.examples = append(f.examples, example)
			}
			return
		}
	}
	r.faults = append(r.faults, &fault{status, field, message, 1, []string{example}})
}

func (r *report) write(o outcome) error {
	b, err := marshal(o)
	if err != nil {
		return err
	}
	if r.total() > 1 {
		r.json.WriteByte(',') //nolint:errcheck // Write returns the same error
	}
	_, err = r.json.Write(bytes.TrimSpace(b))
	return err
}

// close tells the sums. The error says what is not as it should be.
func (r *report) close() error {
	if err := r.finish(); err != nil {
		return err
	}
	failed := r.totals["conflict"] + r.totals["invalid"]
	switch {
	case failed > 0 && r.lost > 0:
		return fmt.Errorf("%s could not be imported, and %s lost something", records(failed), records(r.lost))
	case failed > 0:
		return fmt.Errorf("%s could not be imported", records(failed))
	case r.lost > 0:
		return fmt.Errorf("%s lost something", records(r.lost))
	default:
		return nil
	}
}

func records(n int64) string {
	if n == 1 {
		return "1 record"
	}
	return sprintf("%d records", n)
}

func (r *report) finish() error {
	if r.json == nil {
		return write(r.c.OutOrStdout(), r.text())
	}
	sums, err := json.Marshal(map[string]any{
		"created": r.totals["created"], "exists": r.totals["exists"], "conflicts": r.totals["conflict"],
		"invalid": r.totals["invalid"], "lost": r.lost, "dryRun": r.dryRun,
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(r.json, "],%s\n", strings.TrimPrefix(string(sums), "{"))
	return errors.Join(err, r.json.Flush())
}

// text is the report for people.
func (r *report) text() string {
	sums := newTable("RESULT", "RECORDS")
	for _, status := range statuses {
		sums.AppendRow(table.Row{status, sprintf("%d", r.totals[status])})
	}
	out := sums.Render() + "\n"
	if r.dryRun {
		out += "This was a dry run: nothing was written.\n"
	}
	if len(r.faults) == 0 {
		return out
	}
	faults := newTable("RESULT", "RECORDS", "FIELD", "WHAT", "SUCH AS")
	for _, f := range r.faults {
		faults.AppendRow(table.Row{
			printable(f.status), sprintf("%d", f.records), printable(cmp.Or(f.field, noValue)), printable(f.message), printable(strings.Join(f.examples, ", ")),
		})
	}
	return out + "\n" + faults.Render()
}
