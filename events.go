package apikey

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/internal/webhook"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// eventQueue is how many events wait for the handlers of Caddy's event app.
const eventQueue = 1024

// emitter hands events to Caddy's event app, whose handlers may take their time, and has
// webhooks look for theirs.
type emitter struct {
	ctx    caddy.Context
	app    *caddyevents.App
	logger *zap.Logger
	events keyring.Subscription
	sender *webhook.Sender

	queue   chan keyring.Event
	dropped atomic.Int64 // since the queue was full
	running sync.WaitGroup
	stop    chan struct{}
}

// newEmitter makes the emitter of a configuration. It may be told of events before it starts.
func newEmitter(ctx caddy.Context, s *keyring.Service, events keyring.Subscription, to []webhook.Endpoint) (*emitter, error) {
	app, err := ctx.App("events")
	if err != nil {
		return nil, fmt.Errorf("loading the events app: %w", err)
	}
	return &emitter{
		ctx: ctx, app: app.(*caddyevents.App), logger: ctx.Logger(), events: events, sender: webhook.New(s, to, hookMonitor{}),
		queue: make(chan keyring.Event, eventQueue), stop: make(chan struct{}),
	}, nil
}

// start starts telling of events, and sending them.
func (e *emitter) start() {
	e.running.Go(e.emit)
	e.sender.Start()
}

// close ends it, also where it was not started. Events that wait in the queue are lost; those
// for webhooks are not.
func (e *emitter) close() {
	close(e.stop)
	e.running.Wait()
	e.sender.Close()
}

// Happened implements keyring.Listener.
func (e *emitter) Happened(events []keyring.Event) {
	for i := range events {
		if !e.events.Wants(&events[i]) {
			continue
		}
		select {
		case e.queue <- events[i]:
		default:
			e.dropped.Add(1)
		}
	}
	e.sender.Wake()
}

func (e *emitter) emit() {
	for {
		select {
		case <-e.stop:
			return
		case event := <-e.queue:
			e.app.Emit(e.ctx, string(event.Type), event.Data())
		}
		if n := e.dropped.Swap(0); n > 0 {
			e.logger.Warn("events were lost because their handlers are too slow; webhooks lose none", zap.Int64("events", n))
		}
	}
}

// hookMonitor logs what becomes of webhooks. It asks for the logger each time, as report does.
type hookMonitor struct{}

// Failing implements webhook.Monitor.
func (hookMonitor) Failing(host string, err error) {
	log := caddy.Log().Named("apikey")
	if err != nil {
		log.Warn("a webhook does not take events; they are tried again for 24 hours", zap.String("host", host), zap.Error(err))
		return
	}
	log.Info("a webhook takes events again", zap.String("host", host))
}

// Dead implements webhook.Monitor.
func (hookMonitor) Dead(host string, d *store.Delivery) {
	caddy.Log().Named("apikey").Error("gave up sending an event to a webhook; retry it with: caddy apikey webhooks retry "+d.ID,
		zap.String("host", host), zap.String("id", d.ID), zap.String("event", d.Event), zap.Int64("attempts", d.Attempts), zap.Int("last_status", d.LastStatus))
}

// OutboxFailed implements webhook.Monitor.
func (hookMonitor) OutboxFailed(err error) {
	report(fmt.Errorf("sending events to webhooks: %w", err))
}

// Interface guards
var (
	_ keyring.Listener = (*emitter)(nil)
	_ webhook.Monitor  = hookMonitor{}
)
