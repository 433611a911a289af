package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const cutSite = `{
	log default {
		format apikey_redact
	}
	skip_install_trust
	auto_https disable_redirects
}

https://localhost:{$TLS_PORT} {
	bind 127.0.0.1
	tls internal
	handle /runs/* {
		apikey
		reverse_proxy {$UPSTREAM}
	}
	handle /files/* {
		apikey {
			cut_on_revoke
		}
		root {$FILES}
		file_server
	}
	handle {
		apikey {
			cut_on_revoke
		}
		reverse_proxy {$UPSTREAM} {
			flush_interval -1
		}
	}
}

{$SITE} {
	respond ok
}
`

// endless is an upstream: /stream and /runs/stream write until the client is gone, or after
// stop a last line; /socket echoes what it gets over an upgraded connection.
func endless(t *testing.T, stop <-chan struct{}) (addr string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/socket") {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n") //nolint:errcheck // the client tells
			rw.Flush()                                                                                         //nolint:errcheck // likewise
			io.Copy(conn, rw)                                                                                  //nolint:errcheck // it ends with the connection
			return
		}
		for {
			fmt.Fprintln(w, "line")
			http.NewResponseController(w).Flush() //nolint:errcheck // the client may be gone
			select {
			case <-r.Context().Done():
				return
			case <-stop:
				fmt.Fprintln(w, "end")
				return
			case <-time.After(pollEvery):
			}
		}
	}))
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv.Listener.Addr().String()
}

// cutRig is a site with running responses.
type cutRig struct {
	*server
	host string
	p    *protocols
}

func startCut(t *testing.T, stop <-chan struct{}) cutRig {
	t.Helper()
	files := t.TempDir()
	if err := os.MkdirAll(filepath.Join(files, "files"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(files, "files", "large"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(1<<33), f.Close()); err != nil {
		t.Fatal(err)
	}
	tlsPort := port(t, freeAddr(t))
	s := startGate(t, cutSite, withEnv("TLS_PORT="+tlsPort, "UPSTREAM="+endless(t, stop), "FILES="+files))
	g := cutRig{s, "localhost:" + tlsPort, newProtocols(t, "localhost:"+tlsPort)}
	g.p.ready(t)
	return g
}

// open begins a response and returns its body, of which something has come.
func (g *cutRig) open(version, path, raw string) io.ReadCloser {
	g.t.Helper()
	client := http.RoundTripper(&http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true})
	switch version {
	case "h2":
		client = g.p.h2
	case "h3":
		client = g.p.h3
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+g.host+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("X-API-Key", raw)
	resp, err := client.RoundTrip(req)
	if err != nil {
		g.t.Fatalf("%s %s: %v", version, path, err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil || resp.StatusCode != 200 {
		g.t.Fatalf("%s %s: %d, %v", version, path, resp.StatusCode, err)
	}
	return resp.Body
}

// upgrade opens a connection that is echoed.
func (g *cutRig) upgrade(path, raw string) *echo {
	g.t.Helper()
	conn, err := tls.Dial("tcp", g.host, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"http/1.1"}})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-API-Key: %s\r\n\r\n", path, g.host, raw)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		g.t.Fatalf("upgrade: %v, %v", resp, err)
	}
	e := &echo{conn, r}
	if err := e.say("hello\n"); err != nil {
		g.t.Fatal(err)
	}
	return e
}

// echo is an upgraded connection.
type echo struct {
	net.Conn
	r *bufio.Reader
}

func (e *echo) Read(p []byte) (int, error) { return e.r.Read(p) }

// say sends a line, which must come back.
func (e *echo) say(line string) error {
	if _, err := io.WriteString(e, line); err != nil {
		return err
	}
	if got, err := e.r.ReadString('\n'); err != nil || got != line {
		return fmt.Errorf("echo: %q, %w", got, err)
	}
	return nil
}

// ends reads to the end of a response, and returns how it ended.
func ends(t *testing.T, what string, body io.Reader) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, body); done <- err }()
	return await(t, what+" ends", done)
}

// TestC5_cut: with cut_on_revoke, responses of every kind end when their key stops working, over
// every version of HTTP, and none of them looks complete. Those of other keys go on.
func TestC5_cut(t *testing.T) {
	full(t)
	stop := make(chan struct{})
	g := startCut(t, stop)
	other := g.create(nil)
	var others []io.ReadCloser
	for _, version := range versions {
		others = append(others, g.open(version, "/stream", other.Raw))
	}
	for name, end := range map[string]func(k made){
		"revoked": func(k made) { g.admin("PATCH", "/apikey/keys/"+k.ID, map[string]any{"enabled": false}, 200, nil) },
		"deleted": func(k made) { g.admin("DELETE", "/apikey/keys/"+k.ID, nil, 204, nil) },
		"rotated": func(k made) { g.admin("POST", "/apikey/keys/"+k.ID+"/rotate", map[string]any{}, 200, nil) },
		"expired": func(k made) { g.admin("PATCH", "/apikey/keys/"+k.ID, map[string]any{"expiresIn": 1}, 200, nil) },
		"owner":   func(made) { g.admin("PUT", "/apikey/owners/owner", map[string]any{"enabled": false}, 200, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			k := g.create(map[string]any{"userId": name})
			running := map[string]io.Reader{"a WebSocket": g.upgrade("/socket", k.Raw)}
			for _, version := range versions {
				running["a stream over "+version] = g.open(version, "/stream", k.Raw)
				running["a download over "+version] = g.open(version, "/files/large", k.Raw)
			}
			end(k)
			for what, body := range running {
				if err := ends(t, what, body); err == nil && what != "a WebSocket" {
					t.Errorf("%s looks complete", what)
				}
			}
		})
	}
	for i, body := range others {
		if _, err := io.ReadFull(body, make([]byte, 100)); err != nil {
			t.Errorf("a stream of another key over %s: %v", versions[i], err)
		}
	}
	// What does not end a key ends no response.
	g.admin("PATCH", "/apikey/keys/"+other.ID, map[string]any{"name": "x", "permissions": []string{}}, 200, nil)
	close(stop)
	for i, body := range others {
		if err := ends(t, "a stream of another key", body); err != nil {
			t.Errorf("a stream of another key over %s: %v", versions[i], err)
		}
	}
	if strings.Contains(g.Log(), "panic") {
		t.Error("the server wrote of a panic")
	}
}

// TestC5_runsOn: without it, a response runs to its end whatever becomes of its key.
func TestC5_runsOn(t *testing.T) {
	full(t)
	stop := make(chan struct{})
	g := startCut(t, stop)
	k := g.create(nil)
	var running []io.ReadCloser
	for _, version := range versions {
		running = append(running, g.open(version, "/runs/stream", k.Raw))
	}
	socket := g.upgrade("/runs/socket", k.Raw)
	cut := g.open("h1", "/stream", k.Raw)
	g.admin("DELETE", "/apikey/keys/"+k.ID, nil, 204, nil)
	if err := ends(t, "a response that is cut", cut); err == nil {
		t.Error("a response that is cut looks complete")
	}
	if err := socket.say("still here\n"); err != nil {
		t.Errorf("a WebSocket: %v", err)
	}
	close(stop)
	for i, body := range running {
		text, err := io.ReadAll(body)
		if err != nil || !strings.HasSuffix(string(text), "end\n") {
			t.Errorf("%s: %v", versions[i], err)
		}
	}
	if code := g.stop(syscall.SIGTERM); code != 0 { // what is counted of the key has no row any more
		t.Errorf("exit status %d", code)
	}
	if log := g.Log(); strings.Contains(log, "panic") || strings.Contains(log, `"level":"error"`) {
		t.Error("the server wrote of an error")
	}
}
