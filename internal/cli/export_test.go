//go:build unix

package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

const exported = header + `{"end":{"owners":0,"keys":0}}` + "\n"

// exporter is a peer that answers exports with f.
func exporter(t *testing.T, f http.HandlerFunc) *peer {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /apikey/keys/export", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", api.StreamType)
		f(w, r)
	})
	p := &peer{Server: httptest.NewServer(mux)}
	t.Cleanup(p.Close)
	return p
}

// TestExportTarget: links lead to their file, and what is no file stays what it is.
func TestExportTarget(t *testing.T) {
	p := exporter(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, exported) })
	t.Chdir(t.TempDir())
	for _, err := range []error{
		os.Mkdir("dir", 0o700), os.WriteFile("dir/old", []byte("old"), 0o644), os.Symlink("dir/old", "link"), os.Symlink("nowhere", "loose"),
		syscall.Mkfifo("pipe", 0o600), os.Symlink("pipe", "link to pipe"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct{ path, file string }{
		"new":             {"new", "new"},
		"a file":          {"new", "new"},
		"a link":          {"link", "dir/old"},
		"a loose link":    {"loose", ""},
		"a pipe":          {"pipe", ""},
		"a link to one":   {"link to pipe", ""},
		"a folder":        {"dir", ""},
		"standard output": {"-", "-"},
	} {
		before := modes(t)
		stdout, stderr, err := p.run("", "export", "--output", test.path)
		switch {
		case (err == nil) != (test.file != ""):
			t.Errorf("%s: %v", name, err)
		case test.file == "-" && stdout != exported:
			t.Errorf("%s: %q", name, stdout)
		case test.file == "" && !strings.Contains(stderr, "Error: "):
			t.Errorf("%s: %q", name, stderr)
		case test.file != "" && test.file != "-":
			text, err := os.ReadFile(test.file)
			info, err2 := os.Stat(test.file)
			if err != nil || err2 != nil || string(text) != exported || info.Mode() != 0o600 {
				t.Errorf("%s: %q, %v, %v", name, text, err, err2)
			}
		}
		after := modes(t)
		delete(before, "new")
		delete(after, "new")
		if fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: %v became %v", name, before, after)
		}
	}
}

// modes are the types of the files in the folder.
func modes(t *testing.T) map[string]os.FileMode {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]os.FileMode{}
	for _, e := range entries {
		all[e.Name()] = e.Type()
	}
	return all
}

// TestExportInterrupted: no file with hashes is left behind.
func TestExportInterrupted(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		dir := t.TempDir()
		p := exporter(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, header)
			w.(http.Flusher).Flush()
			if left, _ := filepath.Glob(dir + "/keys*"); len(left) != 1 {
				t.Errorf("files on the way: %v", left)
			}
			if err := syscall.Kill(os.Getpid(), sig); err != nil {
				t.Error(err)
			}
			<-r.Context().Done() // the command has let go
		})
		_, stderr, err := p.run("", "export", "--output", dir+"/keys")
		if err == nil || !strings.Contains(stderr, "interrupted") {
			t.Errorf("%v: %v, %q", sig, err, stderr)
		}
		if left, err := filepath.Glob(dir + "/*"); err != nil || len(left) > 0 {
			t.Errorf("%v leaves %v (%v)", sig, left, err)
		}
	}
}
