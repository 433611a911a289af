package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// adminOf returns a client of a server's admin API, once its configuration runs:
// Caddy answers for /config/ only then.
func adminOf(t *testing.T, s *server) *admin.Client {
	t.Helper()
	if resp, body := adminGet(t, s, "GET", "/config/"); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	return &admin.Client{HTTP: s.adminClient(), Base: s.Admin}
}

// adminGet sends a request as it is, without following redirects.
func adminGet(t *testing.T, s *server, method, path string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, s.Admin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func siteStatus(t *testing.T, s *server, raw string) int {
	t.Helper()
	req, err := http.NewRequest("GET", s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", raw)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

const gatedSite = "{$SITE} {\n\tapikey\n\trespond ok\n}\n"

// TestAdminAPI makes a key, uses it, and takes it away, over a failed and a good
// reload: the admin API must follow the configuration that is in use.
func TestAdminAPI(t *testing.T) {
	quick(t)
	s := startCaddy(t, gatedSite)
	api := adminOf(t, s)
	made, err := api.CreateKey(context.Background(), admin.CreateKey{UserID: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if status := siteStatus(t, s, made.Value.Raw); status != 200 {
		t.Errorf("the new key gets %d", status)
	}

	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	bad := gatedSite + fmt.Sprintf("http://:%d {\n\tapikey\n}\n", taken.Addr().(*net.TCPAddr).Port)
	if err := os.WriteFile(s.file(), []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.run("reload", "--force", "--config", s.file()); r.code == 0 || !strings.Contains(r.stderr, "address already in use") {
		t.Fatalf("reload: exit status %d\n%s", r.code, r.stderr)
	}
	if got, err := api.Key(context.Background(), made.Value.ID); err != nil || got.Value.LastRequest == nil {
		t.Errorf("after a failed reload: %+v, %v", got.Value, err)
	}

	s.reload(gatedSite)
	if err := api.DeleteKey(context.Background(), made.Value.ID); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	if status := siteStatus(t, s, made.Value.Raw); status != 401 {
		t.Errorf("the deleted key gets %d", status)
	}
	if strings.Contains(s.Log(), made.Value.Raw) {
		t.Error("the raw key is in the log")
	}
}

// TestAdminAPIWithoutApp: a configuration that does not use apikey gets no store.
func TestAdminAPIWithoutApp(t *testing.T) {
	full(t)
	s := startCaddy(t, "{$SITE} {\n\trespond ok\n}\n")
	_, err := adminOf(t, s).ListKeys(context.Background(), admin.ListKeys{})
	var e *admin.APIError
	if !errors.As(err, &e) || e.Status != 503 || e.Code != "STORE_UNAVAILABLE" {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(s.Dir + "/caddy/apikey"); !os.IsNotExist(err) {
		t.Errorf("a store was made: %v", err)
	}
	for deadline := time.Now().Add(startTimeout); !strings.Contains(s.Log(), `"logger":"admin.api.apikey"`); {
		if time.Now().After(deadline) {
			t.Fatal("the failure is not in the log")
		}
		time.Sleep(pollEvery)
	}
	s.reload(gatedSite)
	if _, err := adminOf(t, s).Health(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestAdminPaths: Caddy's own mux stands before ours.
func TestAdminPaths(t *testing.T) {
	full(t)
	s := startCaddy(t, gatedSite)
	api := adminOf(t, s)
	for _, name := range []string{"a/b", "a//b", "//", "a/../b", "../..", "a%2Fb", "a b", "日本/🔑"} {
		if o, err := api.PutOwner(context.Background(), name, admin.PutOwner{}); err != nil || o.Value.UserID != name {
			t.Errorf("%q: got %q, %v", name, o.Value.UserID, err)
		}
	}
	for _, test := range []struct {
		method, path string
		status       int
		contains     string
	}{
		{"GET", "/apikey/owners/a%2F%2Fb", 200, `"userId":"a//b"`},
		{"GET", "/apikey/owners/a%2f%2e%2e%2fb", 200, `"userId":"a/../b"`},
		{"GET", "/apikey/owners/%2E%2E", 400, `"field":"userId"`},
		{"GET", "/apikey/owners/a/b", 404, `"code":"NOT_FOUND"`},
		{"GET", "/apikey/nosuch", 404, `"code":"NOT_FOUND"`},
		{"GET", "/apikey/", 404, `"code":"NOT_FOUND"`},
		{"PUT", "/apikey/keys", 405, `"code":"METHOD_NOT_ALLOWED"`},
		{"HEAD", "/apikey/keys", 200, ""},
		// Slashes and dots that are not escaped are Caddy's to clean.
		{"GET", "/apikey/owners/a//b", 307, ""},
		{"GET", "/apikey/owners/..", 307, ""},
	} {
		resp, body := adminGet(t, s, test.method, test.path)
		if resp.StatusCode != test.status || !strings.Contains(body, test.contains) {
			t.Errorf("%s %s: %d %s", test.method, test.path, resp.StatusCode, body)
		}
	}
}
