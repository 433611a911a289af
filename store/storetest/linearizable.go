package storetest

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/anishathalye/porcupine"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// keyState is what the model knows of one key.
type keyState struct {
	exists     bool
	generation int64 // how often it was updated, and 1
	remaining  int64
	version    int64
}

type keyInput struct {
	key int
	op  string // create, get, update, take, delete
}

type keyOutput struct {
	state keyState
	ok    bool // take: taken; others: done
}

const startCredits = 3

// keyModel is a key as a single thread would see it.
var keyModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[int][]porcupine.Operation{}
		for _, op := range history {
			k := op.Input.(keyInput).key
			byKey[k] = append(byKey[k], op)
		}
		var parts [][]porcupine.Operation
		for _, p := range byKey {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return keyState{} },
	Step: func(state, input, output any) (bool, any) {
		in := input.(keyInput)
		next, ok := step(state.(keyState), in.op)
		return output.(keyOutput) == shown(in.op, next, ok), next
	},
}

// shown is what the answer to a call shows of a key.
func shown(op string, s keyState, ok bool) keyOutput {
	switch {
	case op == "delete", op == "create" && !ok:
		return keyOutput{ok: ok}
	case op == "take":
		s.generation = 0
	}
	return keyOutput{s, ok}
}

func step(s keyState, op string) (next keyState, ok bool) {
	switch {
	case op == "create":
		if s.exists {
			return s, false
		}
		return keyState{true, 1, startCredits, 1}, true
	case !s.exists:
		return s, false
	case op == "update":
		s.generation++
		return s, true
	case op == "take":
		if s.remaining == 0 {
			return s, false
		}
		s.remaining--
		s.version++
		return s, true
	case op == "delete":
		return keyState{}, true
	}
	return s, true // get
}

// testC8 lets clients do everything to a few keys at once, and asks whether
// some order of the calls explains all answers.
func testC8(e *env) {
	const rounds, keys, clients, calls = 25, 4, 6, 40
	ops := []string{"create", "get", "get", "update", "take", "take", "delete"}
	for round := range rounds {
		var clock atomic.Int64
		var mu sync.Mutex
		var history []porcupine.Operation
		var wg sync.WaitGroup
		for client := range clients {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(client)))
				for range calls {
					in := keyInput{r.IntN(keys), ops[r.IntN(len(ops))]}
					begin := clock.Add(1)
					out, err := e.do(round, in)
					end := clock.Add(1)
					if err != nil {
						e.Error(err)
						return
					}
					mu.Lock()
					history = append(history, porcupine.Operation{ClientId: client, Input: in, Call: begin, Output: out, Return: end})
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if e.Failed() {
			return
		}
		if !porcupine.CheckOperations(keyModel, history) {
			e.Fatalf("round %d: no order of the calls explains the answers", round)
		}
	}
}

// do makes one call and says what it showed of the key.
func (e *env) do(round int, in keyInput) (keyOutput, error) {
	k := plainKey(1 + round*100 + in.key)
	made := k.UpdatedAt
	var got store.Entry
	var err error
	ok := true
	switch in.op {
	case "create":
		got, err = e.storeCreate(k, limited(startCredits))
	case "get":
		got, err = e.store.Find(e.ctx, k.Hash)
	case "update":
		got, err = e.storeUpdate(k.ID, func(en *store.Entry) error {
			k := en.Key.Clone()
			k.UpdatedAt++
			en.Key = k
			return nil
		})
	case "take":
		var taken store.Taken
		taken, err = e.store.MoveCredits(e.ctx, store.OfKey(k.ID), key.Move{Take: 1}, t0)
		got, ok = store.Entry{Key: k, Credits: taken.Credits}, taken.OK
	case "delete":
		err = e.storeDelete(k.ID)
		got.Key = k
	}
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrExists) {
		return keyOutput{}, nil
	}
	if err != nil {
		return keyOutput{}, err
	}
	return shown(in.op, keyState{true, got.Key.UpdatedAt - made + 1, got.Credits.Remaining, got.Credits.Version}, ok), nil
}
