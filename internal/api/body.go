package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	// MaxBody is the longest body that most routes read. The largest part of one,
	// metadata, may be 16 KiB.
	MaxBody = 64 << 10

	// strangerTimeout is how long a request without any identity may take for its body,
	// where a dialect looks at it at all.
	strangerTimeout = 2 * time.Second
	// unreadTimeout is how long the server waits, once the answer is written, for the
	// end of a body that nobody reads.
	unreadTimeout = 5 * time.Second
)

// What a body is refused for, beside its Content-Type and its length.
var (
	errUnreadable = BadRequest("the body could not be read")
	errNoObject   = BadRequest("the body must be a JSON object")
	errInvalid    = BadRequest("the body is not valid JSON")
)

// errTimeout is a body that took too long.
var errTimeout = &Error{Status: http.StatusRequestTimeout, Code: CodeTimeout, Message: "the body took too long"}

// upload is a body on its way.
type upload struct {
	w       http.ResponseWriter
	r       *http.Request
	timeout time.Duration // 0: none
	read    bool          // to its end, or there is none
}

func (a *API) uploadOf(w http.ResponseWriter, r *http.Request) upload {
	return upload{w, r, a.BodyTimeout, r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody}
}

// deadline ends reading at a time; zero is none. A ResponseWriter that knows no deadline
// has none: that of a test.
func (u *upload) deadline(t time.Time) {
	http.NewResponseController(u.w).SetReadDeadline(t) //nolint:errcheck // see above
}

// serverIsFaster reports whether the server has a shorter timeout of its own.
func (u *upload) serverIsFaster() bool {
	s, ok := u.r.Context().Value(http.ServerContextKey).(*http.Server)
	return ok && s.ReadTimeout > 0 && s.ReadTimeout < u.timeout
}

// all reads a body of at most so many bytes, whatever it is.
func (u *upload) all(most int64) ([]byte, error) {
	tooLarge := &Error{Status: http.StatusRequestEntityTooLarge, Code: CodeTooLarge, Message: fmt.Sprintf("the body must be at most %d bytes", most)}
	if u.r.ContentLength > most {
		return nil, tooLarge
	}
	if u.timeout > 0 && !u.read && !u.serverIsFaster() {
		u.deadline(time.Now().Add(u.timeout))
		defer u.deadline(time.Time{})
	}
	body, err := io.ReadAll(http.MaxBytesReader(u.w, u.r.Body, most))
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, errTimeout
	case err != nil:
		return nil, errUnreadable
	}
	u.read = true
	return body, nil
}

// drain reads what is left of a body that is too long, as far as most bodies go. Else the
// connection would be reset, and the answer might be lost with it.
func (u *upload) drain() {
	if u.read {
		return
	}
	u.deadline(time.Now().Add(unreadTimeout))
	defer u.deadline(time.Time{})
	_, err := io.CopyN(io.Discard, u.r.Body, MaxBody)
	u.read = errors.Is(err, io.EOF)
}

// leave prepares an answer while the body may still be on its way: neither the answer
// nor the connection waits for the rest without end. failed: the connection is not
// needed any longer, so that the answer does not wait at all.
func (u *upload) leave(failed bool) {
	if u.read || u.timeout == 0 {
		return
	}
	u.deadline(time.Now().Add(unreadTimeout))
	if failed && u.r.ProtoMajor == 1 {
		u.w.Header().Set("Connection", "close")
	}
}
