package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// This file tests what the life cycle of Caddy's modules does to the state: one
// test for each trap. The numbers are those of the findings in the notes on Caddy.

// spent is a server with two keys that have nothing left, and one that has.
type spent struct {
	life
	good, limited, empty lifeKey
}

func (s *spent) spend() {
	s.t.Helper()
	s.good = s.create()
	s.limited = s.create(`"rateLimitMax":1`, `"rateLimitTimeWindow":3600000`)
	s.empty = s.create(`"remaining":1`)
	s.wants(s.limited.Raw, 200, "")
	s.wants(s.empty.Raw, 200, "")
	s.check()
}

// check checks that counters and records are what they were.
func (s *spent) check() {
	s.t.Helper()
	s.wants(s.good.Raw, 200, "")
	s.wants(s.limited.Raw, 429, "RATE_LIMITED")
	s.wants(s.empty.Raw, 429, "USAGE_EXCEEDED")
	s.wants(s.good.Raw[:len(s.good.Raw)-1], 401, "INVALID_API_KEY")
}

func startSpent(t *testing.T, caddyfile string, options ...option) *spent {
	t.Helper()
	s := &spent{life: startLife(t, caddyfile, options...)}
	s.spend()
	return s
}

// checkFiles checks that the database is open once, as it was.
func (s *spent) checkFiles(db string, before [4]int) {
	s.t.Helper()
	if now := s.open(db); now != before || now[2] != 1 || now[3] != 1 {
		s.t.Errorf("descriptors of database, log, shared memory, lock: %v, before %v", now, before)
	}
	if n := s.locks(db); n != 1 {
		s.t.Errorf("%d locks on the lock file", n)
	}
}

// TestFinding2_reloadSamePath: state lives as long as some configuration uses the
// store, whatever else changes.
func TestFinding2_reloadSamePath(t *testing.T) {
	quick(t)
	s := startSpent(t, "{$SITE} {\n\tapikey\n\trespond ok\n}\n")
	before := s.open(s.db())
	same := s.caddyfile
	s.reload(same) // by the command, with --force
	s.check()
	for _, config := range []string{
		same,
		lifeConfig(s.db()), // the default path, written out
		strings.Replace(lifeConfig(s.db()), "store", "length 80\n\t\tstore", 1),
		lifeConfig(filepath.Join(s.Dir, "caddy", "..", "caddy", "apikey", "apikey.db")),
		same,
	} {
		s.loads(config)
		s.check()
		s.checkFiles(s.db(), before)
	}
	s.noPanic()
}

// TestFinding2_reloadOtherPath goes to another database and back.
func TestFinding2_reloadOtherPath(t *testing.T) {
	full(t)
	dir := t.TempDir()
	first, second := filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db")
	s := startSpent(t, lifeConfig(first))
	before := s.open(first)
	s.loads(lifeConfig(second))
	eventually(t, "the first database is closed", func() bool { return s.open(first) == [4]int{} })
	if n := s.locks(first); n != 0 {
		t.Errorf("%d locks on a database that is closed", n)
	}
	for _, suffix := range lifeSuffixes[1:3] {
		if _, err := os.Stat(first + suffix); err == nil {
			t.Errorf("%s was left behind", suffix)
		}
	}
	s.wants(s.good.Raw, 401, "INVALID_API_KEY")
	other := s.create()
	s.wants(other.Raw, 200, "")

	s.loads(lifeConfig(first))
	eventually(t, "the second database is closed", func() bool { return s.open(second) == [4]int{} })
	s.check()
	s.checkFiles(first, before)
	s.wants(other.Raw, 401, "INVALID_API_KEY")
	s.noPanic()
}

// TestFinding4_ownFailure: a configuration of ours that cannot be loaded leaves
// the old one running, and the admin API with it.
func TestFinding4_ownFailure(t *testing.T) {
	full(t)
	dir := t.TempDir()
	db, garbage := filepath.Join(dir, "a.db"), filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startSpent(t, lifeConfig(db))
	before := s.open(db)
	for name, test := range map[string]struct{ config, why string }{
		"bad option":     {strings.Replace(lifeConfig(db), "store", "length 5\n\t\tstore", 1), "length"},
		"unknown option": {strings.Replace(lifeConfig(db), "store", "nonsense\n\t\tstore", 1), "nonsense"},
		"bad gate":       {lifeConfig(db, "apikey {\n\t\theaders X_Api_Key\n\t}", "respond ok"), "X_api_key"},
		"bad app in JSON": {
			`{"apps":{"apikey":{"length":5}}}`, "length",
		},
		"unknown field in JSON": {`{"apps":{"apikey":{"lenght":64}}}`, "lenght"},
		"unknown store":         {`{"apps":{"apikey":{"store":{"store":"nowhere"}}}}`, "nowhere"},
		"other table prefix":    {strings.Replace(lifeConfig(db), "store", "table_prefix x_\n\t\tstore", 1), "table_prefix"},
		"directory":             {lifeConfig(dir), "is a directory"},
		"garbage":               {lifeConfig(garbage), "not an SQLite database"},
		"below a file":          {lifeConfig(filepath.Join(garbage, "x.db")), "garbage.db"},
	} {
		if a := s.load(test.config); a.status == http.StatusOK || !strings.Contains(a.body, test.why) {
			t.Errorf("%s: %v, want an error with %q", name, a, test.why)
		}
		s.check()
		s.checkFiles(db, before)
		if a := s.admin(http.MethodGet, "/apikey/keys/"+s.good.ID, ""); a.status != http.StatusOK {
			t.Errorf("%s: the admin API answers %v", name, a)
		}
		if a := s.admin(http.MethodGet, "/apikey/health", ""); a.status != http.StatusOK {
			t.Errorf("%s: health: %v", name, a)
		}
	}
	fresh := filepath.Join(dir, "fresh.db")
	if a := s.load(fmt.Sprintf(`{"apps":{"apikey":{"length":5,"store":{"store":"sqlite","path":%q}}}}`, fresh)); a.status == http.StatusOK {
		t.Errorf("a bad option beside another database: %v", a)
	}
	if _, err := os.Stat(fresh); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a configuration that was refused has made a database: %v", err)
	}
	eventually(t, "the refused file is closed", func() bool { return s.open(garbage) == [4]int{} })
	late := s.create() // the admin API writes, too, and where the gate sees it
	s.wants(late.Raw, 200, "")
	s.loads(strings.Replace(lifeConfig(db), "store", "length 80\n\t\tstore", 1))
	s.check()
	s.wants(late.Raw, 200, "")
	if k := s.create(); len(k.Raw) != len("ak_")+80 {
		t.Errorf("the new configuration does not rule: a key of %d characters", len(k.Raw))
	}
	s.noPanic()
}

// TestFinding2_foreignFailure: a configuration that fails for reasons of others,
// before or after our app has started, destroys nothing of ours. Caddy starts apps
// in random order, so it fails several times.
func TestFinding2_foreignFailure(t *testing.T) {
	full(t)
	dir := t.TempDir()
	db, other := filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db")
	s := startSpent(t, lifeConfig(db))
	before := s.open(db)
	neighbour := "http://" + portInUse(t) + " {\n\trespond no\n}\n"
	for range 8 {
		for _, path := range []string{db, other} {
			if a := s.load(lifeConfig(path) + neighbour); a.status == http.StatusOK || !strings.Contains(a.body, "address already in use") {
				t.Fatalf("the configuration was not refused: %v", a)
			}
			s.check()
			s.checkFiles(db, before)
			eventually(t, "the database that nobody uses is closed", func() bool { return s.open(other) == [4]int{} })
		}
	}
	s.show(s.good.ID)
	s.loads(lifeConfig(other))
	s.wants(s.good.Raw, 401, "INVALID_API_KEY")
	s.loads(lifeConfig(db))
	s.check()
	s.noPanic()
}

// TestFinding3_requestOutlivesConfiguration: Caddy does not wait for requests when
// it reloads. One that comes back to a store that is closed gets a clean answer.
func TestFinding3_requestOutlivesConfiguration(t *testing.T) {
	full(t)
	dir := t.TempDir()
	first, second := filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db")
	up := newBlocking(t)
	site := []string{
		"apikey {", "\trefund_on 500", "}", "reverse_proxy " + up.addr(),
		"handle_errors {", "\tapikey {", "\t\tcost 2", "\t}", "\trespond {err.status_code}", "}",
	}
	s := startLife(t, lifeConfig(first, site...))
	k := s.create(`"remaining":9`, `"rateLimitMax":100`, `"rateLimitTimeWindow":3600000`)
	plain := s.create()
	refunded := s.background("/slow?status=500", k.Raw)
	good := s.background("/slow", plain.Raw)
	again := s.background("/slow?status=drop", k.Raw) // an error route with a gate of its own
	for range 3 {
		await(t, "a request arrives", up.arrived)
	}
	s.loads(lifeConfig(second, site...))
	eventually(t, "the first database is closed", func() bool { return s.open(first) == [4]int{} })
	up.release()
	if a := await(t, "the answer", good); a.status != 200 {
		t.Errorf("a request in flight: %v", a)
	}
	if a := await(t, "the answer", refunded); a.status != 500 {
		t.Errorf("a request in flight with refund: %v", a)
	}
	if a := await(t, "the answer", again); a.status != 503 || a.code() != "STORE_UNAVAILABLE" {
		t.Errorf("a request in flight that meets another gate: %v", a)
	}
	eventually(t, "the log tells of the refund", func() bool { return strings.Contains(s.Log(), "credits were not given back") })
	s.noPanic()
	s.loads(lifeConfig(first))
	if got := s.show(k.ID); *got.Remaining != 7 {
		t.Errorf("%d credits left of 9 after two requests", *got.Remaining)
	}
}

// TestFinding9_validate: "caddy validate" provisions our modules in a process of
// their own. It must not touch the files of a server, nor make any.
func TestFinding9_validate(t *testing.T) {
	full(t)
	db := filepath.Join(t.TempDir(), "a.db")
	s := startSpent(t, lifeConfig(db))
	before, info := s.open(db), mustStat(t, db+".lock")
	for _, args := range [][]string{{"validate"}, {"adapt", "--validate"}, {"adapt"}} {
		if r := s.run(append(args, "--config", s.file(), "--adapter", "caddyfile")...); r.code != 0 {
			t.Errorf("%v: exit status %d\n%s", args, r.code, r.stderr)
		}
	}
	s.check()
	s.checkFiles(db, before)
	if now := mustStat(t, db+".lock"); now.ModTime() != info.ModTime() {
		t.Error("the lock file was written")
	}

	fresh := newLife(t, lifeConfig(filepath.Join(t.TempDir(), "new", "a.db"))+"http://x.localhost {\n\tapikey\n}\n")
	for _, args := range [][]string{{"validate"}, {"adapt", "--validate"}} {
		if r := fresh.run(append(args, "--config", fresh.file(), "--adapter", "caddyfile")...); r.code != 0 {
			t.Errorf("%v: exit status %d\n%s", args, r.code, r.stderr)
		}
	}
	if _, err := os.Stat(filepath.Dir(fresh.db())); err == nil {
		t.Error("validate made the folder of the default database")
	}
	dir := strings.Fields(fresh.caddyfile[strings.Index(fresh.caddyfile, "sqlite "):])[1]
	if _, err := os.Stat(filepath.Dir(dir)); err == nil {
		t.Error("validate made the folder of the database")
	}
}

func mustStat(t testing.TB, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// TestFinding4_adminWithoutApp: the admin routes exist wherever the plugin is
// linked. They must not bring the app, and with it a database, into being.
func TestFinding4_adminWithoutApp(t *testing.T) {
	full(t)
	const without, with = "{$SITE} {\n\trespond ok\n}\n", "{$SITE} {\n\tapikey\n\trespond ok\n}\n"
	s := startLife(t, without)
	unavailable := func() {
		t.Helper()
		for _, call := range [][2]string{
			{"GET", "/apikey/keys"}, {"GET", "/apikey/health"}, {"POST", "/apikey/keys"}, {"GET", "/apikey/keys/x"},
		} {
			body := ""
			if call[0] == "POST" {
				body = `{"userId":"alice"}`
			}
			if a := s.admin(call[0], call[1], body); a.status != 503 || a.code() == "" {
				t.Errorf("%v without the app: %v", call, a)
			}
		}
		if r := s.run("apikey", "list"); r.code != 1 || r.stderr == "" || r.stdout != "" {
			t.Errorf("caddy apikey list: %+v", r)
		}
	}
	unavailable()
	if _, err := os.Stat(filepath.Dir(s.db())); err == nil {
		t.Fatal("a Caddy that does not use the plugin has a database")
	}
	for _, handler := range []string{`{"handler":"apikey","rate_headers":"bogus"}`, `{"handler":"apikey_api","base":"v1"}`} {
		if a := s.load(fmt.Sprintf(`{"apps":{"http":{"servers":{"s":{"listen":[%q],"routes":[{"handle":[%s]}]}}}}}`, freeAddr(t), handler)); a.status == 200 {
			t.Errorf("%s was not refused", handler)
		}
		if _, err := os.Stat(filepath.Dir(s.db())); err == nil {
			t.Fatalf("%s was refused, and has left a database", handler)
		}
	}
	s.loads(with)
	k := s.create()
	s.wants(k.Raw, 200, "")
	s.loads(without)
	unavailable()
	eventually(t, "the database that nobody uses is closed", func() bool { return s.open(s.db()) == [4]int{} })

	// Without an admin endpoint keys go on working.
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.write("{\n\tadmin off\n}\n" + with)
	s.start()
	s.wants(k.Raw, 200, "")
	s.wants("", 401, "MISSING_API_KEY")
	if r := s.run("apikey", "list"); r.code != 1 || r.stderr == "" {
		t.Errorf("caddy apikey list with the admin endpoint off: %+v", r)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.noPanic()
}

// hammer sends requests until it is told to stop, and counts the answers.
type hammer struct {
	newConnections bool // a new one for each request

	stop    atomic.Bool
	workers sync.WaitGroup
	mu      sync.Mutex
	answers map[string]int // by name of the key and code
	failed  int            // requests without an answer
	wrong   []string
	errors  []string
}

// hit begins to send requests with a key. allowed are the codes that may come;
// "" is a request that is let in.
func (h *hammer) hit(l life, name, raw string, allowed ...string) {
	h.hitPath(l, "/", name, raw, allowed...)
}

func (h *hammer) hitPath(l life, path, name, raw string, allowed ...string) {
	client := &http.Client{Timeout: startTimeout, Transport: &http.Transport{DisableKeepAlives: h.newConnections}}
	h.workers.Go(func() {
		defer client.CloseIdleConnections()
		for !h.stop.Load() {
			a, err := l.try(client, path, raw)
			h.note(name, a, err, allowed)
		}
	})
}

func (h *hammer) note(name string, a lifeAnswer, err error, allowed []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.answers == nil {
		h.answers = map[string]int{}
	}
	switch code := a.code(); {
	case err != nil:
		h.failed++
		h.errors = append(h.errors, name+": "+err.Error())
	case !slices.Contains(allowed, code) || (code == "") != (a.status == 200):
		h.wrong = append(h.wrong, fmt.Sprintf("%s: %v", name, a))
	default:
		h.answers[name+" "+code]++
	}
}

func (h *hammer) end(t *testing.T) {
	t.Helper()
	h.stop.Store(true)
	h.workers.Wait()
	if len(h.wrong) > 0 {
		t.Errorf("%d wrong decisions, such as %v", len(h.wrong), h.wrong[:min(5, len(h.wrong))])
	}
	t.Logf("answers: %v, failed connections: %d %v", h.answers, h.failed, h.errors[:min(3, len(h.errors))])
}

// storm is a server under load that is given one configuration after the other.
type storm struct {
	*spent
	h                hammer
	db               string
	broken           []string
	limited, counted lifeKey
	opened           time.Time // when the lock file was last written, which each opening does
}

// The keys of a storm have so much; it is used up in the first moments.
const stormLimit, stormCredits = 40, 30

func startStorm(t *testing.T) *storm {
	t.Helper()
	s := &storm{db: filepath.Join(t.TempDir(), "a.db")}
	s.spent = startSpent(t, s.config())
	s.limited = s.create(fmt.Sprintf(`"rateLimitMax":%d`, stormLimit), `"rateLimitTimeWindow":86400000`)
	s.counted = s.create(fmt.Sprintf(`"remaining":%d`, stormCredits))
	s.broken = []string{
		strings.Replace(s.config(), s.db, t.TempDir(), 1),
		s.config() + "http://" + portInUse(t) + " {\n\trespond no\n}\n",
		`{"apps":{"apikey":{"length":5}}}`,
	}
	s.opened = mustStat(t, s.db+".lock").ModTime()
	return s
}

func (s *storm) config(options ...string) string {
	config := lifeConfig(s.db, "@gated not path /stock", "apikey @gated", "respond ok")
	return strings.Replace(config, "store", strings.Join(append(options, "store"), "\n\t\t"), 1)
}

func (s *storm) load() {
	s.h.hit(s.life, "good", s.good.Raw, "")
	s.h.hit(s.life, "unknown", s.good.Raw+"x", "INVALID_API_KEY")
	s.h.hit(s.life, "limited", s.limited.Raw, "", "RATE_LIMITED")
	s.h.hit(s.life, "counted", s.counted.Raw, "", "USAGE_EXCEEDED")
	s.h.hit(s.life, "spent", s.spent.limited.Raw, "RATE_LIMITED")
	s.h.hitPath(s.life, "/stock", "stock", "", "")
}

// turn gives the server the i-th configuration. One in ten is broken; the others
// change what is cheap to change, how credits are taken, or nothing.
func (s *storm) turn(i int) {
	s.t.Helper()
	switch {
	case i%10 == 9:
		if a := s.life.load(s.broken[i/10%len(s.broken)]); a.status == http.StatusOK {
			s.t.Error("a broken configuration was taken")
		}
	case i%4 == 0:
		s.loads(s.config(fmt.Sprintf("length %d", 64+i%64)))
	case i%4 == 2:
		s.loads(s.config("credits lease 10"))
	default:
		s.loads(s.config())
	}
}

// checkCounts checks what was let in over n reloads.
func (s *storm) checkCounts(n int) {
	t := s.t
	t.Helper()
	if got := s.h.answers["limited "]; got > stormLimit {
		t.Errorf("%d requests were let in of %d", got, stormLimit)
	}
	if got := s.h.answers["counted "]; got > stormCredits || got+s.h.failed < stormCredits {
		t.Errorf("%d requests were let in for %d credits", got, stormCredits)
	}
	if s.h.failed > 2*n { // stock Caddy loses as many
		t.Errorf("%d requests got no answer", s.h.failed)
	}
	if at := mustStat(t, s.db+".lock").ModTime(); !at.Equal(s.opened) {
		t.Error("the database was opened again")
	}
	if got := s.open(s.db); got[0] > 6 || got[2] != 1 || got[3] != 1 {
		t.Errorf("descriptors of database, log, shared memory, lock: %v", got)
	}
}

// TestC1_reloadStorm: many reloads under load, with changed, unchanged and broken
// configurations, change no decision and leave nothing behind.
func TestC1_reloadStorm(t *testing.T) {
	full(t)
	s := startStorm(t)
	s.loads(s.config()) // so that what Caddy keeps after a first reload is there
	files, goroutines, fds := s.open(s.db), s.goroutines(), len(s.descriptors())
	s.load()
	n, resident := times(30, 500), 0
	for i := range n {
		if i == n/10 { // by now its heap is that of a server under load
			resident = s.resident()
		}
		s.turn(i)
	}
	grown := s.resident() - resident
	s.h.end(t)
	s.checkCounts(n)
	s.check()
	readers := func() int { n := s.open(s.db); return n[0] + n[1] - files[0] - files[1] } // the pool may have grown
	var now [2]int
	eventually(t, "goroutines and descriptors are back", func() bool {
		now = [2]int{s.goroutines(), len(s.descriptors()) - readers()}
		return now[0] <= goroutines+5+readers() && now[1] <= fds+5
	})
	t.Logf("%d reloads: goroutines %d, then %d; descriptors %d, then %d; memory %d KiB, then %+d", n, goroutines, now[0], fds, now[1], resident, grown)
	if grown > resident/10 && n >= 500 { // in fewer reloads chance is larger than that
		t.Errorf("%d KiB more than the %d KiB after a tenth of the reloads", grown, resident)
	}
	s.noPanic()
}

// TestC1_brokenStore: Caddy starts apps in random order, so the HTTP servers of a
// configuration whose store cannot be opened could answer before it fails.
func TestC1_brokenStore(t *testing.T) {
	full(t)
	dir := t.TempDir()
	s := startSpent(t, lifeConfig(filepath.Join(dir, "a.db")))
	h := hammer{newConnections: true} // only those may meet the new servers
	for range 3 {
		h.hit(s.life, "good", s.good.Raw, "")
		h.hit(s.life, "spent", s.empty.Raw, "USAGE_EXCEEDED")
	}
	for range 40 {
		if a := s.load(lifeConfig(dir)); a.status == http.StatusOK {
			t.Error("a broken configuration was taken")
		}
	}
	h.end(t)
	s.check()
}

// TestFinding2_drain: our Stop runs before the HTTP servers have drained, in random
// order. Requests that still run need the store.
func TestFinding2_drain(t *testing.T) {
	full(t)
	up := newBlocking(t)
	s := startLife(t, "{$SITE} {\n\tapikey {\n\t\trefund_on 500\n\t}\n\treverse_proxy "+up.addr()+"\n}\n")
	refunded, taken, load := s.create(`"remaining":9`), s.create(`"remaining":9`), s.create()
	answers := []<-chan lifeAnswer{s.background("/slow?status=500", refunded.Raw), s.background("/slow", taken.Raw)}
	for range answers {
		await(t, "a request arrives", up.arrived)
	}
	if got := s.show(refunded.ID); *got.Remaining != 8 {
		t.Errorf("%d credits while the request runs", *got.Remaining)
	}
	var h hammer
	for range 3 {
		h.hit(s, "load", load.Raw, "")
	}
	eventually(t, "load", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.answers["load "] > 50 })
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server takes no more connections", func() bool { _, err := s.try(lifeClient, "/", load.Raw); return err != nil })
	h.end(t)
	select {
	case <-s.done:
		t.Fatal("the server did not wait for the requests")
	default:
	}
	up.release()
	for i, status := range []int{500, 200} {
		if a := await(t, "the answer", answers[i]); a.status != status {
			t.Errorf("a request that drains: %v, want %d", a, status)
		}
	}
	await(t, "the end", s.done)
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	for _, suffix := range lifeSuffixes[1:3] {
		if _, err := os.Stat(s.db() + suffix); err == nil {
			t.Errorf("%s was left behind", suffix)
		}
	}
	s.start()
	if got := s.show(refunded.ID); *got.Remaining != 9 {
		t.Errorf("%d credits after the refund", *got.Remaining)
	}
	if got := s.show(taken.ID); *got.Remaining != 8 {
		t.Errorf("%d credits after the request", *got.Remaining)
	}
	s.noPanic()
}

// TestC9_secondServer: one database serves one process. A second one is refused at
// once, but a successor is given a moment.
func TestC9_secondServer(t *testing.T) {
	full(t)
	db := filepath.Join(t.TempDir(), "a.db")
	began := time.Now()
	s := startSpent(t, lifeConfig(db))
	usual := time.Since(began)
	before := s.open(db)
	second := newLife(t, lifeConfig(db))
	began = time.Now()
	second.failsToStart("is in use by another process", fmt.Sprintf("(pid %d)", s.cmd.Process.Pid), db)
	if took := time.Since(began); took > 5*time.Second+5*usual {
		t.Errorf("it took %v; a start that succeeds takes %v", took, usual)
	}
	s.check()
	s.checkFiles(db, before)
	for tries := 1; !handOver(t, s, second, db); tries++ {
		if tries == 5 {
			t.Fatal("the second did not start")
		}
	}
}

// handOver lets a second server start while the first is on its way out, held up by
// a request. It returns false if the first took so long to end that the second was
// right not to wait for it, and then leaves the first running.
func handOver(t *testing.T, s *spent, second life, db string) bool {
	t.Helper()
	const patience = 2 * time.Second // of a server whose database is in use
	up := newBlocking(t)
	site := lifeConfig(db, "apikey {", "\trefund_on 500", "}", "reverse_proxy "+up.addr())
	s.loads(site)
	second.write(site)
	k := s.create(`"remaining":9`)
	answer := s.background("/slow?status=500", k.Raw)
	await(t, "the request arrives", up.arrived)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	asked, started := time.Now(), strings.Count(second.Log(), "admin endpoint started")
	second.launch(second.file())
	eventually(t, "the second is about to open the database", func() bool { return strings.Count(second.Log(), "admin endpoint started") > started })
	up.release()
	await(t, "the first ends", s.done)
	if took := time.Since(asked); took > patience {
		eventually(t, "the second answers or ends", func() bool { return second.ended() || answers(lifeClient, second.URL) != 0 })
		if second.ended() {
			t.Logf("the first took %v to end", took)
			s.life.start()
			return false
		}
	}
	second.wait()
	if a := await(t, "the answer", answer); a.status != 500 {
		t.Errorf("the request in flight: %v", a)
	}
	next := &spent{second, s.good, s.limited, s.empty}
	next.check()
	if got := next.show(k.ID); *got.Remaining != 9 {
		t.Errorf("%d credits after the refund", *got.Remaining)
	}
	s.noPanic()
	next.noPanic()
	return true
}

// TestF1_kill: what the admin API has answered survives the end of the process.
func TestF1_kill(t *testing.T) {
	quick(t)
	s := startLife(t, "{$SITE} {\n\tapikey\n\trespond ok\n}\n")
	var keys []lifeKey
	for range 20 {
		keys = append(keys, s.create())
	}
	s.wants(keys[0].Raw, 200, "")
	s.wants(keys[1].Raw, 200, "")
	if a := s.admin(http.MethodPatch, "/apikey/keys/"+keys[0].ID, `{"enabled":false}`); a.status != 200 {
		t.Fatal(a)
	}
	if a := s.admin(http.MethodDelete, "/apikey/keys/"+keys[1].ID, ""); a.status != 204 {
		t.Fatal(a)
	}
	s.kill()
	s.start()
	s.wants(keys[0].Raw, 401, "KEY_DISABLED")
	s.wants(keys[1].Raw, 401, "INVALID_API_KEY")
	for _, k := range keys[2:] {
		s.wants(k.Raw, 200, "")
	}
	s.noPanic()
}
