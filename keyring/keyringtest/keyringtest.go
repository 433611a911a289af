// Package keyringtest lets clients do everything to a key at the same time, by whatever
// door, and asks whether the answers are those of a key that takes one call after the
// other: whether the history of each key is linearizable.
package keyringtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What the gate answers to a raw key: the code of a refusal, or nothing.
const (
	Allowed   = ""
	Invalid   = "INVALID_API_KEY"
	Disabled  = "KEY_DISABLED"
	Forbidden = "INSUFFICIENT_PERMISSIONS"
)

// Key is one key, by the door that is tested. It does not exist at first. It is used by
// many at a time.
type Key interface {
	// Create makes the key, enabled and permitted, and returns false where it exists. It
	// has the same raw key each time.
	Create() (bool, error)
	// Raw is the raw key that Create gives the key.
	Raw() string
	// Use sends a request that needs the permission.
	Use(raw string) (answer string, err error)
	// Get and List show the key, or the zero View.
	Get() (View, error)
	List() (View, error)
	// Change does so and shows what the key has become, or the zero View.
	Change(Change) (View, error)
	// Rotate returns the new raw key, or "". With grace the earlier ones go on working.
	Rotate(grace bool) (raw string, err error)
	// Delete returns false where the key does not exist.
	Delete() (bool, error)
}

// View is what is shown of a key. The zero View is that of a key that does not exist.
type View struct {
	Exists, Enabled, Permitted bool
	Name                       string
}

// Change is a change of one of these. Nil stays.
type Change struct {
	Enabled, Permitted *bool
	Name               *string
}

const (
	opCreate  = "create"
	opUse     = "use"
	opGet     = "get"
	opList    = "list"
	opEnable  = "enable"
	opDisable = "disable"
	opPermit  = "permit"
	opForbid  = "forbid"
	opRename  = "rename"
	opRotate  = "rotate"
	opGrace   = "rotate with grace"
	opDelete  = "delete"
)

// ops are the calls, as often as clients make them.
var ops = []string{
	opCreate, opCreate, opUse, opUse, opUse, opUse, opUse, opUse, opGet, opGet, opList,
	opEnable, opEnable, opDisable, opPermit, opForbid, opRename, opRotate, opGrace, opDelete,
}

const (
	clients = 4 // of a key
	calls   = 8 // of a client
	keys    = 4 // at a time
	// A history takes a moment to check, unless something is very wrong.
	checkTimeout = time.Minute
)

// Linearizable makes so many histories, each with the key that newKey returns for its
// number, and fails the test where no order of the calls explains the answers.
func Linearizable(t *testing.T, histories int, newKey func(n int) Key) {
	t.Helper()
	var next atomic.Int64
	var work sync.WaitGroup
	for range keys {
		work.Go(func() {
			for n := int(next.Add(1)); n <= histories && !t.Failed(); n = int(next.Add(1)) {
				check(t, n, newKey(n))
			}
		})
	}
	work.Wait()
}

func check(t *testing.T, n int, k Key) {
	h := &history{key: k, raws: []string{k.Raw()}}
	var work sync.WaitGroup
	for client := range clients {
		work.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), uint64(client)))
			for range calls {
				if err := h.call(client, input{op: ops[r.IntN(len(ops))]}, r); err != nil {
					t.Errorf("history %d: %v", n, err)
					return
				}
			}
		})
	}
	work.Wait()
	if t.Failed() {
		return
	}
	if result := porcupine.CheckOperationsTimeout(model, h.calls, checkTimeout); result != porcupine.Ok {
		t.Errorf("history %d: no order of the calls explains the answers (%s):\n%s", n, result, h)
	}
}

// history is what clients did to a key.
type history struct {
	key   Key
	clock atomic.Int64

	mu    sync.Mutex
	calls []porcupine.Operation
	raws  []string // that were ever made
}

func (h *history) call(client int, in input, r *rand.Rand) error {
	switch in.op {
	case opCreate:
		in.arg = h.key.Raw()
	case opRename:
		in.arg = fmt.Sprintf("name %d of %d", r.IntN(100), client)
	case opUse:
		in.arg = h.someRaw(r)
	}
	begin := h.clock.Add(1)
	out, err := h.do(in)
	end := h.clock.Add(1)
	if err != nil {
		return fmt.Errorf("%s: %w", in.op, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if out.raw != "" {
		h.raws = append(h.raws, out.raw)
	}
	h.calls = append(h.calls, porcupine.Operation{ClientId: client, Input: in, Call: begin, Output: out, Return: end})
	return nil
}

// someRaw returns one of the latest raw keys, or the first.
func (h *history) someRaw(r *rand.Rand) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	latest := h.raws[max(0, len(h.raws)-2):]
	if i := r.IntN(len(latest) + 1); i < len(latest) {
		return latest[i]
	}
	return h.raws[0]
}

func (h *history) do(in input) (out output, err error) {
	yes, no := true, false
	switch in.op {
	case opCreate:
		out.done, err = h.key.Create()
	case opUse:
		out.answer, err = h.key.Use(in.arg)
	case opGet:
		out.view, err = h.key.Get()
	case opList:
		out.view, err = h.key.List()
	case opEnable:
		out.view, err = h.key.Change(Change{Enabled: &yes})
	case opDisable:
		out.view, err = h.key.Change(Change{Enabled: &no})
	case opPermit:
		out.view, err = h.key.Change(Change{Permitted: &yes})
	case opForbid:
		out.view, err = h.key.Change(Change{Permitted: &no})
	case opRename:
		out.view, err = h.key.Change(Change{Name: &in.arg})
	case opRotate, opGrace:
		out.raw, err = h.key.Rotate(in.op == opGrace)
	case opDelete:
		out.done, err = h.key.Delete()
	}
	return out, err
}

// String lists the calls in the order in which they began. Raw keys, which are those of a
// test, are numbered.
func (h *history) String() string {
	slices.SortFunc(h.calls, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var text strings.Builder
	for _, c := range h.calls {
		in, out := c.Input.(input), c.Output.(output)
		fmt.Fprintf(&text, "%3d to %3d, client %d: %s %s: %+v\n", c.Call, c.Return, c.ClientId, in.op, h.number(in.arg), output{out.answer, out.view, out.done, h.number(out.raw)})
	}
	return text.String()
}

func (h *history) number(s string) string {
	if i := slices.Index(h.raws, s); i >= 0 {
		return fmt.Sprintf("raw key %d", i)
	}
	return s
}
