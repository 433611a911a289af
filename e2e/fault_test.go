package e2e

import (
	"bytes"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// This file tests what bad disks and bad files do to a real server.

// faultSeed chooses the places where TestF5_flippedBytes breaks a database;
// APIKEY_FAULT_SEED sets another one.
func faultSeed(t *testing.T) uint64 {
	text := os.Getenv("APIKEY_FAULT_SEED")
	if text == "" {
		return 1
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// makeDB makes a database with keys in a server that has ended. The last key is
// disabled.
func makeDB(t *testing.T) (s life, db string, keys []lifeKey) {
	t.Helper()
	db = filepath.Join(t.TempDir(), "a.db")
	s = startLife(t, lifeConfig(db))
	for i := range 40 {
		keys = append(keys, s.create(fmt.Sprintf(`"name":"key %d","metadata":{"plan":"pro"},"enabled":%v`, i, i < 39)))
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	return s, db, keys
}

func copyFile(t *testing.T, from, to string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		b = change(b)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestF4_readOnly starts servers whose files cannot be written. Tests may run as
// root, whom modes do not stop: the files are on a read-only mount of their own.
func TestF4_readOnly(t *testing.T) {
	full(t)
	unshare := tool(t, "unshare")
	if out, err := exec.Command(unshare, "-Urm", "true").CombinedOutput(); err != nil {
		lacking(t, fmt.Errorf("unshare: %w: %s", err, out))
	}
	_, db, _ := makeDB(t)
	dir := filepath.Dir(db)
	readOnly := func(path string) []string {
		return []string{unshare, "-Urm", "sh", "-c", `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"`, path}
	}
	empty := t.TempDir()
	for _, test := range []struct {
		name, db, readOnly string
		why                []string
	}{
		{"first start in a read-only folder", filepath.Join(empty, "new.db"), empty, []string{filepath.Join(empty, "new.db"), "read-only"}},
		{"folder to be made in a read-only folder", filepath.Join(empty, "new", "new.db"), empty, []string{filepath.Join(empty, "new"), "read-only"}},
		{"database in a read-only folder", db, dir, []string{db, "read-only"}},
		{"read-only database", db, db, []string{db, "cannot be written"}},
		{"read-only lock", db, db + ".lock", []string{db, "read-only"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newLife(t, lifeConfig(test.db))
			r := s.runToEnd(startTimeout, readOnly(test.readOnly)...)
			if r.code != 1 {
				t.Errorf("exit status %d", r.code)
			}
			s.errorLine(r.stderr, test.why...)
		})
	}
	// Nothing was broken by it.
	startLife(t, lifeConfig(db))
}

// TestF5_start starts servers on what is no database of ours, or not all of it.
func TestF5_start(t *testing.T) {
	full(t)
	_, db, keys := makeDB(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name, "a.db") }
	put := func(name string, change func([]byte) []byte, suffixes ...string) string {
		if err := os.MkdirAll(filepath.Dir(path(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, suffix := range append(suffixes, "") {
			copyFile(t, db+suffix, path(name)+suffix, change)
			change = nil
		}
		return path(name)
	}
	half := func(b []byte) []byte { return b[:len(b)/2] }
	first := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	garbage := func(b []byte) []byte { return bytes.Repeat([]byte("garbage "), len(b)/8) }

	foreign := path("foreign")
	if err := os.MkdirAll(filepath.Dir(foreign), 0o700); err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open("sqlite", foreign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec("CREATE TABLE keys (id TEXT); INSERT INTO keys VALUES ('precious')"); err != nil {
		t.Fatal(err)
	}
	other.Close()
	directory := path("directory")
	if err := os.MkdirAll(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	gone := put("gone", nil, ".lock")
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, db, why string }{
		{"zero length", put("zero", first(0)), "it is empty"},
		{"directory", directory, "it is a directory"},
		{"garbage", put("garbage", garbage), "not an SQLite database"},
		{"foreign database", foreign, "database of another program"},
		{"one byte", put("byte", first(1)), ""},
		{"header only", put("header", first(100)), ""},
		{"half a database", put("half", half), ""},
		{"lock without database", gone, "is missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, _ := os.ReadFile(test.db)
			newLife(t, lifeConfig(test.db)).failsToStart(test.db, test.why)
			if after, _ := os.ReadFile(test.db); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
	if _, err := os.Stat(gone); err == nil {
		t.Error("a new database stands where one is missing")
	}

	// The lock may be lost, and comes again.
	s := &spent{life: startLife(t, lifeConfig(put("nolock", nil)))}
	s.wants(keys[0].Raw, 200, "")
	s.wants(keys[39].Raw, 401, "KEY_DISABLED")

	// After a crash the log holds what the database does not. Without it, or
	// with garbage in it, the database is what it was.
	s.spend()
	late := s.create()
	s.kill()
	lost := path("nolock")
	if err := os.Remove(lost + "-wal"); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.wants(keys[0].Raw, 200, "")
	s.wants(keys[39].Raw, 401, "KEY_DISABLED")
	s.wants(late.Raw, 401, "INVALID_API_KEY")
	late = s.create()
	s.kill()
	copyFile(t, lost+"-wal", lost+"-wal", garbage)
	s.start()
	s.wants(keys[0].Raw, 200, "")
	s.wants(keys[39].Raw, 401, "KEY_DISABLED")
	s.wants(late.Raw, 401, "INVALID_API_KEY")
	s.noPanic()
}

// TestF5_flippedBytes loads databases with one broken byte each, one after the
// other, into one server.
func TestF5_flippedBytes(t *testing.T) {
	full(t)
	_, db, keys := makeDB(t)
	size, seed := int(mustStat(t, db).Size()), faultSeed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	good := filepath.Join(dir, "good.db")
	s := startLife(t, lifeConfig(good))
	k := s.create()
	unknown := []string{k.Raw, k.Raw[:len(k.Raw)-1], "ak_" + strings.Repeat("0", 64)} // of the wrong database, malformed
	refused, unreadable := 0, 0
	for i := range 60 {
		at := random.IntN(size)
		if i < 15 { // the header and the schema are small, and worth more than chance gives them
			at = random.IntN(4096)
		}
		bad := filepath.Join(dir, fmt.Sprintf("bad%d.db", i))
		copyFile(t, db, bad, func(b []byte) []byte { b[at] ^= byte(1 + random.IntN(255)); return b })
		if a := s.load(lifeConfig(bad)); a.status != http.StatusOK {
			refused++
			if a.status != 400 || !strings.Contains(a.body, bad) {
				t.Errorf("byte %d: %v", at, a)
			}
			s.wants(k.Raw, 200, "")
			continue
		}
		for _, raw := range unknown {
			if a := s.get(raw); a.status != 401 && a.status != 503 {
				t.Errorf("byte %d: an unknown key: %v", at, a)
			}
		}
		for _, k := range keys {
			if a := s.get(k.Raw); a.status == 503 {
				unreadable++
			} else if a.status != 200 && a.status != 401 && a.status != 403 {
				t.Errorf("byte %d: a known key: %v", at, a)
			}
		}
		if a := s.admin(http.MethodGet, "/apikey/keys", ""); a.status != 200 && a.status != 503 && a.status != 500 {
			t.Errorf("byte %d: list: %v", at, a)
		}
		s.loads(lifeConfig(good))
		s.wants(k.Raw, 200, "")
	}
	t.Logf("seed %d: %d of 60 databases refused, %d keys unreadable in the others", seed, refused, unreadable)
	s.noPanic()
}

// TestF5_vanished takes the database away from under a server.
func TestF5_vanished(t *testing.T) {
	full(t)
	db := filepath.Join(t.TempDir(), "a.db")
	s := startLife(t, lifeConfig(db))
	plain, counted := s.create(), s.create(`"remaining":5`)
	s.wants(plain.Raw, 200, "")
	s.wants(counted.Raw, 200, "")
	degraded := func(why string) {
		t.Helper()
		if a := s.admin(http.MethodPost, "/apikey/keys", `{"userId":"alice"}`); a.status != 503 || a.code() != "STORE_UNAVAILABLE" {
			t.Errorf("%s: create: %v", why, a)
		}
		if a := s.admin(http.MethodPatch, "/apikey/keys/"+plain.ID, `{"enabled":false}`); a.status != 503 {
			t.Errorf("%s: update: %v", why, a)
		}
		if a := s.admin(http.MethodGet, "/apikey/health", ""); a.status != 503 {
			t.Errorf("%s: health: %v", why, a)
		}
		s.wants(plain.Raw, 200, "")
		s.wants(counted.Raw, 503, "STORE_UNAVAILABLE")
		s.wants(plain.Raw+"x", 401, "INVALID_API_KEY")
	}
	away := db + ".away"
	if err := os.Rename(db, away); err != nil {
		t.Fatal(err)
	}
	degraded("vanished")
	s.loads(strings.Replace(lifeConfig(db), "store", "length 80\n\t\tstore", 1))
	degraded("reloaded after that")
	if _, err := os.Stat(db); err == nil {
		t.Error("a new database stands where one has vanished")
	}
	copyFile(t, away, db, nil)
	degraded("replaced")
	if err := os.Remove(db); err != nil {
		t.Fatal(err)
	}
	s.stop(syscall.SIGTERM)
	if _, err := os.Stat(db); err == nil {
		t.Error("a new database stands where one has vanished")
	}
	s.failsToStart(db, "is missing")
	if err := os.Rename(away, db); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.wants(plain.Raw, 200, "")
	s.wants(counted.Raw, 200, "")
	s.noPanic()
}

// TestC10_locks: on Unix, whoever closes any descriptor of a file drops all locks
// that the process has on it, and then a second process that reads the database
// takes its log away. So nothing but SQLite may open these files (bar E10).
func TestC10_locks(t *testing.T) {
	full(t)
	strace := tool(t, "strace")
	shell := tool(t, "sqlite3")
	dir := t.TempDir()
	db := filepath.Join(dir, "a.db")
	s := startSpent(t, lifeConfig(db))

	trace := filepath.Join(dir, "trace")
	tracer := exec.Command(strace, "-f", "-qq", "-e", "trace=open,openat,openat2,creat", "-o", trace, "-p", strconv.Itoa(s.cmd.Process.Pid))
	var said bytes.Buffer
	tracer.Stderr = &said
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	defer tracer.Process.Kill() //nolint:errcheck // it ends with the server
	eventually(t, "strace looks on: "+said.String(), func() bool {
		s.admin(http.MethodGet, "/config/", "")
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
		return regexp.MustCompile(`TracerPid:\s+[1-9]`).Match(status)
	})

	made := s.create()
	for _, call := range [][3]string{
		{"GET", "/apikey/health", ""},
		{"GET", "/apikey/keys", ""},
		{"GET", "/apikey/keys?q=a&limit=1", ""},
		{"GET", "/apikey/owners", ""},
		{"GET", "/apikey/owners/alice", ""},
		{"PUT", "/apikey/owners/alice", `{"enabled":true}`},
		{"POST", "/apikey/keys/delete-expired", ""},
		{"PATCH", "/apikey/keys/" + made.ID, `{"name":"x"}`},
		{"POST", "/apikey/verify", `{"key":"` + made.Raw + `"}`},
		{"GET", "/metrics", ""},
		{"GET", "/config/", ""},
		{"GET", "/apikey/openapi.json", ""},
		{"GET", "/apikey/backup", ""},
		{"GET", "/apikey/audit", ""},
		{"GET", "/apikey/report", ""},
		{"GET", "/apikey/keys/export", ""},
		{"GET", "/apikey/keys/" + made.ID + "/usage", ""},
	} {
		if a := s.admin(call[0], call[1], call[2]); a.status >= 300 {
			t.Errorf("%v: %v", call, a)
		}
	}
	if r := s.run("validate", "--config", s.file(), "--adapter", "caddyfile"); r.code != 0 {
		t.Error(r.stderr)
	}
	newLife(t, lifeConfig(db)).failsToStart("in use")
	s.reload(s.caddyfile)
	if a := s.load(lifeConfig(db) + "http://" + portInUse(t) + " {\n}\n"); a.status == 200 {
		t.Error("a broken configuration was taken")
	}
	s.run("apikey", "list")
	s.check()
	s.loads(lifeConfig(filepath.Join(dir, "b.db"))) // closes the database, and
	s.loads(lifeConfig(db))                         // opens it before the eyes of strace
	s.check()
	locked := func() {
		t.Helper()
		// What SQLite locks in WAL mode: the shared bytes of the database, and
		// the byte in the shared memory that says that somebody is there.
		for _, l := range []struct {
			path       string
			start, len int64
		}{{db, 0x40000002, 510}, {db + "-shm", 128, 1}} {
			f, err := os.OpenFile(l.path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			lock := syscall.Flock_t{Type: syscall.F_WRLCK, Start: l.start, Len: l.len}
			err = errors.Join(syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock), f.Close())
			if err != nil || lock.Type == syscall.F_UNLCK || int(lock.Pid) != s.cmd.Process.Pid {
				t.Errorf("%s is not locked by the server: %+v, %v", l.path, lock, err)
			}
		}
	}
	locked()
	acknowledged := 4
	for range times(3, 100) {
		out, err := exec.Command(shell, db, "SELECT count(*) FROM keys").CombinedOutput() //nolint:gosec // a test's own path
		if err != nil || strings.TrimSpace(string(out)) != strconv.Itoa(acknowledged) {
			t.Errorf("another process sees %s keys of %d (%v)", bytes.TrimSpace(out), acknowledged, err)
		}
		if _, err := os.Stat(db + "-wal"); err != nil {
			t.Fatal("the log was taken away: ", err)
		}
		locked()
		s.create()
		acknowledged++
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	tracer.Wait() //nolint:errcheck // what it wrote counts
	checkOpens(t, trace, db)
}

// checkOpens checks that only SQLite has opened a database and the files beside it.
func checkOpens(t *testing.T, trace, db string) {
	t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	opens, lock := 0, 0
	for line := range strings.Lines(string(text)) {
		for i, suffix := range lifeSuffixes {
			if !strings.Contains(line, `"`+db+suffix+`"`) {
				continue
			}
			// SQLite follows no links; the os package does.
			if i < 3 && !strings.Contains(line, "O_NOFOLLOW") {
				t.Errorf("not opened by SQLite: %s", line)
			}
			if i == 3 {
				lock++
			} else {
				opens++
			}
		}
	}
	if opens < 3 || lock == 0 {
		t.Error("strace did not see SQLite open the database, its log and its shared memory, or us the lock")
	}
	t.Logf("SQLite opened its files %d times, we opened the lock file %d times", opens, lock)
}

// TestA2_listeners: what the example configuration opens to the world.
func TestA2_listeners(t *testing.T) {
	quick(t)
	s := startLife(t, exampleCaddyfile(t))
	want := map[string]bool{strings.TrimPrefix(s.URL, "http://"): true, s.adminAddr: true}
	got := s.listeners()
	for _, addr := range got {
		if a, err := netip.ParseAddrPort(addr); err != nil || !a.Addr().IsLoopback() || !want[addr] {
			t.Errorf("listens on %s (%v)", addr, err)
		}
	}
	if len(got) != 2 {
		t.Errorf("listens on %v, want %v", got, want)
	}
	for _, key := range []string{"admin", "password", "changeme", "ak_test", "ak_"} { // no credential shipped
		s.wants(key, 401, "INVALID_API_KEY")
	}
	if a := s.admin(http.MethodGet, "/apikey/keys", ""); !strings.Contains(a.body, `"total":0`) {
		t.Errorf("a new server has keys: %v", a)
	}
	// The admin endpoint's own rules hold for our routes.
	if a := s.admin(http.MethodGet, "/apikey/keys", "", "Origin", "http://evil.example"); a.status != 403 {
		t.Errorf("foreign origin: %v", a)
	}
	req, _ := http.NewRequest(http.MethodGet, s.Admin+"/apikey/keys", nil)
	req.Host = "evil.example"
	if a, err := lifeDo(lifeClient, req); err != nil || a.status != 403 {
		t.Errorf("foreign host: %v, %v", a, err)
	}
}

// exampleCaddyfile is example.Caddyfile with the address of the test's site.
func exampleCaddyfile(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(source(t, "example.Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	const site = "http://localhost:8080"
	if !bytes.Contains(b, []byte(site)) {
		t.Fatalf("example.Caddyfile has no %s", site)
	}
	return strings.Replace(string(b), site, "{$SITE}", 1)
}

// listeners lists the addresses where the server accepts connections or receives
// datagrams.
func (l life) listeners() (addrs []string) {
	l.t.Helper()
	sockets := map[string]bool{}
	for _, name := range l.descriptors() {
		if inode, ok := strings.CutPrefix(name, "socket:["); ok {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", l.cmd.Process.Pid, table))
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6 here
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 10 || !sockets[f[9]] || f[3] != "0A" && f[3] != "07" { // listening; any UDP
				continue
			}
			addrs = append(addrs, procAddr(l.t, f[1]))
		}
	}
	return addrs
}

// procAddr reads an address as /proc/net writes it: 32-bit words in the byte
// order of the machine (little, where these tests run).
func procAddr(t testing.TB, s string) string {
	t.Helper()
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	for i := 0; i+4 <= len(b); i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)).String()
}

// TestF8_unsetPlaceholder: a path that cannot be told is refused, and no database
// is made elsewhere.
func TestF8_unsetPlaceholder(t *testing.T) {
	full(t)
	s := newLife(t, lifeConfig("{env.APIKEY_TEST_NOT_SET}/a.db"))
	began := time.Now()
	r := s.runToEnd(startTimeout)
	if r.code != 1 || !strings.Contains(r.stderr, "APIKEY_TEST_NOT_SET") {
		t.Errorf("exit status %d after %v\n%s", r.code, time.Since(began), r.stderr)
	}
	if _, err := os.Stat(filepath.Dir(s.db())); err == nil {
		t.Error("the default database was made")
	}
}

// TestF8_references takes away what a configuration refers to, one after the other: a file that
// it imports, files of keys, a variable of the environment, a file with the path of the
// database. Each time the configuration is refused, by a start and by a reload, and a server
// goes on with the one that it has.
func TestF8_references(t *testing.T) {
	full(t)
	dir := t.TempDir()
	name := func(file string) string { return filepath.Join(dir, file) }
	put := func(file, text string) {
		if err := os.WriteFile(name(file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("path.txt", name("other.db"))
	certificate := newCertificate(t, "localhost", nil)
	private, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}))
	put("cert.pem", public)
	put("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	put("ca.pem", public)
	const variable = "APIKEY_TEST_DATABASE"
	db := name("a.db")
	config := func(store string) string {
		return fmt.Sprintf(`{
	apikey {
		store sqlite %s
	}
}
{$SITE} {
	apikey
	respond ok
}
https://localhost:%s {
	tls %s %s {
		client_auth {
			mode require_and_verify
			trust_pool file %s
		}
	}
	import %s
	respond ok
}
`, store, port(t, freeAddr(t)), name("cert.pem"), name("key.pem"), name("ca.pem"), name("gate.caddyfile"))
	}
	put("gate.caddyfile", "apikey\n")
	variables := config("{env." + variable + "}")
	s := startLife(t, variables, withEnv(variable+"="+db))
	k := s.create()
	s.wants(k.Raw, 200, "")
	before := s.admin(http.MethodGet, "/config/", "").body
	refused := func(t *testing.T, config, what string, env ...string) {
		t.Helper()
		if a := s.load(config); a.status != http.StatusBadRequest || !strings.Contains(a.body, what) {
			t.Errorf("a reload: %v, want an error about %s", a, what)
		}
		if now := s.admin(http.MethodGet, "/config/", "").body; now != before {
			t.Errorf("the configuration has changed to %s", now)
		}
		s.wants(k.Raw, 200, "")
		s.wants(k.Raw+"x", 401, "INVALID_API_KEY")
		fresh := newLife(t, config)
		fresh.env = env
		r := fresh.runToEnd(startTimeout)
		if r.code != 1 || !strings.Contains(r.stderr, what) {
			t.Errorf("a start: exit status %d, want an error about %s\n%s", r.code, what, r.stderr)
		}
	}
	for _, file := range []string{"gate.caddyfile", "cert.pem", "key.pem", "ca.pem"} {
		t.Run(file, func(t *testing.T) {
			if err := os.Rename(name(file), name("away")); err != nil {
				t.Fatal(err)
			}
			refused(t, variables, file, variable+"="+name("fresh.db"))
			if err := os.Rename(name("away"), name(file)); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("variable", func(t *testing.T) {
		refused(t, config("{env.APIKEY_TEST_NOT_SET}"), "APIKEY_TEST_NOT_SET")
	})
	t.Run("secret", func(t *testing.T) {
		const secret = "webhook http://127.0.0.1:9/ {\n\t\t\tsecret {env.APIKEY_TEST_NO_SECRET}\n\t\t}\n\t\t"
		refused(t, strings.Replace(variables, "store sqlite", secret+"store sqlite", 1), "APIKEY_TEST_NO_SECRET", variable+"="+name("fresh.db"))
	})
	t.Run("file with the path", func(t *testing.T) {
		if err := os.Remove(name("path.txt")); err != nil {
			t.Fatal(err)
		}
		refused(t, config("{file."+name("path.txt")+"}"), "path.txt")
	})
	for _, none := range []string{"other.db", "fresh.db"} {
		if _, err := os.Stat(name(none)); err == nil {
			t.Errorf("%s was made", none)
		}
	}
	s.loads(variables)
	s.wants(k.Raw, 200, "")
}
