package api

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
)

// Stream is an answer that is written while it is read: JSON, one object a line.
type Stream func(io.Writer) error

// StreamType is the Content-Type of a Stream.
const StreamType = "application/x-ndjson"

// held is how much of a stream is held back before the answer begins, so that a
// store that cannot be read is still answered with an error.
const held = 64 << 10

// stream answers with a Stream. Where it fails once the answer has begun, only
// breaking off tells the caller that half of it is missing.
func (a *API) stream(w http.ResponseWriter, c *Call, s Stream) {
	private(w.Header(), StreamType)
	counted := &counter{w: w}
	b := bufio.NewWriterSize(counted, held)
	err := s(b)
	if err == nil {
		err = b.Flush()
	}
	switch {
	case err == nil:
	case counted.n == 0:
		a.fail(w, c, err)
	default:
		if c.Context().Err() == nil {
			a.Report(fmt.Errorf("%s %s broke off: %w", c.Method, c.pattern(), err))
		}
		panic(http.ErrAbortHandler)
	}
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
