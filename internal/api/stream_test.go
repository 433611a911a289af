package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

type listOfTexts struct {
	Texts []oneText `json:"texts"`
	Total int       `json:"total"`
}

type oneText struct {
	Text string `json:"text"`
}

// serveList serves a list of n texts, of which the last one fails with err.
func serveList(n int, text string, err error) *API {
	return New(Mount{Base: "/base", Keys: noKeys}, plainErrors, []*Route{{
		Method: "GET", Path: "/texts", Status: 200,
		Endpoint: Plain(func(*Call) (List[listOfTexts], error) {
			return List[listOfTexts]{
				Each: func(write func(any) error) error {
					for range n {
						if err := write(oneText{text}); err != nil {
							return err
						}
					}
					return err
				},
				Answer: func() listOfTexts { return listOfTexts{[]oneText{}, n} },
			}, nil
		}),
	}})
}

// TestList: an answer in pieces is the one that would have been written at once.
func TestList(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("WWW-Authenticate", "Basic") // by an earlier handler
	serveList(1, "", nil).ServeHTTP(w, httptest.NewRequest("GET", "/base/texts", nil))
	if h := w.Header(); w.Code != 200 || h.Get("WWW-Authenticate") != "" {
		t.Errorf("%d, %v", w.Code, h)
	}
	for _, n := range []int{0, 1, 2, 10_000} {
		srv := httptest.NewServer(serveList(n, `a "text" <&>`, nil))
		defer srv.Close()
		for range 2 { // the second time on the same connection
			resp, err := srv.Client().Get(srv.URL + "/base/texts")
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			want := listOfTexts{make([]oneText, n), n}
			for i := range want.Texts {
				want.Texts[i].Text = `a "text" <&>`
			}
			all, _ := MarshalLine(want)
			if err != nil || !bytes.Equal(got, all) {
				t.Errorf("%d texts: %v, %d bytes, want %d: %.200s", n, err, len(got), len(all), got)
			}
			if h := resp.Header; h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" || (resp.ContentLength >= 0) != (n < 10_000) {
				t.Errorf("%d texts: %v, length %d", n, h, resp.ContentLength)
			}
		}
	}
}

// TestListFails: a list that fails early is an error, one that fails late breaks off.
func TestListFails(t *testing.T) {
	for n, broken := range map[int]bool{3: false, 10_000: true} {
		srv := httptest.NewServer(serveList(n, "a text", errors.New("the store is away")))
		defer srv.Close()
		resp, err := srv.Client().Get(srv.URL + "/base/texts")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		switch {
		case broken && (err == nil || json.Valid(got)):
			t.Errorf("%d texts: a whole answer of %d bytes", n, len(got))
		case !broken && (err != nil || resp.StatusCode != 500 || !strings.Contains(string(got), "INTERNAL")):
			t.Errorf("%d texts: %d, %v: %s", n, resp.StatusCode, err, got)
		}
	}
}

// TestQ36_stalledClient: who takes nothing of a list is cut off.
func TestQ36_stalledClient(t *testing.T) {
	a := serveList(1_000_000, strings.Repeat("x", 1000), nil)
	a.takeTimeout = 200 * time.Millisecond
	ended := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		a.ServeHTTP(w, r)
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /base/texts HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the call still waits for the client")
	}
}

// writeDeadlines writes down the writeDeadlines that a response gets.
type writeDeadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *writeDeadlines) SetWriteDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

// TestListDeadline: nothing of the deadline is left for the next answer over the same
// connection, and where the operator has set one, it applies.
func TestListDeadline(t *testing.T) {
	for _, operators := range []time.Duration{0, time.Second} {
		r := httptest.NewRequest("GET", "/base/texts", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.ServerContextKey, &http.Server{WriteTimeout: operators})) //nolint:gosec // never started
		d := &writeDeadlines{ResponseRecorder: httptest.NewRecorder()}
		serveList(10_000, "a text", nil).ServeHTTP(d, r)
		switch {
		case d.Code != 200 || !json.Valid(d.Body.Bytes()):
			t.Errorf("%d, %.100s", d.Code, d.Body)
		case operators > 0 && len(d.set) > 0:
			t.Errorf("the operator's timeout is replaced: %v", d.set)
		case operators == 0 && (len(d.set) < 2 || d.set[0].IsZero() || !d.set[len(d.set)-1].IsZero()):
			t.Errorf("deadlines %v", d.set)
		}
	}
}
