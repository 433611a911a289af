package api

import (
	"strings"
	"testing"
)

// TestCheckOrigins tries origins that no browser sends, and says what it sends.
func TestCheckOrigins(t *testing.T) {
	const form = "must be scheme://host"
	for origin, want := range map[string]string{
		"https://app.example.com":        "",
		"http://localhost:3000":          "",
		"http://127.0.0.1:65535":         "",
		"http://[::1]:3000":              "",
		"https://xn--bcher-kva.example":  "",
		"http://a.example:443":           "",
		"https://a.example:80":           "",
		"app://a.example":                "",
		"chrome-extension://abcdefghijk": "",
		"https://bücher.example":         "use https://xn--bcher-kva.example",
		"https://bücher.example:8443":    "use https://xn--bcher-kva.example:8443",
		"https://a\u00ad.example":        "use https://a.example",
		"https://a.example:443":          "use https://a.example",
		"http://a.example:80":            "use http://a.example",
		"http://[::1]:80":                "use http://[::1]",
		"https://a.example:0443":         "use https://a.example",
		"https://a.example:08443":        "use https://a.example:8443",
		"https://a.example:65536":        "from 1 to 65535",
		"https://a.example:0":            "from 1 to 65535",
		"https://a.example:":             form,
		"https://A.example":              form,
		"https://a.example/":             form,
		"https://a.example?x":            form,
		"https://u@a.example":            form,
		"https://*.example":              form,
		"https://a.example:x":            form,
		"https://:443":                   form,
		"a.example":                      form,
		"null":                           form,
		"":                               form,
		"https://ü\u200b\u2028.example":  "the host name is invalid",
	} {
		err := CheckOrigins([]string{origin})
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", origin, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error is %v, want %s", origin, err, want)
		}
	}
	if err := CheckOrigins([]string{"https://a.example", "https://a.example"}); err == nil {
		t.Error("one already specified")
	}
}
