package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// report is all that one run has measured.
type report struct {
	*options
	began   time.Time
	machine string
	rows    []result
	scale   []finding
}

const (
	markStart = "<!-- load -->\n"
	markEnd   = "<!-- /load -->\n"
)

// deliver prints the report, or puts it into a file.
func (r *report) deliver(file string) error {
	if file == "" {
		_, err := os.Stdout.WriteString(r.markdown())
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), markStart)
	_, after, ok2 := strings.Cut(rest, markEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s: it has no lines %q and %q", file, strings.TrimSpace(markStart), strings.TrimSpace(markEnd))
	}
	return os.WriteFile(file, []byte(before+markStart+"\n"+r.markdown()+"\n"+markEnd+after), 0o644)
}

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. %d pairs of %s per row, %d connections.\n", r.machine, r.pairs, r.duration, r.connections)
	fmt.Fprintf(&b, "Measured on %s in %s; load average %s at the end.\n", r.began.UTC().Format("2006-01-02"), time.Since(r.began).Round(time.Second), loadAverage())
	if len(r.rows) > 0 {
		b.WriteString("\n| gate | requests/s, of the other side | requests per CPU second, of the other side | other side, requests/s | target | |\n| --- | --- | --- | --- | --- | --- |\n")
	}
	for i := range r.rows {
		b.WriteString(r.rows[i].line())
	}
	if len(r.scale) > 0 {
		b.WriteString("\n| process | measured | target | |\n| --- | --- | --- | --- |\n")
	}
	for _, f := range r.scale {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", f.name, f.value, f.target, f.verdict)
	}
	return b.String()
}

func (r *result) line() string {
	target, met := "", ""
	if r.target > 0 {
		target = fmt.Sprintf("≥ %.2f", r.target)
	}
	if r.skipped != nil {
		return fmt.Sprintf("| %s | | | | %s | skipped: %v |\n", r.name, target, r.skipped)
	}
	if r.target > 0 {
		met = verdict(median(r.ratios) >= r.target)
	}
	if r.unavailable > 0 {
		met = strings.TrimPrefix(fmt.Sprintf("%s; %d answers were 503", met, r.unavailable), "; ")
	}
	return fmt.Sprintf("| %s | %s | %s | %.0f | %s | %s |\n", r.name, spread(r.ratios), spread(r.cpu), r.bare, target, met)
}

func verdict(ok bool) string {
	if ok {
		return "met"
	}
	return "missed"
}

func seconds(s float64) string { return fmt.Sprintf("%.2f s", s) }
func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }
func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/mib) }
func signed(n int64) string    { return fmt.Sprintf("%+.1f MiB", float64(n)/mib) }
