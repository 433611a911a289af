package apikey

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// FuzzWithoutParameter checks that a removed parameter is gone, also for a reader
// who decodes, and that the text of all others is as it was.
func FuzzWithoutParameter(f *testing.F) {
	for _, query := range []string{
		"", "key=1", "a=1&key=2&b=3", "key", "key=", "&&key=1&&", "%6bey=1", "k%65y=1&key=2", "a=%zz&key=1", "+key=1", "key=1;b=2", "a;key=1",
		"key[]=1", "KEY=1", "=key", "key==", "a=key&key=a", "%", "%k=1&key=%",
	} {
		f.Add(query, "key")
	}
	f.Add("a+b=1&a%20b=2", "a b")
	f.Fuzz(func(t *testing.T, query, name string) {
		got, removed := withoutParameter(query, name)
		var kept []string
		was := false
		for part := range strings.SplitSeq(query, "&") {
			n, _, _ := strings.Cut(part, "=")
			if unescape(n) != name || query == "" {
				kept = append(kept, part)
			} else {
				was = true
			}
		}
		if removed != was {
			t.Fatalf("%q without %q: removed %v, want %v", query, name, removed, was)
		}
		if !removed {
			return
		}
		// A "&" at the end stands for nothing and may go.
		if trim := func(s string) string { return strings.TrimRight(s, "&") }; trim(got) != trim(strings.Join(kept, "&")) {
			t.Fatalf("%q without %q is %q, want %q", query, name, got, strings.Join(kept, "&"))
		}
		if values, _ := url.ParseQuery(got); name != "" && values.Has(name) {
			t.Fatalf("%q without %q is %q and still has it", query, name, got)
		}
		if again, more := withoutParameter(got, name); more && name != "" {
			t.Fatalf("%q without %q twice is %q", query, name, again)
		}
	})
}

// FuzzPlaces puts a key and anything else into a request: nothing panics, and
// once removed no place holds a key any more.
func hasShape(raw string) bool { return key.CheckShape(raw, true) == nil }

func FuzzPlaces(f *testing.F) {
	raw, err := key.Random{}.Generate("ak_", 64, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a=1", "Bearer x", "x", "a=1; b=2", "/p?q=1")
	f.Add("key="+raw, "Basic x", "", "key="+raw, "/p?key="+raw)
	f.Add("a=1&key="+raw+"&b", "bearer "+raw, raw, `key="`+raw+`"; KEY=`+raw, "*")
	f.Add("%6bey="+raw, " BEARER  "+raw+" ", " "+raw, ";;=;key", "http://h/?key="+raw+"&a")
	f.Fuzz(func(t *testing.T, query, authorization, header, cookie, uri string) {
		all := sources{headers: []string{"X-Api-Key"}, bearer: true, query: "key", cookie: "key", hasShape: hasShape}
		r := &http.Request{
			Method: "GET", URL: &url.URL{Path: "/", RawQuery: query}, RequestURI: uri,
			Header: http.Header{"Authorization": {authorization, "Basic x"}, "X-Api-Key": {header}, "Cookie": {cookie}, "X-Other": {"1"}},
		}
		repl := caddy.NewEmptyReplacer()
		ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, repl)
		orig := *r
		orig.URL = &url.URL{Path: "/", RawQuery: query}
		r = r.WithContext(context.WithValue(ctx, caddyhttp.OriginalRequestCtxKey, orig))

		found := all.find(r, repl, false)
		if found.count == 1 && found.raw == "" {
			t.Fatal("an empty key was found")
		}
		all.remove(r, found)
		if again := all.find(r, repl, true); again.count != 0 {
			t.Fatalf("a key is left: %q in %v %v", again.raw, r.URL, r.Header)
		}
		for _, u := range []*url.URL{r.URL, orig.URL} {
			if u.Query().Has("key") {
				t.Fatalf("the parameter is left: %s", u.RawQuery)
			}
		}
		if !slices.Contains(r.Header["Authorization"], "Basic x") || r.Header.Get("X-Other") != "1" {
			t.Fatalf("something else was removed: %v", r.Header)
		}
	})
}

// FuzzCookies checks that the other cookies keep their text.
func FuzzCookies(f *testing.F) {
	for _, line := range []string{"", "key=1", "a=1; key=2; b=3", `a="x;y"; key=1`, "key=1;key=2", " key = 1 ; a", ";;", "KEY=1; a=é"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r := &http.Request{Header: http.Header{"Cookie": {line}}}
		removeCookie(r, "key")
		for _, c := range r.Cookies() {
			if strings.EqualFold(c.Name, "key") {
				t.Fatalf("%q became %q", line, r.Header["Cookie"])
			}
		}
		left := strings.Join(r.Header["Cookie"], "")
		for part := range strings.SplitSeq(line, ";") {
			n, _, _ := strings.Cut(part, "=")
			if part = strings.Trim(part, " \t\r\n"); !strings.EqualFold(strings.Trim(n, " \t\r\n"), "key") && !strings.Contains(left, part) {
				t.Fatalf("%q became %q: %q is gone", line, left, part)
			}
		}
	})
}
