package webhook

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-apikey/caddy-apikey/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hookURL = "https://example.com/hook?token=canary"

var secret = []byte("0123456789abcdef01234567")

// outbox is one in memory, by the real clock, which synctest replaces.
type outbox struct {
	mu   sync.Mutex
	list []*store.Delivery
	fail error
	ends int
}

func (o *outbox) Now() int64 { return time.Now().UnixMilli() }

func (o *outbox) add(n int) *store.Delivery {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := &store.Delivery{
		ID: fmt.Sprintf("msg_%d", n), Event: "test", URL: hookURL, Body: fmt.Appendf(nil, `{"n":%d}`, n),
		State: store.DeliveryPending, CreatedAt: o.Now(), NextAttempt: o.Now(),
	}
	o.list = append(o.list, d)
	return d
}

func (o *outbox) ClaimDeliveries(_ context.Context, url string, within time.Duration, limit int) (claimed []store.Delivery, next int64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range o.list {
		if d.URL != url || d.State != store.DeliveryPending {
			continue
		}
		if d.NextAttempt <= o.Now() && len(claimed) < limit {
			d.Attempts++
			d.NextAttempt = o.Now() + within.Milliseconds()
			claimed = append(claimed, *d)
		}
		if next == 0 || d.NextAttempt < next {
			next = d.NextAttempt
		}
	}
	return claimed, next, o.fail
}

func (o *outbox) EndDeliveries(_ context.Context, delivered []string, failed []store.Delivery) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ends++
	o.list = slices.DeleteFunc(o.list, func(d *store.Delivery) bool { return slices.Contains(delivered, d.ID) })
	for i := range failed {
		for _, d := range o.list {
			if d.ID == failed[i].ID {
				*d = failed[i]
			}
		}
	}
	return o.fail
}

// state returns the deliveries that are left.
func (o *outbox) state() (all []store.Delivery) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range o.list {
		all = append(all, *d)
	}
	return all
}

// told writes down what it is told.
type told struct {
	mu  sync.Mutex
	all []string
}

func (t *told) add(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, fmt.Sprintf(format, args...))
}

func (t *told) Failing(host string, err error)      { t.add("failing %s %v", host, err) }
func (t *told) Dead(host string, d *store.Delivery) { t.add("dead %s %s %d", host, d.ID, d.Attempts) }
func (t *told) OutboxFailed(err error)              { t.add("outbox %v", err) }

// heard returns what was told, and forgets it.
func (t *told) heard() (all []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, t.all = t.all, nil
	return all
}

// receiver answers in place of a server.
type receiver func(*http.Request) (*http.Response, error)

func (r receiver) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }

func status(code int) (*http.Response, error) {
	return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader("thanks"))}, nil
}

// start starts a sender whose requests r answers.
func start(o *outbox, m Monitor, r receiver) *Sender {
	s := New(o, []Endpoint{{hookURL, secret}}, m)
	s.hooks[0].client.Transport = r
	s.Start()
	return s
}

// TestWebhook_signed: what is sent carries the headers of Standard Webhooks, and a signature
// that fits.
func TestWebhook_signed(t *testing.T) {
	// The example of the specification.
	example, err := ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	if got := Sign(example, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`)); got != "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("the signature is %s", got)
	}
	synctest.Test(t, func(t *testing.T) {
		o, m := new(outbox), new(told)
		o.add(1)
		s := start(o, m, func(r *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(r.Body)
			id, at := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
			if r.Method != "POST" || id != "msg_1" || at != fmt.Sprint(time.Now().Unix()) || string(body) != `{"n":1}` || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s %v %s", r.Method, r.Header, body)
			}
			if got := r.Header.Get("webhook-signature"); got != "v1,"+Sign(secret, id, at, body) {
				t.Errorf("the signature is %s", got)
			}
			return status(204)
		})
		synctest.Wait()
		s.Close()
		if left := o.state(); len(left) != 0 || len(m.heard()) != 0 {
			t.Errorf("%+v", left)
		}
	})
}

// TestWebhook_retries: a delivery that fails is tried again with growing pauses and the same
// ID for 24 hours, and is dead then.
func TestWebhook_retries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, m := new(outbox), new(told)
		began := time.Now()
		var at []time.Duration
		o.add(1)
		s := start(o, m, func(r *http.Request) (*http.Response, error) {
			if id := r.Header.Get("webhook-id"); id != "msg_1" {
				t.Error(id)
			}
			at = append(at, time.Since(began))
			return status(503)
		})
		time.Sleep(30 * time.Hour)
		s.Close()
		for i := range at[1:] {
			if gap, before := at[i+1]-at[i], 5*time.Second; i > 0 && gap < at[i]-at[i-1] && gap < maxPause || gap < before || gap > maxPause+maxPause/10+poll {
				t.Errorf("attempt %d came after %v, %v", i+1, gap, at)
			}
		}
		if last := at[len(at)-1]; last > 24*time.Hour || last < 15*time.Hour || len(at) < 8 {
			t.Errorf("%v", at)
		}
		d := o.state()[0]
		if d.State != store.DeliveryDead || d.LastStatus != 503 || d.Attempts != int64(len(at)) {
			t.Errorf("%+v", d)
		}
		want := []string{"dead example.com msg_1 " + fmt.Sprint(len(at))}
		if got := m.heard(); len(got) != 2 || got[0] != "failing example.com answered with status 503" || got[1] != want[0] {
			t.Errorf("%q", got)
		}
	})
}

// TestWebhook_failures: everything but a 2xx is a failure, whose error does not show the URL.
func TestWebhook_failures(t *testing.T) {
	for _, code := range []int{0, 301, 302, 307, 308, 400, 404, 410, 429, 500, 503} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, m := new(outbox), new(told)
				o.add(1)
				var ok atomic.Bool
				s := start(o, m, func(r *http.Request) (*http.Response, error) {
					if ok.Load() {
						return status(200)
					}
					if code == 0 {
						return nil, errors.New("connection refused")
					}
					resp, err := status(code)
					resp.Header = http.Header{"Location": {"https://example.com/elsewhere"}}
					return resp, err
				})
				synctest.Wait()
				d := o.state()[0]
				dead := code == 410
				if d.Attempts != 1 || d.LastStatus != code || (d.State == store.DeliveryDead) != dead {
					t.Errorf("%+v", d)
				}
				ok.Store(true)
				time.Sleep(time.Minute)
				if left := o.state(); (len(left) == 1) != dead {
					t.Errorf("%+v", left)
				}
				s.Close()
				heard := strings.Join(m.heard(), "; ")
				if strings.Contains(heard, "canary") || strings.Contains(heard, "/hook") || !dead && !strings.HasSuffix(heard, "; failing example.com <nil>") {
					t.Error(heard)
				}
			})
		})
	}
}

// TestWebhook_slow: a receiver that does not answer is given up after 10 seconds, and one that
// is ended with the sender is tried again by the next one without an attempt less.
func TestWebhook_slow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, m := new(outbox), new(told)
		for i := range 20 {
			o.add(i)
		}
		var mu sync.Mutex
		under, most := 0, 0
		hang := func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			under++
			most = max(most, under)
			mu.Unlock()
			<-r.Context().Done()
			mu.Lock()
			under--
			mu.Unlock()
			return nil, r.Context().Err()
		}
		s := start(o, m, hang)
		time.Sleep(9 * time.Second)
		s.Close()
		if most != atOnce {
			t.Errorf("%d at the same time", most)
		}
		for _, d := range o.state() {
			if d.Attempts != 0 || d.NextAttempt > o.Now() {
				t.Errorf("%+v", d)
			}
		}
		s = start(o, m, hang)
		time.Sleep(11 * time.Second)
		tried := 0
		for _, d := range o.state() {
			if d.Attempts == 1 && d.LastStatus == 0 {
				tried++
			}
		}
		if tried < atOnce {
			t.Errorf("%d were tried", tried)
		}
		s.Close()
	})
}

// TestWebhook_outbox: an outbox that fails is asked again, and what could not be ended is sent
// again when the claim is over.
func TestWebhook_outbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, m := new(outbox), new(told)
		o.fail = store.ErrUnavailable
		sent := 0
		s := start(o, m, func(*http.Request) (*http.Response, error) { sent++; return status(200) })
		time.Sleep(25 * time.Second)
		if heard := m.heard(); len(heard) != 3 {
			t.Errorf("%q", heard)
		}
		o.mu.Lock()
		o.fail = nil
		o.mu.Unlock()
		o.add(1)
		s.Wake()
		synctest.Wait()
		if sent != 1 || len(o.state()) != 0 {
			t.Errorf("sent %d", sent)
		}
		s.Wake() // once more, and twice: nobody waits
		s.Wake()
		s.Wake()
		s.Close()
	})
}

// TestWebhook_oneDown: one webhook that hangs does not hold up another.
func TestWebhook_oneDown(t *testing.T) {
	hang := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(hang)
	got := make(chan string, 10)
	quick := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("webhook-id") }))
	defer quick.Close()
	o := new(outbox)
	for i, url := range []string{slow.URL, quick.URL, quick.URL} {
		o.add(i).URL = url
	}
	s := New(o, []Endpoint{{slow.URL, secret}, {quick.URL, secret}}, new(told))
	s.Start()
	defer s.Close()
	ids := []string{<-got, <-got}
	slices.Sort(ids)
	if !slices.Equal(ids, []string{"msg_1", "msg_2"}) {
		t.Errorf("%q", ids)
	}
}

// TestWebhook_thisMachine: http is sent to this machine only, whatever its name resolves to.
func TestWebhook_thisMachine(t *testing.T) {
	c := newClient("http://localhost/hook")
	c.Timeout = time.Second
	_, err := c.Get("http://192.0.2.1/hook")
	if err == nil || !strings.Contains(err.Error(), "http is for this machine only") {
		t.Errorf("%v", err)
	}
}

func TestCheckURL(t *testing.T) {
	for url, want := range map[string]string{
		"https://example.com/hook?a=b":   "",
		"http://localhost:9/":            "",
		"http://127.1.2.3/":              "",
		"http://[::1]:80/x":              "",
		"http://[::ffff:127.0.0.1]/":     "",
		"http://example.com/":            "must begin with https://",
		"http://localhost.example.com/":  "must begin with https://",
		"http://10.0.0.1/":               "must begin with https://",
		"ftp://example.com/":             "must begin with https://",
		"https://user:pass@example.com/": "must have no user",
		"https://example.com/#part":      "no fragment",
		"/hook":                          "must be a URL",
		"https://":                       "must be a URL",
		"":                               "must be a URL",
		"https://e.com/" + strings.Repeat("x", maxURL): "must be a URL",
	} {
		err := CheckURL(url)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.40s: %v, want %q", url, err, want)
		}
	}
}

func TestParseSecret(t *testing.T) {
	of := func(n int) string { return base64.StdEncoding.EncodeToString(slices.Repeat([]byte("x"), n)) }
	for text, ok := range map[string]bool{
		"whsec_" + of(24): true, "whsec_" + of(64): true, "whsec_" + of(23): false, "whsec_" + of(65): false,
		of(32): false, "whsec_": false, "": false, "whsec_" + of(24) + "!": false,
	} {
		got, err := ParseSecret(text)
		if (err == nil) != ok || err != nil && (strings.Contains(err.Error(), "xxx") || got != nil) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestWebhook_someRefused: a webhook that takes some events and refuses others works.
func TestWebhook_someRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, m := new(outbox), new(told)
		for i := range 3 {
			o.add(i)
		}
		s := start(o, m, func(r *http.Request) (*http.Response, error) {
			if r.Header.Get("webhook-id") == "msg_1" {
				return status(400)
			}
			return status(200)
		})
		synctest.Wait()
		s.Close()
		if left := o.state(); len(left) != 1 || left[0].ID != "msg_1" || left[0].LastStatus != 400 {
			t.Errorf("%+v", left)
		}
		if heard := m.heard(); len(heard) != 0 {
			t.Errorf("%q", heard)
		}
	})
}
