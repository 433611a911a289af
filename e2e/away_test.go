package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// awayConfig is a configuration with a database, and options of the app.
func awayConfig(db string, options ...string) string {
	return strings.Replace(lifeConfig(db), "apikey {\n", "apikey {\n\t\t"+strings.Join(options, "\n\t\t")+"\n", 1)
}

// uses returns how often a key was used today.
func (l life) uses(k lifeKey) (n int64) {
	l.t.Helper()
	var u struct {
		Days []struct{ Allowed, Limited, Denied int64 }
	}
	a := l.admin(http.MethodGet, "/apikey/keys/"+k.ID+"/usage?days=1", "")
	decode(l.t, a.body, &u)
	for _, d := range u.Days {
		n += d.Allowed + d.Limited + d.Denied
	}
	return n
}

// parts returns what is degraded, as the metrics and the body of health say.
func (l life) parts() (metric, health []string) {
	l.t.Helper()
	all := l.scrape()
	for _, what := range []string{"identity", "credits", "limits", "statistics"} {
		n, ok := all[fmt.Sprintf("caddy_apikey_degraded{what=%q}", what)]
		if !ok {
			l.t.Errorf("no metric tells whether %s is degraded", what)
		}
		if n == 1 {
			metric = append(metric, what)
		}
	}
	var h struct{ Degraded []string }
	decode(l.t, l.admin(http.MethodGet, "/apikey/health", "").body, &h)
	return metric, h.Degraded
}

// away is one way in which a store is away.
type away struct {
	// leave takes the store away, and back brings it.
	leave func(t *testing.T, s life, db string) (back func())
	// parts are degraded by that.
	parts []string
	// cold: keys that are not in memory are found all the same.
	cold bool
}

var waysAway = map[string]away{
	"no space": {func(_ *testing.T, s life, db string) func() {
		return s.attach("-o", os.DevNull, "-P", db, "-P", db+"-wal", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC")
	}, []string{"credits", "statistics"}, true},
	"errors of the disk": {func(_ *testing.T, s life, db string) func() {
		// SQLite begins each transaction with a lock.
		return s.attach("-o", os.DevNull, "-P", db+"-shm", "-e", "trace=fcntl", "-e", "inject=fcntl:error=EIO")
	}, []string{"identity", "credits", "limits", "statistics"}, false},
	"no file": {func(t *testing.T, _ life, db string) func() {
		rename := func(from, to string) {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		rename(db, db+".away")
		return func() { rename(db+".away", db) }
	}, []string{"credits", "statistics"}, true},
}

// TestF5_away: while the store is away, identity and credits get a 503, never a 401, rate
// limits go on in memory, and what was counted is written afterwards. Metrics, health and one
// line of the log tell of each part, when that begins and when it ends.
func TestF5_away(t *testing.T) {
	full(t)
	for name, way := range waysAway {
		t.Run(name, func(t *testing.T) {
			db := filepath.Join(t.TempDir(), "a.db")
			s := startLife(t, awayConfig(db))
			const most = 20
			plain, credits := s.create(), s.create(`"remaining":1000`)
			limited := s.create(fmt.Sprintf(`"rateLimitMax":%d,"rateLimitTimeWindow":86400000`, most))
			tiered, cold := s.create(), s.create()
			sent := map[lifeKey]int64{}
			wants := func(k lifeKey, status int, code string) {
				t.Helper()
				sent[k]++
				a := s.get(k.Raw)
				if a.status != status || a.code() != code || status == 503 && a.header.Get("Retry-After") == "" {
					t.Errorf("answer %v with the header %v, want %d %s", a, a.header, status, code)
				}
			}
			for _, k := range []lifeKey{plain, credits, limited, tiered} {
				wants(k, 200, "")
			}
			if metric, health := s.parts(); metric != nil || len(health) > 0 {
				t.Fatalf("degraded: %v, %v", metric, health)
			}

			back := way.leave(t, s, db)
			for range 10 {
				wants(plain, 200, "")
				wants(credits, 503, "STORE_UNAVAILABLE")
				if way.cold {
					wants(cold, 200, "")
				} else {
					wants(cold, 503, "STORE_UNAVAILABLE")
				}
				s.wants(plain.Raw+"x", 401, "INVALID_API_KEY")
			}
			for range most - 1 {
				wants(limited, 200, "")
			}
			wants(limited, 429, "RATE_LIMITED")
			want := way.parts
			if !way.cold {
				// The limits of an owner are not in memory before a tier has any.
				s.loads(awayConfig(db, "tier free {", "limit 1000/month", "}", "default_tier free"))
				for range 10 {
					wants(tiered, 503, "STORE_UNAVAILABLE")
				}
				wants(limited, 503, "STORE_UNAVAILABLE")
				s.loads(awayConfig(db))
				wants(tiered, 200, "")
			}
			eventually(t, fmt.Sprintf("%v are degraded", want), func() bool {
				metric, health := s.parts()
				return fmt.Sprint(metric) == fmt.Sprint(want) && fmt.Sprint(health) == fmt.Sprint(want)
			})
			if a := s.admin(http.MethodGet, "/apikey/health", ""); a.status != 503 {
				t.Errorf("health: %v", a)
			}
			wants(limited, 429, "RATE_LIMITED")

			back()
			eventually(t, "nothing is degraded", func() bool {
				metric, health := s.parts()
				return metric == nil && health != nil && len(health) == 0
			})
			if a := s.admin(http.MethodGet, "/apikey/health", ""); a.status != 200 {
				t.Errorf("health: %v", a)
			}
			wants(limited, 429, "RATE_LIMITED")
			wants(cold, 200, "")
			wants(credits, 200, "")
			if left := s.show(credits.ID).Remaining; left == nil || *left != 998 {
				t.Errorf("%v credits are left of 1000 after 2 requests", left)
			}
			eventually(t, "everything is written", func() bool { return s.scrape()["caddy_apikey_backlog"] == 0 })
			unavailable := map[lifeKey]int64{} // which are of no key's usage
			unavailable[credits] = 10
			if !way.cold {
				unavailable[cold], unavailable[tiered], unavailable[limited] = 10, 10, 1
			}
			for k, n := range sent {
				if got := s.uses(k); got != n-unavailable[k] {
					t.Errorf("%d uses are counted, want %d", got, n-unavailable[k])
				}
			}
			s.scrape().is(t, "caddy_apikey_statistics_dropped_total", series{"": 0})

			log := s.Log()
			for _, line := range []string{"degraded while the store is away", "not degraded any more"} {
				for _, part := range []string{"identity", "credits", "limits", "statistics"} {
					n := 0
					for l := range strings.Lines(log) {
						if containsAll(l, line, fmt.Sprintf(`"what":%q`, part)) {
							n++
						}
					}
					if strings.Contains(fmt.Sprint(want), part) != (n == 1) || n > 1 {
						t.Errorf("%d lines say that %s is %s", n, part, line)
					}
				}
			}
			for line := range strings.Lines(log) {
				// The store tells once of each piece of its own work that has to wait, and the admin
				// API tells of each of its answers.
				if strings.Contains(line, `"level":"error"`) && !strings.Contains(line, " for now: ") && !strings.Contains(line, "admin.api") {
					t.Errorf("a line beside that: %s", line)
				}
			}
			s.noPanic()
		})
	}
}

// TestK11_droppedAtTheEnd: what cannot be written when a store is closed is missing in the
// usage afterwards, and exactly that was counted as dropped.
func TestK11_droppedAtTheEnd(t *testing.T) {
	full(t)
	dir := t.TempDir()
	db := filepath.Join(dir, "a.db")
	s := startLife(t, lifeConfig(db))
	keys := []lifeKey{s.create(), s.create(`"rateLimitMax":30,"rateLimitTimeWindow":86400000`)}
	use := func(n int) {
		for range n {
			for _, k := range keys {
				s.get(k.Raw)
			}
			s.wants("ak_unknown", 401, "INVALID_API_KEY")
		}
	}
	use(20)
	eventually(t, "everything is written", func() bool { return s.scrape()["caddy_apikey_backlog"] == 0 })
	if err := os.Rename(db, db+".away"); err != nil {
		t.Fatal(err)
	}
	use(20)
	s.loads(lifeConfig(filepath.Join(dir, "b.db"))) // closes the first one
	eventually(t, "the requests are counted as dropped", func() bool {
		return s.scrape()["caddy_apikey_statistics_dropped_total"] == 60
	})
	if err := os.Rename(db+".away", db); err != nil {
		t.Fatal(err)
	}
	s.loads(lifeConfig(db))
	for _, k := range keys {
		if n := s.uses(k); n != 20 {
			t.Errorf("%d uses of a key, want the 20 that were written", n)
		}
	}
	use(1)
	for _, k := range keys {
		if n := s.uses(k); n != 21 {
			t.Errorf("%d uses of a key, want one more", n)
		}
	}
	s.scrape().is(t, "caddy_apikey_statistics_dropped_total", series{"": 60})
	s.noPanic()
}
