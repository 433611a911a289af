package keyring

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// These tests kill real processes.

func kills() int {
	if testing.Short() {
		return 3
	}
	return times(10, 200)
}

// childVar makes the test binary the process that is killed:
// "<lease> <spenders> <administrators> <path> <id> <raw key>".
const childVar = "APIKEY_KEYRING_TEST_CHILD"

func init() {
	args := strings.Fields(os.Getenv(childVar))
	if len(args) == 0 {
		return
	}
	fmt.Println("failed", childMain(args))
	os.Exit(1)
}

// spenders is how many requests a child has in flight.
const spenders = 8

// childMain works until it is killed. It writes a line before and after each
// change and after each request that passed; a line is one write.
func childMain(args []string) error {
	lease, _ := strconv.ParseInt(args[0], 10, 64)
	spending, _ := strconv.Atoi(args[1])
	administrators, _ := strconv.Atoi(args[2])
	opener, err := sqlite.New(sqlite.Options{Path: args[3]})
	if err != nil {
		return err
	}
	engine := New(opener, time.Now, func(err error) { fmt.Println("failed", err) })
	if err := engine.Open(context.Background()); err != nil {
		return err
	}
	s := NewService(engine, &Settings{Rules: DefaultRules(), Lease: lease}).As(Actor{Kind: ActorOperator})
	failed := make(chan error)
	for range spending {
		go func() { failed <- spendForever(s, args[5]) }()
	}
	for n := range administrators {
		go func() { failed <- administerForever(s, args[4], n, spending > 0) }()
	}
	return <-failed
}

func spendForever(s *Editor, raw string) error {
	for {
		d, err := s.Verify(context.Background(), raw, &Request{Cost: 1})
		if err != nil || d.Outcome != Allowed {
			return fmt.Errorf("%q, %w", d.Outcome.Code(), err)
		}
		fmt.Println("spent")
	}
}

func administerForever(s *Editor, id string, n int, topUp bool) error {
	ctx := context.Background()
	for i := n; ; i++ {
		if topUp {
			fmt.Println("granting")
			if _, err := s.Update(ctx, id, Patch{RemainingDelta: to(int64(5))}); err != nil {
				return err
			}
			fmt.Println("granted")
		}
		k, err := s.Create(ctx, Draft{UserID: fmt.Sprint("owner", i%7)})
		if err != nil {
			return err
		}
		fmt.Println("created", k.Key.ID, k.Raw)
		switch i % 3 {
		case 0:
			fmt.Println("revoking", k.Key.ID)
			if _, err := s.Update(ctx, k.Key.ID, Patch{Enabled: to(false)}); err != nil {
				return err
			}
			fmt.Println("revoked", k.Key.ID)
		case 1:
			fmt.Println("deleting", k.Key.ID)
			if err := s.Delete(ctx, k.Key.ID); err != nil {
				return err
			}
			fmt.Println("deleted", k.Key.ID)
		}
	}
}

// journal is what the children said, over all rounds.
type journal struct {
	spent, granting, granted, acknowledged int64
	raw                                    map[string]string // of keys created in this round, by ID
	last                                   map[string]string // the last word about each
}

func (j *journal) write(t *testing.T, line string) {
	word, rest, _ := strings.Cut(line, " ")
	id, raw, _ := strings.Cut(rest, " ")
	switch word {
	case "spent":
		j.spent++
	case "granting":
		j.granting++
	case "granted":
		j.granted++
	case "created":
		j.raw[id] = raw
	case "revoking", "revoked", "deleting", "deleted":
	default:
		t.Fatalf("the child says %q", line)
	}
	if word == "created" || word == "revoked" || word == "deleted" {
		j.acknowledged++
	}
	if id != "" {
		j.last[id] = word
	}
}

// round starts a child, kills it at a random moment, and notes what it had said.
func (j *journal) round(t *testing.T, g *rig, k Issued, spending, administrators int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %d %s %s %s", childVar, g.lease, spending, administrators, g.path, k.Key.ID, k.Raw))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	j.raw, j.last = map[string]string{}, map[string]string{}
	lines := bufio.NewScanner(out)
	stop := 1 + rand.IntN(600)
	for n := 0; lines.Scan(); n++ {
		if n == stop {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
		j.write(t, lines.Text()) // also what it had said before it died
	}
	_ = cmd.Wait()
}

// acknowledgedHolds checks that every change of the last round that was answered
// is there. One that was begun and not answered may be or not.
func (j *journal) acknowledgedHolds(t *testing.T, g *rig) {
	want := map[string]Outcome{"created": Allowed, "revoked": Disabled, "deleted": Invalid}
	for id, word := range j.last {
		o, ok := want[word]
		if d := g.patient(j.raw[id]); ok && d.Outcome != o {
			t.Errorf("%s was %s, and is %q", id, word, d.Outcome.Code())
		}
	}
}

// patient is verify on a machine that is so busy with ending and starting processes
// that a look-up may take longer than a request would wait.
func (g *rig) patient(raw string) Decision {
	g.t.Helper()
	for range 20 {
		d, err := g.Verify(context.Background(), raw, &Request{Cost: 1})
		if !errors.Is(err, store.ErrUnavailable) {
			if err != nil {
				g.t.Fatal(err)
			}
			return d
		}
	}
	g.t.Fatal("the store stays unavailable")
	panic("unreachable")
}

func integrity(t *testing.T, path string) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var answer string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&answer); err != nil || answer != "ok" {
		t.Fatalf("integrity: %s, %v", answer, err)
	}
}

// TestK3_KillWhileSpending kills a process that spends, over and over. No credit
// is ever spent twice; what is lost is what was in flight and what was leased;
// every change that was answered is there.
func TestK3_KillWhileSpending(t *testing.T) {
	for _, lease := range []int64{0, 100} {
		t.Run(fmt.Sprint("lease ", lease), func(t *testing.T) {
			const start, grant = 1 << 40, 5
			g := newRig(t)
			k := g.create(Draft{Remaining: ptr(int64(start))})
			var j journal
			var lost, unanswered int64 // over all kills
			for round := range int64(kills()) {
				g.stop()
				g.lease = lease
				j.round(t, g, k, spenders, int(round%2))
				integrity(t, g.path)
				g.start()
				row := g.stored(k.Key.ID)
				j.acknowledgedHolds(t, g)
				if row.Granted < start+j.granted*grant || row.Granted > start+j.granting*grant {
					t.Fatalf("round %d: %d granted, %d top-ups begun, %d answered", round, row.Granted-start, j.granting, j.granted)
				}
				// A <= G, and more than that: spent and left are no more than granted.
				if j.spent+row.Remaining > row.Granted {
					t.Fatalf("round %d: %d spent and %d left of %d", round, j.spent, row.Remaining, row.Granted)
				}
				before := lost
				lost = row.Granted - j.spent - row.Remaining
				unanswered = max(unanswered, lost-before)
				if lost-before > spenders+lease {
					t.Fatalf("round %d: %d lost, at most %d in flight and %d leased", round, lost-before, spenders, lease)
				}
				if row.Leased != 0 || lease == 0 && row.Forfeited != 0 {
					t.Fatalf("round %d: %+v", round, row)
				}
			}
			left := g.stored(k.Key.ID).Remaining
			g.want(k.Raw, Allowed, Request{Cost: left})
			g.want(k.Raw, UsageExceeded)
			t.Logf("%d kills, %d spent, %d lost, at most %d at once, %d changes answered", kills(), j.spent, lost, unanswered, j.acknowledged)
		})
	}
}

// TestF1_KillWhileChanging kills a process that creates, revokes and deletes keys.
func TestF1_KillWhileChanging(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	var j journal
	for range kills() {
		g.stop()
		j.round(t, g, k, 0, 8)
		integrity(t, g.path)
		g.start()
		j.acknowledgedHolds(t, g)
	}
	t.Logf("%d kills, %d changes answered, none lost", kills(), j.acknowledged)
}

// BenchmarkCharge is a request with limited credits, alone and with 64 others.
func BenchmarkCharge(b *testing.B) {
	for _, lease := range []int64{0, 1000} {
		for _, parallel := range []int{1, 64} {
			b.Run(fmt.Sprintf("lease=%d/requests=%d", lease, parallel), func(b *testing.B) {
				g := newRig(b)
				s := NewService(g.engine, &Settings{Rules: g.set.Rules, Lease: lease}).As(Actor{Kind: ActorOperator})
				k := g.create(Draft{Remaining: ptr(int64(1 << 50))})
				g.engine.now = time.Now
				b.ReportAllocs()
				b.SetParallelism(parallel)
				var refused atomic.Int64
				charge := func() {
					if d, err := s.Verify(context.Background(), k.Raw, &Request{Cost: 1}); err != nil || d.Outcome != Allowed {
						refused.Add(1)
					}
				}
				if parallel == 1 {
					for b.Loop() {
						charge()
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							charge()
						}
					})
				}
				if refused.Load() > 0 {
					b.Fatalf("%d refused", refused.Load())
				}
			})
		}
	}
}
