package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestD6_adminBody: a body of more than 64 KiB is refused by the admin API, however it is
// announced, and without being read into memory.
func TestD6_adminBody(t *testing.T) {
	full(t)
	s := startLife(t, gatedSite)
	const most = 64 << 10
	exact := `{"userId":"alice"` + strings.Repeat(" ", most-len(`{"userId":"alice"}`)) + "}"
	if a := s.server.adminRaw(exact, int64(len(exact))); a != http.StatusCreated {
		t.Errorf("a body of 64 KiB: %d", a)
	}
	for _, length := range []int64{most + 1, -1} {
		if a := s.server.adminRaw(exact+" ", length); a != http.StatusRequestEntityTooLarge {
			t.Errorf("a byte more, announced as %d: %d", length, a)
		}
	}
	before := s.resident()
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for _, length := range []int64{1 << 30, -1} {
				if status := s.huge(t, length); status != http.StatusRequestEntityTooLarge {
					t.Errorf("a body of 1 GiB, announced as %d: status %d", length, status)
				}
			}
		})
	}
	work.Wait()
	if grown := s.resident() - before; grown > 32<<10 {
		t.Errorf("bodies of 1 GiB have left %d KiB in memory", grown)
	}
	if status := siteStatus(t, s.server, s.server.create(nil).Raw); status != 200 {
		t.Errorf("a valid key afterwards: %d", status)
	}
}

// adminRaw creates a key with a body as it is. length -1 is in chunks.
func (s *server) adminRaw(body string, length int64) int {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodPost, s.Admin+"/apikey/keys", io.NopCloser(strings.NewReader(body)))
	if err != nil {
		s.t.Fatal(err)
	}
	req.ContentLength = length
	resp, err := s.adminClient().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// huge sends a body of up to 1 GiB until the server answers, and returns the status.
func (l life) huge(t *testing.T, length int64) int {
	conn := dial(t, l.Admin)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	announced := "Transfer-Encoding: chunked"
	if length >= 0 {
		announced = fmt.Sprintf("Content-Length: %d", length)
	}
	fmt.Fprintf(conn, "POST /apikey/keys HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%s\r\n\r\n", strings.TrimPrefix(l.Admin, "http://"), announced)
	go func() {
		block := strings.Repeat(" ", 32<<10)
		if length < 0 {
			block = fmt.Sprintf("%x\r\n%s\r\n", len(block), block)
		}
		for range 1 << 15 {
			if _, err := io.WriteString(conn, block); err != nil {
				return // it was cut off
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodPost})
	if err != nil {
		t.Errorf("no answer to a body of 1 GiB: %v", err)
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestD6_headers: headers of 15 KiB are refused where the server allows less, else they are
// read as any others, and a key of that length is refused.
func TestD6_headers(t *testing.T) {
	full(t)
	s := startLife(t, gatedSite)
	k := s.server.create(nil)
	const size = 15 << 10
	long := "X-Long: " + strings.Repeat("a", size)
	before := s.resident()
	const rounds = 3000 // whose headers together are more than may be left, of either kind
	for i := range rounds {
		if r := s.server.get("/", keyLine(k.Raw), fmt.Sprint(long, i)); r.status != 200 {
			t.Fatalf("15 KiB beside a key: %d %s", r.status, r.body)
		}
		if r := s.server.get("/", keyLine(fmt.Sprint(strings.Repeat("a", size), i))); r.status != 401 || r.code != "INVALID_API_KEY" {
			t.Fatalf("15 KiB as a key: %d %s", r.status, r.body)
		}
	}
	if grown := s.resident() - before; grown > 32<<10 {
		t.Errorf("long headers have left %d KiB in memory", grown)
	}
	s.reload("{\n\tservers {\n\t\tmax_header_size 8KiB\n\t}\n}\n" + gatedSite)
	for range 5 {
		if r := s.server.get("/", keyLine(k.Raw), long); r.status != 431 {
			t.Errorf("15 KiB where 8 are allowed: %d %s", r.status, r.body)
		}
	}
	if n := s.state(k.ID).LastRequest; n == nil {
		t.Error("the requests before were not counted")
	}
	if r := s.server.get("/", keyLine(k.Raw)); r.status != 200 {
		t.Errorf("short headers: %d %s", r.status, r.body)
	}
}

// TestD6_slowSenders: the admin endpoint lets go of those who send headers or a body slowly,
// and a site does with the timeouts of Caddy. Others are answered meanwhile.
func TestD6_slowSenders(t *testing.T) {
	full(t)
	s := startLife(t, "{\n\tservers {\n\t\ttimeouts {\n\t\t\tread_header 1s\n\t\t}\n\t}\n}\n"+gatedSite)
	k := s.server.create(nil)
	const slow = 20
	var conns []net.Conn
	for _, url := range []string{s.Admin, s.URL} {
		for range slow {
			conns = append(conns, dial(t, url))
			fmt.Fprintf(conns[len(conns)-1], "POST /apikey/keys HTTP/1.1\r\nHost: x\r\nX-A")
		}
	}
	var work sync.WaitGroup
	defer work.Wait()
	ends := func(conn net.Conn, ended *atomic.Int64) {
		work.Go(func() {
			defer conn.Close()
			conn.SetReadDeadline(time.Now().Add(testTimeout))
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) { // else the server ended it
				t.Error("a slow sender is never let go of")
			}
			ended.Add(1)
		})
	}
	for _, conn := range conns {
		ends(conn, new(atomic.Int64))
	}
	// Where the machine is so slow that they are let go of before others are answered, that
	// shows nothing.
	beside := false
	for attempt := 0; !beside && attempt < 5; attempt++ {
		var ended atomic.Int64
		for range slow {
			conn := dial(t, s.Admin)
			fmt.Fprintf(conn, "POST /apikey/keys HTTP/1.1\r\nHost: %s\r\nContent-Length: 60000\r\n\r\n{", strings.TrimPrefix(s.Admin, "http://"))
			ends(conn, &ended)
		}
		if status := siteStatus(t, s.server, k.Raw); status != 200 {
			t.Errorf("a valid key beside slow senders: %d", status)
		}
		s.server.create(nil)
		beside = ended.Load() == 0
	}
	if !beside {
		t.Error("others wait for slow senders")
	}
	work.Wait()
	if status := siteStatus(t, s.server, k.Raw); status != 200 {
		t.Errorf("a valid key afterwards: %d", status)
	}
}
