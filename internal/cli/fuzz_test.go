package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// FuzzFlags parses the text of a flag in every way that flags have: nothing panics, what is
// read is in range, and errors do not repeat the text.
func FuzzFlags(f *testing.F) {
	for _, s := range []string{
		"90d", "1h30m", "0.5s", "-1d", "9223372036854775807", "100/1m", "100/", "/1m", "1/1e99h", `{"a":1}`, " {", "{}x", "7:" + strings.Repeat("a", 64), "0:", "a=b", "=",
		"files:read", "2026-11-21T19:09:19Z", "10000-01-01T00:00:00Z", "true", "unlimited",
	} {
		f.Add(s)
	}
	h := &Host{ParseDuration: time.ParseDuration, Now: func() time.Time { return time.UnixMilli(1_800_000_000_000) }}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := h.seconds(1)(s); err == nil && n < 1 {
			t.Errorf("%q is %d seconds", s, n)
		}
		if r, err := h.parseRate(s); err == nil && r.millis < 1 {
			t.Errorf("%q is a rate of %+v", s, r)
		}
		if o, err := parseObject(s); err == nil {
			var m map[string]any
			if err := json.Unmarshal(o, &m); err != nil && !errors.As(err, new(*json.UnmarshalTypeError)) {
				t.Errorf("%q is an object: %v", s, err)
			}
		}
		if p, err := parsePoint(s); err == nil && !strings.EqualFold(s, fmt.Sprintf("%d:%s", p.ID, p.Chain)) && !strings.HasPrefix(s, "+") && !strings.HasPrefix(s, "0") {
			t.Errorf("%q is the entry %+v", s, p)
		}
		if at, err := h.parseWhen(1)(s); err == nil {
			if text, err := at.MarshalJSON(); err != nil || !json.Valid(text) {
				t.Errorf("%q is the time %s: %v", s, text, err)
			}
		}
		if n, err := parseKeep(s); err == nil && (n < 1 || n > 10_000) {
			t.Errorf("%q keeps %d", s, n)
		}
		if m, err := metadata()(s); err == nil && !json.Valid(m) {
			t.Errorf("%q is the metadata %s", s, m)
		}
		if _, err := permissions()(s); err == nil && strings.ContainsAny(s, " ,/{}") {
			t.Errorf("%q is a permission", s)
		}
	})
}

// FuzzExport reads the lines of an export: together they are the file, and none is longer
// than a request may be.
func FuzzExport(f *testing.F) {
	for _, s := range []string{"", "\n", "{\"format\":\"caddy-apikey\",\"version\":1}\n{\"end\":{\"owners\":0,\"keys\":0}}\n", "a\r\nb", strings.Repeat("x", 70_000) + "\ny"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		in, rest := bufio.NewReader(bytes.NewReader(text)), text
		for {
			line, size, err := readLine(in)
			if err != nil {
				if !errors.Is(err, io.EOF) || size != 0 || len(rest) != 0 {
					t.Fatalf("%v with %d bytes left, %d in the line", err, len(rest), size)
				}
				return
			}
			if size < 1 || int(size) > len(rest) || !bytes.HasPrefix(rest, line) || len(line) != min(int(size), maxImport+1) {
				t.Fatalf("a line of %d bytes, %d kept, %d left", size, len(line), len(rest))
			}
			rest = rest[size:]
			_ = checkHeader(line)
		}
	})
}
