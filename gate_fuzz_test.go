package apikey

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// FuzzRemoveParameters checks that a removed parameter is gone, also for a reader who
// decodes, and that the text of all others is as it was.
func FuzzRemoveParameters(f *testing.F) {
	for _, query := range []string{
		"", "key=1", "a=1&key=2&b=3", "key", "key=", "&&key=1&&", "%6bey=1", "k%65y=1&key=2", "a=%zz&key=1", "+key=1", "key=1;b=2", "a;key=1",
		"key[]=1", "KEY=1", "=key", "key==", "a=key&key=a", "%", "%k=1&key=%", "a=%31&b=1+", "key=ak_x&a=ak_x",
	} {
		f.Add(query, "1")
	}
	f.Add("a+b=1&a%20b=2 3", "2 3")
	f.Fuzz(func(t *testing.T, query, raw string) {
		m := remover{&sources{query: "key"}, raw, []string{"ak_"}}
		drop := func(name, value string) bool {
			return raw != "" && value == raw || name == "key" && strings.HasPrefix(value, "ak_")
		}
		got, removed := m.without(query)
		var kept []string
		was := false
		for part := range strings.SplitSeq(query, "&") {
			n, v, _ := strings.Cut(part, "=")
			if query == "" || !drop(unescape(n), unescape(v)) {
				kept = append(kept, part)
			} else {
				was = true
			}
		}
		if removed != was {
			t.Fatalf("%q without %q: removed %v, want %v", query, raw, removed, was)
		}
		// A "&" at the end stands for nothing and may go.
		if trim := func(s string) string { return strings.TrimRight(s, "&") }; trim(got) != trim(strings.Join(kept, "&")) {
			t.Fatalf("%q without %q is %q, want %q", query, raw, got, strings.Join(kept, "&"))
		}
		if again, more := m.without(got); more {
			t.Fatalf("%q without %q twice is %q", query, raw, again)
		}
	})
}

// FuzzSources puts a key and anything else into a request: nothing panics, and once
// removed no source holds a key any more, while the values of others stay.
func FuzzSources(f *testing.F) {
	raw, err := key.Random{}.Generate("ak_", 64, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a=1", "Bearer x", "x", "a=1; b=2", "/p?q=1", false)
	f.Add("key="+raw, "Basic x", "", "key="+raw, "/p?key="+raw, false)
	f.Add("a=1&key="+raw+"&b", "bearer "+raw, raw, `key="`+raw+`"; KEY=`+raw, "*", false)
	f.Add("%6bey="+raw, " BEARER  "+raw+" ", " "+raw, ";;=;key", "http://h/?key="+raw+"&a", false)
	f.Add("b="+raw, "Basic "+base64.StdEncoding.EncodeToString([]byte(raw+":x")), "y", "b="+raw, "/", false)
	f.Add("key="+raw, "Bearer "+raw, "", "", "/", true)
	f.Fuzz(func(t *testing.T, query, authorization, header, cookie, uri string, rewritten bool) {
		all := sources{headers: []string{"X-Api-Key"}, schemes: []string{"Bearer", "Basic"}, query: "key", cookie: "key"}
		r := &http.Request{
			Method: "GET", URL: &url.URL{Path: "/", RawQuery: query}, RequestURI: uri,
			Header: http.Header{"Authorization": {authorization, "Digest x"}, "X-Api-Key": {header}, "Cookie": {cookie}, "X-Other": {"1", raw}},
		}
		repl := caddy.NewEmptyReplacer()
		ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, repl)
		orig := *r
		orig.URL = &url.URL{Path: "/", RawQuery: query}
		if rewritten {
			r.URL.RawQuery = ""
		}
		r = r.WithContext(context.WithValue(ctx, caddyhttp.OriginalRequestCtxKey, orig))

		for _, c := range all.find(r, repl, nil) {
			if c.raw == "" {
				t.Fatal("an empty key was found")
			}
		}
		m := remover{&all, raw, []string{"ak_"}}
		m.remove(r)
		for _, c := range all.find(r, repl, nil) {
			if c.raw == raw || strings.HasPrefix(c.raw, "ak_") {
				t.Fatalf("a key is left: %q in %v %v", c.raw, r.URL, r.Header)
			}
		}
		for _, u := range []*url.URL{r.URL, orig.URL} {
			if slices.Contains(u.Query()["key"], raw) {
				t.Fatalf("the parameter is left: %s", u.RawQuery)
			}
		}
		if !slices.Contains(r.Header["Authorization"], "Digest x") || !slices.Equal(r.Header["X-Other"], []string{"1"}) {
			t.Fatalf("%v", r.Header)
		}
	})
}

// FuzzCookies checks that the other cookies keep their text.
func FuzzCookies(f *testing.F) {
	for _, line := range []string{"", "key=1", "a=1; key=2; b=3", `a="x;y"; key=1`, "key=1;key=2", " key = 1 ; a", ";;", "KEY=1; a=é", "b=1", "key=ak_1; b=ak_1"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r := &http.Request{Header: http.Header{"Cookie": {line}}}
		m := remover{&sources{cookie: "key"}, "1", []string{"ak_"}}
		m.removeCookies(r)
		for _, c := range r.Cookies() {
			if c.Value == "1" || strings.EqualFold(c.Name, "key") && strings.HasPrefix(c.Value, "ak_") {
				t.Fatalf("%q became %q", line, r.Header["Cookie"])
			}
		}
		left := strings.Join(r.Header["Cookie"], "")
		for part := range strings.SplitSeq(line, ";") {
			_, v, _ := strings.Cut(part, "=")
			if part = strings.Trim(part, " \t\r\n"); strings.Trim(v, " \t\r\n\"") != "1" && !strings.Contains(v, "ak_") && !strings.Contains(left, part) {
				t.Fatalf("%q became %q: %q is gone", line, left, part)
			}
		}
	})
}
