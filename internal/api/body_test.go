package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestUpload sends bodies that come late or never, to servers with and without a timeout
// of their own, and calls again on the same connection where it is kept.
func TestUpload(t *testing.T) {
	for _, row := range []struct {
		name             string
		timeout, servers time.Duration
		path, rest       string // the rest of the body, if it comes
		status           int
		kept             bool
	}{
		{"in time", time.Minute, 0, "/body", "}", 204, true},
		{"never", 50 * time.Millisecond, 0, "/body", "", 408, false},
		{"never, as the server has it", time.Minute, 50 * time.Millisecond, "/body", "", 408, false},
		{"in time, both", time.Minute, time.Minute, "/body", "}", 204, true},
		{"never, to somebody else", time.Minute, 0, "/closed", "", 403, false},
		{"never, nowhere", time.Minute, 0, "/none", "", 404, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			looked := make(chan struct{}, 10)
			a := New(Mount{Keys: noKeys, BodyTimeout: row.timeout, Identify: func(_ http.ResponseWriter, r *http.Request, ask Ask) (*Caller, error) {
				if ask.Look {
					looked <- struct{}{}
				}
				if r.URL.Path == "/closed" {
					return nil, ErrCrossOrigin
				}
				return new(Caller), nil
			}}, plainErrors, []*Route{
				{Method: "POST", Path: "/body", Status: 204, Endpoint: WithBody(func(*Call, struct{}) (None, error) { return None{}, nil })},
				{Method: "POST", Path: "/closed", Status: 204, Endpoint: WithBody(func(*Call, struct{}) (None, error) { return None{}, nil })},
			})
			s := httptest.NewUnstartedServer(a)
			s.Config.ReadTimeout = row.servers
			s.Start()
			defer s.Close()
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			in := bufio.NewReader(conn)
			call := func(path, body string) *http.Response {
				t.Helper()
				fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{", path)
				if body != "" {
					<-looked // the server waits for the rest
					io.WriteString(conn, body)
				}
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				return resp
			}
			if resp := call(row.path, row.rest); resp.StatusCode != row.status || resp.Close == row.kept {
				t.Errorf("%d, closed: %v", resp.StatusCode, resp.Close)
			}
			if !row.kept {
				return
			}
			if resp := call("/body", "}"); resp.StatusCode != 204 {
				t.Errorf("again: %d", resp.StatusCode)
			}
		})
	}
}

// deadlines is a ResponseWriter that remembers the deadline for reading.
type deadlines struct {
	*httptest.ResponseRecorder
	read time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.read = t
	return nil
}

// TestUpload_leave: the end of a body that nobody reads is not waited for without end.
func TestUpload_leave(t *testing.T) {
	for _, row := range []struct {
		name      string
		body      io.Reader
		proto     int
		timeout   time.Duration
		failed    bool
		deadline  bool
		connClose string
	}{
		{"answered before the body", strings.NewReader("{}"), 1, time.Minute, false, true, ""},
		{"refused before the body", strings.NewReader("{}"), 1, time.Minute, true, true, "close"},
		{"refused, HTTP/2", strings.NewReader("{}"), 2, time.Minute, true, true, ""},
		{"no body", nil, 1, time.Minute, true, false, ""},
		{"no timeout", strings.NewReader("{}"), 1, 0, true, false, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
			r := httptest.NewRequest("POST", "/", row.body)
			r.ProtoMajor = row.proto
			u := (&API{Mount: Mount{BodyTimeout: row.timeout}}).uploadOf(w, r)
			u.leave(row.failed)
			if left := time.Until(w.read); w.read.IsZero() == row.deadline || row.deadline && (left <= 0 || left > unreadTimeout) {
				t.Errorf("the deadline is %v", w.read)
			}
			if got := w.Header().Get("Connection"); got != row.connClose {
				t.Errorf("Connection %q, want %q", got, row.connClose)
			}
		})
	}
}
