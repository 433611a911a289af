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
	fmt.Fprintf(&b, "%s. %d pairs of %s per row, with many keys %d of %s, %d connections.\n",
		r.machine, r.pairs, r.duration, max(1, r.pairs/manyFewer), manyStretch*r.duration, r.connections)
	fmt.Fprintf(&b, "Measured on %s in %s; load average %s at the end.\n", r.began.UTC().Format("2006-01-02"), time.Since(r.began).Round(time.Second), loadAverage())
	if len(r.rows) > 0 {
		b.WriteString("\n| gate | requests per CPU second, of the other side | of the floor | requests/s, of the other side | p50, p99 of the gate | p50, p99 of the other side | other side, requests/s | target | |\n" +
			"| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
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
	if r.skipped != nil {
		return fmt.Sprintf("| %s | | | | | | | | skipped: %v |\n", r.name, r.skipped)
	}
	var targets, verdicts []string
	for _, t := range []struct {
		least  float64
		what   string
		ratios []float64
	}{
		{r.cpu, "", r.ratios(bare, perCPU)}, {r.floor, " of the floor", r.ratios(floor, perCPU)}, {r.rate, " by requests/s", r.ratios(bare, rate)},
	} {
		if t.least > 0 && len(t.ratios) > 0 {
			targets = append(targets, fmt.Sprintf("≥ %.2f%s", t.least, t.what))
			verdicts = append(verdicts, verdict(median(t.ratios) >= t.least))
		}
	}
	if r.tail {
		tail := median(r.ratios(bare, p99))
		targets = append(targets, fmt.Sprintf("p99 ≤ %.2f ×", maxTail))
		verdicts = append(verdicts, fmt.Sprintf("%s (%.2f)", verdict(tail <= maxTail), tail))
	}
	if r.unavailable > 0 {
		verdicts = append(verdicts, fmt.Sprintf("%d answers were 503", r.unavailable))
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %.0f | %s | %s |\n", r.name, spread(r.ratios(bare, perCPU)), spread(r.ratios(floor, perCPU)),
		spread(r.ratios(bare, rate)), r.times(0), r.times(bare), median(r.of(bare, rate)), strings.Join(targets, ", "), strings.Join(verdicts, ", "))
}

// times are the median p50 and p99 of a side.
func (r *result) times(side int) string {
	return fmt.Sprintf("%.2f, %.2f ms", median(r.of(side, p50))*1000, median(r.of(side, p99))*1000)
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
