package main

import (
	"context"
	"encoding/binary"
	"fmt"
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
	name   string
	target float64  // the least ratio that is good enough; 0: none
	app    object   // of the app, beside the store
	status int      // of the gate; the other side answers the same. 0: 200
	front  []object // what stands in front of the answer instead of the gate; nil: the gate

	// many: the store is the one with many keys.
	many bool
	// first: no key is used twice, and there is no warm-up.
	first bool
	// keys makes the key that is sent, or those that are.
	keys func(context.Context, *keyring.Service) (picker, error)
}

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
	return []row{
		{name: "control: bare beside bare", front: []object{}, keys: one(alice)},
		{name: "control: the floor", front: []object{{"handler": "bench_floor"}}, keys: one(alice)},
		{name: "valid key", target: 0.95, keys: one(alice)},
		{name: "valid key, rate limit", keys: one(limited)},
		{name: "valid key, rate limit and tier limits", target: 0.93, app: tiers, keys: one(limited)},
		{name: "credits, lease 1000", target: 0.92, app: object{"credits": object{"mode": "lease", "max": 1000}}, keys: one(metered)},
		{name: "credits, strict", target: 0.40, keys: one(metered)},
		{name: "refused: malformed", target: 0.95, status: http.StatusUnauthorized, keys: mistyped},
		{name: "refused: unknown, each another", target: 0.95, status: http.StatusUnauthorized, keys: unknown},
		{name: "refused: over the rate limit", target: 0.95, status: http.StatusTooManyRequests, keys: one(spent)},
		{name: "refused: no credits left", target: 0.95, status: http.StatusTooManyRequests, keys: one(empty)},
		{name: "uniform over many keys, cold", target: 0.5, many: true, first: true},
		{name: "uniform over many keys, warm", target: 0.8, many: true},
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

func (r *row) String() string { return fmt.Sprintf("%s (target %.2f)", r.name, r.target) }
