package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// progress is a progress bar on a terminal. It is nil, and shows nothing, where
// standard error is not a terminal.
type progress struct {
	w     io.Writer
	total int64
	shown int64 // the last percentage
}

const barWidth = 40

// progress returns a bar on standard error, or nil if that is not a terminal or
// --json is given.
func (c *call) progress(total int64) *progress {
	f, ok := c.ErrOrStderr().(*os.File)
	if !ok || c.machine() || total < 1 || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	p := &progress{w: f, total: total, shown: -1}
	p.at(0)
	return p
}

// at updates the bar.
func (p *progress) at(done int64) {
	if p == nil {
		return
	}
	percent := min(done, p.total) * 100 / p.total
	if percent == p.shown {
		return
	}
	p.shown = percent
	filled := int(percent) * barWidth / 100
	fmt.Fprintf(p.w, "\r[%s%s] %3d%%", strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled), percent)
}

// end removes the bar.
func (p *progress) end() {
	if p != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
