// Package webhook sends events from the outbox of a store to webhooks, by the
// specification of Standard Webhooks (https://www.standardwebhooks.com).
//
// Each delivery is claimed, tried, and then removed or put off. What a process that ended
// has claimed is taken for lost after a while and sent again, with the same ID.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// Timeout bounds an attempt.
	Timeout = 10 * time.Second
	// endTimeout bounds the write that ends attempts, which closing waits for.
	endTimeout = 2 * time.Second
	// claimFor is after how long a claimed delivery is taken for lost. It is longer than an
	// attempt and that write.
	claimFor = time.Minute
	// atOnce is how many deliveries to a webhook are under way at the same time.
	atOnce = 8
	// poll is how often a webhook looks for deliveries that nobody has woken it for.
	poll = 10 * time.Second

	firstPause = 5 * time.Second
	maxPause   = 4 * time.Hour

	// maxAnswer is how much of an answer is read, so that the connection can be used again.
	maxAnswer = 64 << 10
)

// Outbox is where deliveries come from: a keyring.Service.
type Outbox interface {
	ClaimDeliveries(ctx context.Context, url string, within time.Duration, limit int) (claimed []store.Delivery, next int64, err error)
	EndDeliveries(ctx context.Context, delivered []string, failed []store.Delivery) error
	Now() int64 // in Unix milliseconds
}

// Monitor is told what becomes of deliveries. Its methods are called by many at once.
type Monitor interface {
	// Failing is told when a webhook begins to fail, and why. The error is nil when it
	// takes a delivery again.
	Failing(host string, err error)
	// Dead is told of a delivery that is tried no more.
	Dead(host string, d *store.Delivery)
	// OutboxFailed is told when the outbox cannot be asked.
	OutboxFailed(err error)
}

// Sender sends the deliveries to some webhooks.
type Sender struct {
	outbox  Outbox
	monitor Monitor
	hooks   []*hook
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// New returns a sender that does not send yet.
func New(outbox Outbox, endpoints []Endpoint, m Monitor) *Sender {
	s := &Sender{outbox: outbox, monitor: m}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, e := range endpoints {
		s.hooks = append(s.hooks, &hook{Sender: s, Endpoint: e, client: newClient(e.URL), wake: make(chan struct{}, 1)})
	}
	return s
}

// Start starts sending. Close ends it.
func (s *Sender) Start() {
	for _, h := range s.hooks {
		s.running.Go(func() { h.run(s.ctx) })
	}
}

// Wake has all webhooks look for new deliveries. It does not wait.
func (s *Sender) Wake() {
	for _, h := range s.hooks {
		select {
		case h.wake <- struct{}{}:
		default: // it is awake
		}
	}
}

// Close ends sending. Deliveries that are under way are cut off, and sent again by whoever
// comes next.
func (s *Sender) Close() {
	s.cancel()
	s.running.Wait()
	for _, h := range s.hooks {
		h.client.CloseIdleConnections()
	}
}

// hook sends the deliveries to one webhook.
type hook struct {
	*Sender
	Endpoint
	client  *http.Client
	wake    chan struct{}
	failing bool
}

// newClient returns a client that follows no redirects. One for http makes no connection but to
// this machine, whatever a name resolves to.
func newClient(to string) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxConnsPerHost, t.MaxIdleConnsPerHost = atOnce, atOnce
	if strings.HasPrefix(to, "http:") {
		d := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
			if at, err := netip.ParseAddrPort(address); err != nil || !at.Addr().Unmap().IsLoopback() {
				return errors.New("http is for this machine only")
			}
			return nil
		}}
		t.DialContext, t.Proxy = d.DialContext, nil
	}
	return &http.Client{Transport: t, Timeout: Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (h *hook) run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := poll
		claimed, next, err := h.outbox.ClaimDeliveries(ctx, h.URL, claimFor, atOnce)
		switch {
		case err != nil && ctx.Err() == nil:
			h.monitor.OutboxFailed(err)
		case len(claimed) > 0:
			h.send(ctx, claimed)
			continue
		case next > 0:
			wait = min(poll, time.Duration(max(next-h.outbox.Now(), 1))*time.Millisecond)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-h.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// result is what became of an attempt.
type result struct {
	status int // 0: nothing was answered
	err    error
}

// send tries deliveries once, all at the same time, and stores what became of them.
func (h *hook) send(ctx context.Context, claimed []store.Delivery) {
	results := make([]result, len(claimed))
	var all sync.WaitGroup
	for i := range claimed {
		all.Go(func() { results[i] = h.attempt(ctx, &claimed[i]) })
	}
	all.Wait()
	var delivered []string
	var failed []store.Delivery
	var failure error
	for i := range claimed {
		d := &claimed[i]
		switch r := results[i]; {
		case r.err == nil:
			delivered = append(delivered, d.ID)
		case ctx.Err() != nil: // nobody knows; whoever comes next tries again
			d.NextAttempt = h.outbox.Now()
			d.Attempts--
			failed = append(failed, *d)
		default:
			h.putOff(d, r)
			failed = append(failed, *d)
			failure = r.err
		}
	}
	if len(delivered) > 0 {
		failure = nil // it works, whatever it thinks of some
	}
	if len(delivered) > 0 || failure != nil {
		h.became(failure)
	}
	// What cannot be stored is sent again, when the claim is over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if err := h.outbox.EndDeliveries(ctx, delivered, failed); err != nil {
		h.monitor.OutboxFailed(err)
	}
}

// putOff decides when a delivery that has failed is tried again, or that it is not.
func (h *hook) putOff(d *store.Delivery, r result) {
	now := h.outbox.Now()
	d.LastStatus, d.NextAttempt = r.status, now+pause(d.Attempts).Milliseconds()
	// Who answers 410 wants no more of it, by the specification.
	if r.status == http.StatusGone || d.NextAttempt > d.CreatedAt+keyring.DeliverFor {
		d.State = store.DeliveryDead
		h.monitor.Dead(HostOf(h.URL), d)
	}
}

// pause returns how long to wait after a number of attempts: four times as long each time,
// up to a maximum, and up to a tenth more, so that many do not come at once.
func pause(attempts int64) time.Duration {
	p := maxPause
	if n := attempts - 1; n < 8 {
		p = min(maxPause, firstPause<<(2*max(n, 0)))
	}
	return p + rand.N(p/10) //nolint:gosec // it is no secret
}

// became tells the monitor when the webhook begins to fail, or works again.
func (h *hook) became(err error) {
	if failing := err != nil; failing != h.failing {
		h.failing = failing
		h.monitor.Failing(HostOf(h.URL), err)
	}
}

// attempt sends a delivery. Only an answer with a 2xx status is a success.
func (h *hook) attempt(ctx context.Context, d *store.Delivery) result {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(d.Body))
	if err != nil {
		return result{err: errors.New("the URL cannot be used")}
	}
	at := strconv.FormatInt(h.outbox.Now()/1000, 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "caddy-apikey")
	req.Header.Set("webhook-id", d.ID)
	req.Header.Set("webhook-timestamp", at)
	req.Header.Set("webhook-signature", "v1,"+Sign(h.Secret, d.ID, at, d.Body))
	resp, err := h.client.Do(req)
	if err != nil {
		var of *url.Error
		if errors.As(err, &of) {
			err = of.Err // without the URL
		}
		return result{err: err}
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	if resp.StatusCode/100 != 2 {
		return result{resp.StatusCode, fmt.Errorf("answered with status %d", resp.StatusCode)}
	}
	return result{status: resp.StatusCode}
}

// Sign returns the signature of a delivery in base64: the HMAC-SHA256 of its ID, the time in
// Unix seconds and the body, with dots between them.
func Sign(secret []byte, id, timestamp string, body []byte) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(id + "." + timestamp + "."))
	m.Write(body)
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}
