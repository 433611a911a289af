package api

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"time"
)

// An answer that may be long is written while it is read, so that clients that are slow to
// take it hold little of it in memory.

// Stream is an answer of lines, each of them a JSON object.
type Stream func(io.Writer) error

// List is an answer whose first field is a list, which is read while it is written.
type List[A any] struct {
	// Each reads the list, element by element.
	Each func(write func(any) error) error
	// Answer returns the answer without the elements. It is called after Each.
	Answer func() A
}

func (l List[A]) write(w io.Writer) error {
	begin := fmt.Appendf(nil, "{%q:[", fieldsOf(reflect.TypeFor[A](), "json")[0].name)
	if _, err := w.Write(begin); err != nil {
		return err
	}
	first := true
	err := l.Each(func(element any) error {
		b, err := Marshal(element)
		if err == nil && !first {
			_, err = w.Write([]byte{','})
		}
		if err == nil {
			_, err = w.Write(b)
		}
		first = false
		return err
	})
	if err != nil {
		return err
	}
	answer, err := MarshalLine(l.Answer())
	if err != nil {
		return err
	}
	rest, ok := bytes.CutPrefix(answer, begin)
	if !ok {
		return fmt.Errorf("%T has no list", l)
	}
	_, err = w.Write(rest)
	return err
}

func (List[A]) answer() reflect.Type { return reflect.TypeFor[A]() }

// list is what all types of [List] have.
type list interface {
	write(io.Writer) error
	answer() reflect.Type
}

// File is an answer that is not JSON, whose length is known.
type File struct {
	io.ReadCloser
	Size int64
	Type string // its Content-Type
}

func (a *API) file(w http.ResponseWriter, c *Call, f File) {
	defer f.Close()
	w.Header().Set("Content-Length", strconv.FormatInt(f.Size, 10))
	a.stream(w, c, f.Type, func(w io.Writer) error {
		_, err := io.CopyN(w, f, f.Size)
		return err
	})
}

// StreamType is the Content-Type of a Stream.
const StreamType = "application/x-ndjson"

const (
	// held is how much of an answer is held back before it begins, so that a store that
	// cannot be read is still answered with an error.
	held = 64 << 10
	// takeTimeout is how long a client may take for so much of an answer.
	takeTimeout = 30 * time.Second
)

// stream answers with what write writes. Where it fails once the answer has begun, only
// breaking off tells the caller that half of it is missing.
func (a *API) stream(w http.ResponseWriter, c *Call, contentType string, write func(io.Writer) error) {
	private(w.Header(), http.StatusOK, contentType)
	out := &answerWriter{ResponseController: http.NewResponseController(w), w: w, timeout: a.takeTimeout}
	if server, ok := c.Context().Value(http.ServerContextKey).(*http.Server); ok && server.WriteTimeout > 0 {
		out.timeout = 0 // the operator's applies
	}
	b := bufio.NewWriterSize(out, held)
	err := write(b)
	if err == nil {
		if out.n == 0 {
			w.Header().Set("Content-Length", strconv.Itoa(b.Buffered()))
		}
		err = b.Flush()
	}
	out.deadline(time.Time{})
	switch {
	case err == nil:
	case out.n == 0:
		w.Header().Del("Content-Length")
		a.fail(w, c, err)
	default:
		if c.Context().Err() == nil && !out.failed {
			a.Report(fmt.Errorf("%s %s broke off: %w", c.Method, c.pattern(), err))
		}
		panic(http.ErrAbortHandler)
	}
}

// answerWriter writes an answer to a client that has to take it.
type answerWriter struct {
	*http.ResponseController
	w       io.Writer
	timeout time.Duration // 0: none
	n       int64         // how much is written
	failed  bool          // the client took no more
}

func (o *answerWriter) Write(p []byte) (int, error) {
	o.deadline(time.Now().Add(o.timeout))
	n, err := o.w.Write(p)
	o.n += int64(n)
	o.failed = o.failed || err != nil
	return n, err
}

func (o *answerWriter) deadline(t time.Time) {
	if o.timeout > 0 {
		_ = o.SetWriteDeadline(t) // where there is no deadline, the server's own applies
	}
}
