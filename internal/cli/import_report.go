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

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/internal/betterauthdb"
)

// statuses are the results of an import, in the order of the report.
var statuses = []string{"created", "exists", "conflict", "invalid"}

// report collects the results of an import. With --json it writes each result at
// once; otherwise it counts them, and groups what was not imported unchanged.
type report struct {
	c        *call
	json     *bufio.Writer // nil: print text
	dryRun   bool
	totals   map[string]int64 // by status
	lost     int64            // records that were imported without some of their data
	problems []*problem
}

// problem is one message about one or more records.
type problem struct {
	status, field, message string
	records                int64
	examples               []string
}

const maxExamples = 3

func newReport(c *call, dryRun bool) *report {
	r := &report{c: c, dryRun: dryRun, totals: map[string]int64{}}
	if c.format == asJSON {
		r.json = bufio.NewWriter(c.OutOrStdout())
		r.json.WriteString(`{"results":[`) //nolint:errcheck // Flush returns the error
	}
	return r
}

// outcome is a result in the JSON report.
type outcome struct {
	admin.ImportResult
	Line  int64               `json:"line,omitempty"`
	Notes []betterauthdb.Note `json:"notes,omitempty"`
}

// add adds the result of a record.
func (r *report) add(rec record, result admin.ImportResult) error {
	r.totals[result.Status]++
	example := rec.id
	if result.ID != nil {
		example = *result.ID
	}
	if rec.line > 0 {
		example = fmt.Sprintf("line %d", rec.line)
	}
	if result.Error != "" {
		message := strings.TrimPrefix(result.Error, result.Field+": ")
		if result.Field == "configId" && rec.config != "" {
			message = fmt.Sprintf("%q %s", rec.config, message)
		}
		r.addProblem(result.Status, result.Field, message, example)
	}
	if result.Status != "created" {
		rec.notes = nil // they are about the conversion of a record that was not imported
	}
	lost := false
	for _, note := range rec.notes {
		lost = lost || note.Lost
		r.addProblem(result.Status, note.Field, note.Message, example)
	}
	if lost {
		r.lost++
	}
	if r.json == nil {
		return nil
	}
	return r.write(outcome{result, rec.line, rec.notes})
}

func (r *report) total() (n int64) {
	for _, count := range r.totals {
		n += count
	}
	return n
}

// addProblem adds a message about a record.
func (r *report) addProblem(status, field, message, example string) {
	for _, p := range r.problems {
		if p.status == status && p.field == field && p.message == message {
			p.records++
			if len(p.examples) < maxExamples {
				p.examples = append(p.examples, example)
			}
			return
		}
	}
	r.problems = append(r.problems, &problem{status, field, message, 1, []string{example}})
}

func (r *report) write(o outcome) error {
	b, err := api.Marshal(o)
	if err != nil {
		return err
	}
	if r.total() > 1 {
		r.json.WriteByte(',') //nolint:errcheck // Write returns the same error
	}
	_, err = r.json.Write(bytes.TrimSpace(b))
	return err
}

// close prints the report. It returns an error if a record was not imported, or not
// unchanged.
func (r *report) close() error {
	if err := r.print(); err != nil {
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
	return fmt.Sprintf("%d records", n)
}

func (r *report) print() error {
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

// text returns the report as text.
func (r *report) text() string {
	sums := newTable("RESULT", "RECORDS")
	for _, status := range statuses {
		sums.AppendRow(table.Row{status, fmt.Sprintf("%d", r.totals[status])})
	}
	out := sums.Render() + "\n"
	if r.dryRun {
		out += "This was a dry run: nothing was written.\n"
	}
	if len(r.problems) == 0 {
		return out
	}
	problems := newTable("RESULT", "RECORDS", "FIELD", "MESSAGE", "EXAMPLES")
	for _, p := range r.problems {
		problems.AppendRow(table.Row{
			printable(p.status), fmt.Sprintf("%d", p.records), printable(cmp.Or(p.field, noValue)),
			printable(p.message), printable(strings.Join(p.examples, ", ")),
		})
	}
	return out + "\n" + problems.Render()
}
