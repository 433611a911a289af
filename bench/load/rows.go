package main

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// object is a piece of configuration.
type object = map[string]any

// row is one comparison.
type row struct {
	name string
	// cpu is the least ratio of requests per processor time to the other side that is good
	// enough, floor the least one to the floor, rate that of requests per time; 0: none.
	cpu, floor, rate float64
	tail             bool     // p99 may be at most maxTail times that of the other side
	app              object   // of the app, beside the store
	status           int      // of the gate; the other side answers the same. 0: 200
	front            []object // what stands in front of the answer instead of the gate; nil: the gate

	// many: the store is the one with many keys, and each side has a process of its own.
	many bool
	// first: no key is used twice, and there is no warm-up.
	first bool
	// keys makes the key that is sent, or those that are.
	keys func(context.Context, *keyring.Service) (picker, error)
}

// maxTail is how many times the p99 of the other side that of a row may be.
const maxTail = 1.15

// picker returns, for one side, what puts the next key into a request. It is
// called for each connection. The length of a key never changes.
type picker func() pick

type pick func(key []byte)

const (
	plenty = int64(1) << 50
	minute = int64(time.Minute / time.Millisecond)
	month  = 30 * 24 * 60 * minute
)

// rows returns the table of targets, in its order.
func rows() []row {
	alice := keyring.Draft{UserID: "alice"}
	limited, spent, metered, empty := alice, alice, alice, alice
	limited.RateLimitMax, limited.RateLimitTimeWindow = new(plenty), new(minute)
	spent.RateLimitMax, spent.RateLimitTimeWindow = new(int64(1)), new(month)
	metered.Remaining, empty.Remaining = new(plenty), new(int64(0))
	tiers := object{
		"tiers": []object{{"name": "pro", "limits": []object{
			{"max": plenty, "per": "1m"}, {"max": plenty, "per": "day"}, {"max": plenty, "per": "month"},
		}}},
		"default_tier": "pro",
	}
	// Nobody listens on the port: what happens to keys cannot be delivered.
	down := object{"webhooks": []object{{"url": "http://127.0.0.1:1/", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}}
	leased := object{"credits": object{"mode": "lease", "max": 1000}}
	return []row{
		{name: "control: bare beside bare", front: []object{}, keys: one(alice)},
		{name: "control: the floor", front: []object{{"handler": "bench_floor"}}, keys: one(alice)},
		{name: "valid key", floor: 0.98, tail: true, keys: one(alice)},
		{name: "valid key, a webhook is down", floor: 0.98, tail: true, app: down, keys: one(alice)},
		{name: "valid key, rate limit", floor: 0.97, tail: true, keys: one(limited)},
		{name: "valid key, rate limit and tier limits", floor: 0.94, tail: true, app: tiers, keys: one(limited)},
		{name: "credits, lease 1000, one key", floor: 0.93, app: leased, keys: one(metered)},
		{name: "credits, lease 1000, 100 keys", floor: 0.95, app: leased, keys: some(100, metered)},
		{name: "credits, strict, one key", rate: 0.55, keys: one(metered)},
		{name: "credits, strict, 64 keys", rate: 0.45, keys: some(64, metered)},
		{name: "refused: malformed", cpu: 0.97, status: http.StatusUnauthorized, keys: mistyped},
		{name: "refused: unknown, each another", cpu: 0.93, status: http.StatusUnauthorized, keys: unknown},
		{name: "refused: over the rate limit", cpu: 0.93, status: http.StatusTooManyRequests, keys: one(spent)},
		{name: "refused: no credits left", cpu: 0.93, status: http.StatusTooManyRequests, keys: one(empty)},
		{name: "uniform over many keys, cold", cpu: 0.48, many: true, first: true},
		{name: "uniform over many keys, warm", cpu: 0.7, app: object{"cache_size": 384 << 20}, many: true},
	}
}

// one sends one key.
func one(d keyring.Draft) func(context.Context, *keyring.Service) (picker, error) {
	return func(ctx context.Context, keys *keyring.Service) (picker, error) {
		issued, err := keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(ctx, d)
		if err != nil {
			return nil, err
		}
		// What is over its limit from the second request on is so from now on.
		_, err = keys.Verify(ctx, issued.Raw, &keyring.Request{Cost: 1})
		return same(issued.Raw), err
	}
}

// some sends n keys in turn. Each connection begins with another.
func some(n int, d keyring.Draft) func(context.Context, *keyring.Service) (picker, error) {
	return func(ctx context.Context, keys *keyring.Service) (picker, error) {
		raws := make([]string, n)
		for i := range raws {
			issued, err := keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(ctx, d)
			if err != nil {
				return nil, err
			}
			raws[i] = issued.Raw
		}
		var conns atomic.Int64
		return func() pick {
			i := int(conns.Add(1)) - 1
			return func(key []byte) {
				copy(key, raws[i%n])
				i++
			}
		}, nil
	}
}

func same(raw string) picker {
	return func() pick { return func(key []byte) { copy(key, raw) } }
}

// mistyped sends a key whose checksum is wrong: of all that can be seen without
// a look-up it costs the most.
func mistyped(context.Context, *keyring.Service) (picker, error) {
	raw, err := newRaw()
	if err != nil {
		return nil, err
	}
	last := byte('0')
	if raw[len(raw)-1] == last {
		last = '1'
	}
	return same(raw[:len(raw)-1] + string(last)), nil
}

// unknown sends a well-formed key that nobody has ever seen, each time another.
func unknown(ctx context.Context, keys *keyring.Service) (picker, error) {
	for range 100 { // some that are not sent
		if _, err := keys.As(keyring.Actor{Kind: keyring.ActorOperator}).Create(ctx, keyring.Draft{UserID: "alice"}); err != nil {
			return nil, err
		}
	}
	return strangers, nil
}

func strangers() pick {
	return func(key []byte) {
		raw, err := newRaw()
		if err != nil {
			panic(err) // the arguments are constant
		}
		copy(key, raw)
	}
}

func newRaw() (string, error) { return key.Random{}.Generate("ak_", key.DefaultLength, true) }

// rawLen is the length of all keys that are sent.
const rawLen = len("ak_") + key.DefaultLength

// uniform sends any of many keys. raws are one after the other.
func uniform(raws []byte) picker {
	n := uint64(len(raws) / rawLen)
	return func() pick {
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], rand.Uint64())
		random := rand.New(rand.NewChaCha8(seed))
		return func(key []byte) { copy(key, raws[random.Uint64N(n)*uint64(rawLen):]) }
	}
}

// unused sends many keys in a random-looking order, none of them twice before
// all have been sent.
func unused(raws []byte) picker {
	const stride = 1<<31 - 1 // prime, so that it meets every key
	n := uint64(len(raws) / rawLen)
	var sent atomic.Uint64
	return func() pick {
		return func(key []byte) {
			i := (sent.Add(1) - 1) % n * stride % n
			copy(key, raws[i*uint64(rawLen):])
		}
	}
}
