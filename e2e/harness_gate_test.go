package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// This file helps tests of the gate: keys made over the admin API, an upstream
// that remembers what it has seen, and requests over every version of HTTP.

// testTimeout bounds a single exchange; it only matters where something hangs.
const testTimeout = time.Minute

// startGate is startCaddy, and waits until the configuration is in use: sites and
// admin endpoint answer a moment before.
func startGate(t testing.TB, caddyfile string, options ...option) *server {
	t.Helper()
	s := startCaddy(t, caddyfile, options...)
	s.settled()
	return s
}

// settled waits until the keys can be asked.
func (s *server) settled() {
	s.t.Helper()
	for deadline := time.Now().Add(startTimeout); ; {
		resp, err := http.Get(s.Admin + "/apikey/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if s.ended() {
			s.t.Fatalf("caddy ended: %v", s.cmd.ProcessState)
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the keys are not there: %v", err)
		}
		<-time.After(pollEvery)
	}
}

// made is a key as the admin API has created it.
type made struct {
	ID     string `json:"id"`
	Raw    string `json:"key"`
	Secret string `json:"secret"`
}

// create makes a key. Fields are those of the admin API; userId defaults to "alice".
func (s *server) create(fields map[string]any) made {
	s.t.Helper()
	body := map[string]any{"userId": "alice"}
	maps.Copy(body, fields)
	var k made
	s.admin("POST", "/apikey/keys", body, http.StatusCreated, &k)
	return k
}

// state is what a key has left.
type state struct {
	Remaining    *int64  `json:"remaining"`
	RequestCount int64   `json:"requestCount"`
	LastRequest  *string `json:"lastRequest"`
}

func (s *server) state(id string) (st state) {
	s.t.Helper()
	s.admin("GET", "/apikey/keys/"+id, nil, http.StatusOK, &st)
	return st
}

// left returns the credits of a key that has a count of them.
func (s *server) left(id string) int64 {
	s.t.Helper()
	st := s.state(id)
	if st.Remaining == nil {
		s.t.Fatalf("key %s is unlimited", id)
	}
	return *st.Remaining
}

// admin calls the admin API and fails the test on another status.
func (s *server) admin(method, path string, in any, status int, out any) {
	s.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			s.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, s.Admin+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode != status {
		s.t.Fatalf("%s %s: status %d, want %d\n%s", method, path, resp.StatusCode, status, b)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			s.t.Fatalf("%s %s: %v\n%s", method, path, err, b)
		}
	}
}

// seen is one request as the upstream has received it.
type seen struct {
	Method, URI string
	Host        string
	Header      http.Header
	Trailer     http.Header
	Body        string
}

// has reports whether text stands anywhere in the request.
func (r *seen) has(text string) bool {
	all := fmt.Sprint(r.URI, r.Host, r.Body)
	for _, h := range []http.Header{r.Header, r.Trailer} {
		for name, values := range h {
			all += "\n" + name + ": " + strings.Join(values, "\n")
		}
	}
	return strings.Contains(all, text)
}

// upstream is a server behind the gate that remembers what it has seen.
type upstream struct {
	Addr string
	// answer, where set, writes the answer. n counts the requests of one mark from 1.
	answer func(w http.ResponseWriter, r *http.Request, n int)

	mu   sync.Mutex
	seen map[string][]seen
}

// markHeader tells requests of a test apart.
const markHeader = "X-Test-Mark"

func startUpstream(t testing.TB) *upstream {
	t.Helper()
	u := &upstream{seen: map[string][]seen{}}
	srv := httptest.NewUnstartedServer(u)
	srv.Config.MaxHeaderBytes = 4 << 20
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	u.Addr = srv.Listener.Addr().String()
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mark := r.Header.Get(markHeader)
	body, _ := io.ReadAll(r.Body) // the trailer is there once the body is read
	u.mu.Lock()
	u.seen[mark] = append(u.seen[mark], seen{
		r.Method, r.RequestURI, r.Host, r.Header.Clone(), r.Trailer.Clone(), string(body),
	})
	n := len(u.seen[mark])
	u.mu.Unlock()
	if u.answer != nil {
		u.answer(w, r, n)
		return
	}
	io.WriteString(w, "upstream")
}

// of returns the requests with a mark.
func (u *upstream) of(mark string) []seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.seen[mark])
}

// field is one header line.
type field struct{ name, value string }

// message is a request, to be sent over any version of HTTP.
type message struct {
	method  string // default GET
	target  string // path and query
	fields  []field
	body    string
	trailer []field // sent after body
	quiet   bool    // the trailer is not announced
	proto   string  // of HTTP/1.x; default HTTP/1.1
	noHost  bool
}

// reply is an answer.
type reply struct {
	status int
	header http.Header
	body   string
	code   string // of a problem body
}

// problem is the body of a refusal (RFC 9457).
type problem struct {
	Type       string   `json:"type"`
	Status     int      `json:"status"`
	Title      string   `json:"title"`
	Detail     string   `json:"detail"`
	Code       string   `json:"code"`
	Limit      string   `json:"limit"`
	Scope      string   `json:"scope"`
	Violated   []string `json:"violated-policies"`
	RetryAfter int64    `json:"retryAfter"`
}

// problem reads the body of a refusal, which must have no other member.
func (r *reply) problem(t testing.TB) (p problem) {
	t.Helper()
	if ct := r.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("Content-Type is %q", ct)
	}
	dec := json.NewDecoder(strings.NewReader(r.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		t.Errorf("body %q: %v", r.body, err)
	}
	return p
}

func read(resp *http.Response) (*reply, error) {
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return newReply(resp.StatusCode, resp.Header, b), nil
}

func newReply(status int, header http.Header, body []byte) *reply {
	r := &reply{status: status, header: header, body: string(body)}
	var p struct{ Code string }
	if json.Unmarshal(body, &p) == nil {
		r.code = p.Code
	}
	return r
}

// wire returns the message as HTTP/1.x text.
func (m *message) wire(host string) []byte {
	var b bytes.Buffer
	proto := m.proto
	if proto == "" {
		proto = "HTTP/1.1"
	}
	fmt.Fprintf(&b, "%s %s %s\r\n", m.verb(), m.target, proto)
	if !m.noHost {
		fmt.Fprintf(&b, "Host: %s\r\n", host)
	}
	closes := true
	for _, f := range m.fields {
		closes = closes && !strings.EqualFold(f.name, "connection")
		fmt.Fprintf(&b, "%s: %s\r\n", f.name, f.value)
	}
	if closes {
		b.WriteString("Connection: close\r\n")
	}
	switch {
	case m.trailer != nil:
		if !m.quiet {
			for _, f := range m.trailer {
				fmt.Fprintf(&b, "Trailer: %s\r\n", f.name)
			}
		}
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		if m.body != "" {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(m.body), m.body)
		}
		b.WriteString("0\r\n")
		for _, f := range m.trailer {
			fmt.Fprintf(&b, "%s: %s\r\n", f.name, f.value)
		}
		b.WriteString("\r\n")
	case m.body != "":
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(m.body), m.body)
	default:
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

func (m *message) verb() string {
	if m.method == "" {
		return http.MethodGet
	}
	return m.method
}

// raw writes bytes on a connection of its own and reads one answer.
func raw(conn net.Conn, text []byte, method string) (*reply, error) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	if _, err := conn.Write(text); err != nil {
		return nil, err
	}
	for r := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= http.StatusOK {
			return read(resp)
		}
	}
}

// plain sends a message over HTTP/1 without TLS.
func (m *message) plain(t testing.TB, url string) *reply {
	t.Helper()
	r, err := raw(dial(t, url), m.wire(strings.TrimPrefix(url, "http://")), m.verb())
	if err != nil {
		t.Fatalf("%s %s: %v", m.verb(), m.target, err)
	}
	return r
}

func dial(t testing.TB, url string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(url, "http://"), testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// get sends a request with header lines given as "Name: value".
func (s *server) get(target string, lines ...string) *reply {
	s.t.Helper()
	return (&message{target: target, fields: fieldsOf(lines)}).plain(s.t, s.URL)
}

func fieldsOf(lines []string) (fields []field) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		fields = append(fields, field{name, value})
	}
	return fields
}

// protocols sends messages to one TLS site over HTTP/1.1, HTTP/2 and HTTP/3.
type protocols struct {
	host string // host:port
	h2   http.RoundTripper
	h3   http.RoundTripper
}

// versions are the names that send takes.
var versions = []string{"h1", "h2", "h3"}

func newProtocols(t testing.TB, host string) *protocols {
	// The certificate is of Caddy's own authority, made a moment ago.
	conf := func() *tls.Config { return &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"} }
	only2 := new(http.Protocols)
	only2.SetHTTP2(true)
	h2 := &http.Transport{TLSClientConfig: conf(), Protocols: only2, DisableCompression: true}
	h3 := &http3.Transport{TLSClientConfig: conf(), DisableCompression: true}
	t.Cleanup(func() { h2.CloseIdleConnections(); h3.Close() })
	return &protocols{host, h2, h3}
}

// ready waits until all versions answer: certificates are made after the start.
func (p *protocols) ready(t testing.TB) {
	t.Helper()
	for _, version := range versions {
		var err error
		for deadline := time.Now().Add(startTimeout); ; {
			if _, err = p.try(version, &message{target: "/"}); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not answer: %v", version, err)
			}
			<-time.After(pollEvery)
		}
	}
}

func (p *protocols) send(t testing.TB, version string, m *message) *reply {
	t.Helper()
	r, err := p.try(version, m)
	if err != nil {
		t.Fatalf("%s: %s %.100s: %v", version, m.verb(), m.target, err)
	}
	return r
}

func (p *protocols) try(version string, m *message) (*reply, error) {
	if version == "h1" {
		conn, err := tls.Dial("tcp", p.host, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"http/1.1"}})
		if err != nil {
			return nil, err
		}
		return raw(conn, m.wire(p.host), m.verb())
	}
	transport := p.h2
	if version == "h3" {
		transport = p.h3
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, m.verb(), "https://"+p.host+m.target, nil)
	if err != nil {
		return nil, err
	}
	for _, f := range m.fields {
		name := http.CanonicalHeaderKey(f.name)
		req.Header[name] = append(req.Header[name], f.value)
	}
	if m.body != "" || m.trailer != nil {
		req.Body = io.NopCloser(strings.NewReader(m.body))
		req.ContentLength = -1
	}
	if m.trailer != nil {
		req.Trailer = http.Header{}
		for _, f := range m.trailer {
			req.Trailer.Add(f.name, f.value)
		}
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return read(resp)
}

// port returns the port of an address.
func port(t testing.TB, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// secondsOf reads a whole number of seconds from a header.
func secondsOf(t testing.TB, value string) time.Duration {
	t.Helper()
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("%q is no number of seconds", value)
	}
	return time.Duration(n) * time.Second
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// testKey returns a well-formed key that no server knows. It is the same in every run.
func testKey(prefix string, length int) string {
	b := []byte(prefix)
	for i := range length - 6 {
		b = append(b, base62[(i*i+7*i+length)%62])
	}
	return withChecksum(string(b))
}

// withChecksum completes a raw key that lacks its checksum.
func withChecksum(s string) string {
	sum, sums := crc32.ChecksumIEEE([]byte(s)), [6]byte{}
	for i := 5; i >= 0; i-- {
		sums[i] = base62[sum%62]
		sum /= 62
	}
	return s + string(sums[:])
}

// percentEncode encodes every character, which no client has to do but any may.
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}
