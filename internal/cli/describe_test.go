package cli

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
)

// TestQ53_greeting: a server that speaks first is known for that, whether its greeting
// arrives before the request is sent or after.
func TestQ53_greeting(t *testing.T) {
	for name, early := range map[string]bool{"before the request": true, "after the request": false} {
		conn := greet(early)
		client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
			if early { // until the client has read the greeting, and hung up
				<-conn.closed
			}
		}})
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin.example", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err == nil {
			resp.Body.Close()
			t.Fatalf("%s: no error", name)
		}
		if text := describe(err); !strings.Contains(text, "does not speak HTTP") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// greeting is a connection to a server that greets as SSH does.
type greeting struct {
	net.Conn
	written chan struct{} // closed when a request is sent
	closed  chan struct{}
	early   bool
}

func greet(early bool) *greeting {
	client, _ := net.Pipe()
	return &greeting{client, make(chan struct{}), make(chan struct{}), early}
}

func (g *greeting) Read(p []byte) (int, error) {
	if !g.early {
		<-g.written
	}
	return copy(p, "SSH-2.0-greeting\r\n"), nil
}

func (g *greeting) Write(p []byte) (int, error) {
	close(g.written)
	return len(p), nil
}

func (g *greeting) Close() error {
	close(g.closed)
	return g.Conn.Close()
}
