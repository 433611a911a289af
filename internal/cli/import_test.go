package cli

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// peer is an admin endpoint that imports whatever comes, but for owners that have
// a status of their own.
type peer struct {
	*httptest.Server
	owners map[string]string
	got    []string // ids of keys and owners, in order
	fails  func(w http.ResponseWriter, n int) bool
	calls  atomic.Int64
}

func newPeer(t *testing.T) *peer {
	p := &peer{}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n := int(p.calls.Add(1)); p.fails != nil && p.fails(w, n) {
		return
	}
	var in struct {
		Owners []struct{ UserID string }
		Keys   []struct{ ID string }
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var out admin.Imported
	add := func(kind, id, status string) {
		p.got = append(p.got, id)
		switch out.Results = append(out.Results, admin.ImportResult{Kind: kind, ID: &id, Status: status}); status {
		case "conflict":
			out.Conflicts++
		case "invalid":
			out.Invalid++
		}
	}
	for _, o := range in.Owners {
		status, special := p.owners[o.UserID]
		if !special {
			status = "created"
		}
		add("owner", o.UserID, status)
	}
	for _, k := range in.Keys {
		add("key", k.ID, "created")
	}
	json.NewEncoder(w).Encode(out) //nolint:errcheck // the client will say so
}

// run runs a command against the peer.
func (p *peer) run(stdin string, args ...string) (stdout, stderr string, err error) {
	root := &cobra.Command{Use: "apikey"}
	Setup(root, Host{
		Connect:       func(string, string, string) (*admin.Client, error) { return &admin.Client{Base: p.URL}, nil },
		ParseDuration: time.ParseDuration,
		Now:           time.Now,
		WrongUsage:    func(*cobra.Command) error { return errors.New("wrong usage") },
	})
	var out, errOut bytes.Buffer
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errOut)
	err = root.Execute()
	return out.String(), errOut.String(), err
}

const header = `{"format":"caddy-apikey","version":1}` + "\n"

// TestOwnerStaysBehind: no key comes in whose owner did not, or not as it was.
func TestOwnerStaysBehind(t *testing.T) {
	const (
		owner = `{"owner":{"userId":"off","enabled":false}}` + "\n"
		one   = `{"id":"one","userId":"off"}` + "\n"
		end   = `{"end":{"owners":1,"keys":1}}`
	)
	for name, test := range map[string]struct {
		text, status, got string
	}{
		"all is well":       {owner + one, "created", "off one"},
		"is here":           {owner + one, "exists", "off one"},
		"is invalid":        {owner + one, "invalid", "off"},
		"is another here":   {owner + one, "conflict", "off"},
		"with more":         {`{"owner":{"userId":"off","enabled":false},"note":1}` + "\n" + one, "", ""},
		"in capitals":       {`{"Owner":{"userId":"off","enabled":false}}` + "\n" + one, "", ""},
		"cut off":           {`{"owner":{"userId":"off","ena` + "\n" + one, "", ""},
		"behind its keys":   {one + owner + one, "", ""},
		"behind other keys": {`{"id":"x","userId":"y"}` + "\n" + owner + one, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t)
			p.owners = map[string]string{"off": test.status}
			_, stderr, err := p.run(header+test.text+end, "import", "-")
			if got := strings.Join(p.got, " "); got != test.got {
				t.Errorf("sent %q, want %q", got, test.got)
			}
			if stops := !strings.HasSuffix(test.got, "one"); stops != (err != nil) || stops != strings.Contains(stderr, "nothing more was imported") {
				t.Errorf("%v: %s", err, stderr)
			}
		})
	}
}

// TestExportCutOff: what is left of an export is imported, and no success.
func TestExportCutOff(t *testing.T) {
	const whole = header + `{"owner":{"userId":"a"}}` + "\n" + `{"id":"one","userId":"a"}` + "\n" + `{"id":"two","userId":"a"}` + "\n"
	for name, test := range map[string]struct{ text, got, says string }{
		"whole":            {whole + `{"end":{"owners":1,"keys":2}}` + "\n\n", "a one two", ""},
		"empty":            {header + `{"end":{"owners":0,"keys":0}}`, "", ""},
		"without its end":  {whole, "a one two", "is cut off"},
		"in the last line": {whole + `{"end":{"own`, "a one two", "is cut off"},
		"after the header": {header, "", "is cut off"},
		"of another end":   {whole + `{"end":{"owners":1,"keys":3}}`, "a one two", "1 owners and 3 keys, but it contains 1 and 2"},
		"two of them":      {whole + `{"end":{"owners":1,"keys":2}}` + "\n" + header, "a", "line 6 comes after the end"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t)
			_, stderr, err := p.run(test.text, "import", "-")
			if got := strings.Join(p.got, " "); got != test.got {
				t.Errorf("sent %q, want %q", got, test.got)
			}
			if (err != nil) != (test.says != "") || !strings.Contains(stderr, test.says) {
				t.Errorf("%v: %s", err, stderr)
			}
		})
	}
}

// TestImportTooLong: a record that fits into no request is told of, and the rest comes in.
func TestImportTooLong(t *testing.T) {
	long := strings.Repeat("x", maxImport)
	for name, test := range map[string]struct{ line, got string }{
		"key":               {`{"id":"long","name":"` + long + `"}`, "a one two"},
		"key of two bodies": {`{"id":"long","name":"` + long + long + `"}`, "a one two"},
		"owner":             {`{"owner":{"userId":"` + long + `"}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t)
			before := `{"owner":{"userId":"a"}}` + "\n"
			after := `{"id":"one","userId":"a"}` + "\n" + `{"id":"two","userId":"a"}` + "\n" + `{"end":{"owners":1,"keys":3}}`
			stdout, stderr, err := p.run(header+before+test.line+"\n"+after, "import", "-", "--json")
			if got := strings.Join(p.got, " "); got != test.got || err == nil {
				t.Fatalf("sent %q, want %q; %v: %s", got, test.got, err, stderr)
			}
			var report struct{ Results []outcome }
			if err := json.Unmarshal([]byte(stdout), &report); err != nil {
				t.Fatal(err)
			}
			refused := 0
			for _, r := range report.Results {
				if r.Status == "invalid" && r.Line == 3 && r.Error != "" {
					refused++
				}
			}
			if refused != 1 || len(stdout) > 1000 {
				t.Errorf("line 3 is not told of once: %.1000s", stdout)
			}
			if test.got != "" && !strings.Contains(stdout, "longer than") {
				t.Errorf("report: %s", stdout)
			}
		})
	}
}

// TestImportTooLongRow: the same for a row of another database.
func TestImportTooLongRow(t *testing.T) {
	p := newPeer(t)
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.Exec(`CREATE TABLE apikey (id TEXT, referenceId TEXT, key TEXT, name TEXT);
		INSERT INTO apikey SELECT 'k' || value, 'u', substr('abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz', value, 43), iif(value = 2, printf('%.*c', ?, 'x'), '')
		FROM json_each('[1,2,3]')`, maxImport)
	if err != nil {
		t.Fatal(err)
	}
	stdout, _, err := p.run("", "import", "better-auth", path)
	if got := strings.Join(p.got, " "); got != "k1 k3" || err == nil || !strings.Contains(stdout, "k2") {
		t.Errorf("sent %q, %v: %s", got, err, stdout)
	}
}

// TestImportRetries: a server that is gone for a moment, as in a reload, does not
// end an import; one that stays away does, and what to do is said.
func TestImportRetries(t *testing.T) {
	const (
		text  = header + `{"owner":{"userId":"a"}}` + "\n" + `{"id":"one","userId":"a"}` + "\n" + `{"end":{"owners":1,"keys":1}}`
		again = "Run it again: existing records are left alone."
	)
	breakOff := func(w http.ResponseWriter) {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			c.Close()
		}
	}
	cutAnswer := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "{") //nolint:errcheck // the client will say so
	}
	refuse := func(status int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { http.Error(w, `{"message":"no"}`, status) }
	}
	for name, test := range map[string]struct {
		answer      func(http.ResponseWriter)
		first, last int // calls that fail
		calls       int
		says        string
	}{
		"breaks off":         {breakOff, 2, 2, 3, ""},
		"breaks off first":   {breakOff, 1, 1, 3, ""},
		"in the answer":      {cutAnswer, 2, 2, 3, ""},
		"is unavailable":     {refuse(503), 2, 3, 4, ""},
		"stays unavailable":  {refuse(503), 2, 99, 2 + maxRetries, again},
		"is no longer there": {breakOff, 2, 99, 2 + maxRetries, again},
		"refuses":            {refuse(400), 2, 2, 2, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t)
			p.fails = func(w http.ResponseWriter, n int) bool {
				fails := n >= test.first && n <= test.last
				if fails {
					test.answer(w)
				}
				return fails
			}
			stdout, stderr, err := p.run(text, "import", "-")
			calls := int(p.calls.Load())
			if calls != test.calls || (err != nil) != (test.says != "") || !strings.Contains(stderr, test.says) {
				t.Errorf("%d calls, want %d; %v: %s", calls, test.calls, err, stderr)
			}
			if test.says != again && strings.Contains(stderr, again) {
				t.Errorf("says to run it again: %s", stderr)
			}
			if !strings.Contains(stdout, "created   ") {
				t.Errorf("no report: %s", stdout)
			}
		})
	}
}

// TestImportHelp: what an import cannot see is said where it is started.
func TestImportHelp(t *testing.T) {
	for _, args := range [][]string{{"import", "--help"}, {"import", "better-auth", "--help"}} {
		help, _, err := new(peer).run("", args...)
		help = strings.Join(strings.Fields(help), " ")
		for _, want := range []string{"revoke, do not delete, while you still import", "duplicates in the file may go unnoticed"} {
			if err != nil || !strings.Contains(help, want) {
				t.Errorf("%v says not %q (%v): %s", args, want, err, help)
			}
		}
	}
}
