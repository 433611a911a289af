package e2e

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/quic-go/quic-go/http3"
)

// datagrams forwards UDP packets to a server, and holds back its answers until it is
// told to let them pass: until then, no handshake can complete.
type datagrams struct {
	net.PacketConn // clients send here
	t              testing.TB
	server         *net.UDPAddr

	mu     sync.Mutex
	sent   [][]byte // by clients
	held   []func()
	open   bool
	byAddr map[string]*net.UDPConn
}

func newDatagrams(t testing.TB, server string) *datagrams {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	d := &datagrams{PacketConn: conn, t: t, server: to, byAddr: map[string]*net.UDPConn{}}
	t.Cleanup(func() {
		conn.Close()
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, c := range d.byAddr {
			c.Close()
		}
	})
	go d.forward()
	return d
}

func (d *datagrams) forward() {
	buf := make([]byte, 64<<10)
	for {
		n, client, err := d.ReadFrom(buf)
		if err != nil {
			return
		}
		d.send(append([]byte(nil), buf[:n]...), client)
	}
}

// send forwards one packet of a client, from an address of its own.
func (d *datagrams) send(packet []byte, client net.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent = append(d.sent, packet)
	conn := d.byAddr[client.String()]
	if conn == nil {
		var err error
		if conn, err = net.DialUDP("udp", nil, d.server); err != nil {
			d.t.Error(err)
			return
		}
		d.byAddr[client.String()] = conn
		go d.answer(conn, client)
	}
	conn.Write(packet) // a packet may be lost
}

func (d *datagrams) answer(conn *net.UDPConn, client net.Addr) {
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		packet := append([]byte(nil), buf[:n]...)
		deliver := func() { d.WriteTo(packet, client) }
		d.mu.Lock()
		if d.open {
			deliver()
		} else {
			d.held = append(d.held, deliver)
		}
		d.mu.Unlock()
	}
}

// release lets all answers pass.
func (d *datagrams) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, deliver := range d.held {
		deliver()
	}
	d.held, d.open = nil, true
}

// replay sends what a client has sent again, from a new address.
func (d *datagrams) replay() {
	d.mu.Lock()
	packets := d.sent
	d.mu.Unlock()
	attacker := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	for _, packet := range packets {
		d.send(packet, attacker)
	}
}

// earlyData sends requests to a TLS site in early data over HTTP/3.
type earlyData struct {
	s       *server
	host    string // host:port
	cache   tls.ClientSessionCache
	replays bool // somebody sends all packets again, from another address
}

func newEarlyData(s *server, host string) *earlyData {
	return &earlyData{s: s, host: host, cache: tls.NewLRUClientSessionCache(8)}
}

// get sends a GET request that arrives, and is answered, before the client can complete
// its handshake. The site must have an access log, in which the target is found.
func (e *earlyData) get(target string, lines ...string) *reply {
	t := e.s.t
	t.Helper()
	first := e.client() // its session is the one to resume
	if _, err := e.send(first, e.host, http.MethodGet, "/?first"); err != nil {
		t.Fatal(err)
	}
	first.Close()
	_, port, err := net.SplitHostPort(e.host)
	if err != nil {
		t.Fatal(err)
	}
	d := newDatagrams(t, "127.0.0.1:"+port)
	second := e.client()
	second.TLSClientConfig.NextProtos = []string{http3.NextProtoH3}
	defer second.Close()
	answered := make(chan *reply, 1)
	go func() {
		r, err := e.send(second, d.LocalAddr().String(), http3.MethodGet0RTT, target, lines...)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			r = &reply{}
		}
		answered <- r
	}()
	eventually(t, target+" is in the access log", func() bool { return strings.Contains(e.s.Log(), target) })
	if e.replays {
		d.replay()
	}
	d.release()
	return await(t, target, answered)
}

func (e *earlyData) client() *http3.Transport {
	return &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", ClientSessionCache: e.cache}}
}

func (e *earlyData) send(tr *http3.Transport, at, method, target string, lines ...string) (*reply, error) {
	ctx, cancel := context.WithTimeout(e.s.t.Context(), testTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+at+target, nil)
	if err != nil {
		return nil, err
	}
	req.Host = e.host
	for _, f := range fieldsOf(lines) {
		req.Header.Add(f.name, f.value)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return read(resp)
}

// TestQ10_earlyData sends requests in TLS early data over HTTP/3, where the address of
// the client is not proven and packets can be replayed: what depends on either is a 425,
// and charges nothing.
func TestQ10_earlyData(t *testing.T) {
	full(t)
	tlsPort := port(t, freeAddr(t))
	s := startGate(t, `{
	log default {
		format apikey_redact
	}
}
https://localhost:{$TLS_PORT} {
	bind 127.0.0.1
	tls internal
	log {
		format apikey_redact
	}
	apikey_api
	handle /free/* {
		apikey {
			cost 0
		}
		respond ok
	}
	handle {
		apikey
		respond ok
	}
}

{$SITE} {
	apikey_api
	apikey
	respond ok
}
`, withEnv("TLS_PORT="+tlsPort))
	host := "localhost:" + tlsPort
	newProtocols(t, host).ready(t)
	open, home := s.create(nil), s.create(map[string]any{"allowedIps": []string{"127.0.0.1"}})
	metered := s.create(map[string]any{"remaining": 100})
	limited := s.create(map[string]any{"rateLimitMax": 100, "rateLimitTimeWindow": 3_600_000})

	early := newEarlyData(s, host)
	early.replays = true
	for _, row := range []struct {
		name, target, raw string
		status            int
		code              string
	}{
		{"unlimited", "/", open.Raw, 200, ""},
		{"allowed networks", "/", home.Raw, 425, "TOO_EARLY"},
		{"credits", "/", metered.Raw, 425, "TOO_EARLY"},
		{"a rate limit", "/", limited.Raw, 425, "TOO_EARLY"},
		{"credits, at no cost", "/free/", metered.Raw, 200, ""},
		{"allowed networks, at no cost", "/free/", home.Raw, 425, "TOO_EARLY"},
		{"an unknown key", "/", testKey("ak_", 64), 401, "INVALID_API_KEY"},
	} {
		mark := row.target + "?mark=" + strings.ReplaceAll(strings.ReplaceAll(row.name, " ", "-"), ",", "")
		r := early.get(mark, keyLine(row.raw))
		if r.status != row.status || r.code != row.code {
			t.Errorf("%s: %d %s, want %d %s", row.name, r.status, r.body, row.status, row.code)
		}
	}
	if left := s.left(metered.ID); left != 100 {
		t.Errorf("%d credits are left, want 100", left)
	}
	if n := s.state(limited.ID).RequestCount; n != 0 {
		t.Errorf("%d requests are counted, want none", n)
	}

	// A proxy in front may tell of early data; and after the handshake all is well.
	const told = "Early-Data: 1"
	for _, row := range []struct {
		name, method, target, raw string
		status                    int
		code                      string
	}{
		{"credits", "GET", "/", metered.Raw, 425, "TOO_EARLY"},
		{"no limit", "GET", "/", open.Raw, 200, ""},
		{"listing keys", "GET", "/v1/auth/api-keys", s.create(readWrite).Raw, 200, ""},
		{"making a key", "POST", "/v1/auth/api-keys", s.create(readWrite).Raw, 425, "TOO_EARLY"},
		{"making a key without the permission", "POST", "/v1/auth/api-keys", open.Raw, 403, "INSUFFICIENT_PERMISSIONS"},
	} {
		if r := s.call(row.method, row.target, "", keyLine(row.raw), told); r.status != row.status || r.code != row.code {
			t.Errorf("Early-Data, %s: %d %s, want %d %s", row.name, r.status, r.body, row.status, row.code)
		}
		if row.status != 425 {
			continue
		}
		// What is not 1, or is there several times, counts as 1 (RFC 8470, section 5.1).
		for _, lines := range [][]string{{"Early-Data: 0"}, {"Early-Data: "}, {"Early-Data: 0", told}, {told, told}, {"Early-Data: true"}} {
			if r := s.call(row.method, row.target, "", append(lines, keyLine(row.raw))...); r.code != "TOO_EARLY" {
				t.Errorf("%v, %s: %d %s", lines, row.name, r.status, r.body)
			}
		}
		if r := s.call(row.method, row.target, "", keyLine(row.raw)); r.status >= 300 {
			t.Errorf("repeated after the handshake, %s: %d %s", row.name, r.status, r.body)
		}
	}
}
