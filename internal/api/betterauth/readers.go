package betterauth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// text reads a string.
func text(is *issues, at string, raw json.RawMessage) any {
	if t := typeOf(raw); t != "string" {
		is.wrongType(at, "string", t)
		return nil
	}
	var s string
	json.Unmarshal(raw, &s) //nolint:errcheck // the JSON is valid
	return s
}

// prefix reads a string that can stand in front of a key.
func prefix(is *issues, at string, raw json.RawMessage) any {
	v := text(is, at, raw)
	if s, ok := v.(string); ok && !prefixPattern.MatchString(s) {
		is.add(at, "Invalid prefix format, must be alphanumeric and contain only underscores and hyphens.")
	}
	return v
}

var prefixPattern = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// coerced reads whatever is sent as a string, in the words of JavaScript.
func coerced(_ *issues, _ string, raw json.RawMessage) any {
	switch typeOf(raw) {
	case "string":
		return text(nil, "", raw)
	case "object":
		return "[object Object]"
	default:
		return string(bytes.TrimSpace(raw))
	}
}

// anything keeps a value as it was sent.
func anything(_ *issues, _ string, raw json.RawMessage) any { return raw }

func boolean(is *issues, at string, raw json.RawMessage) any {
	if t := typeOf(raw); t != "boolean" {
		is.wrongType(at, "boolean", t)
		return nil
	}
	return string(bytes.TrimSpace(raw)) == "true"
}

// orNull lets null pass, too.
func orNull(read reader) reader {
	return func(is *issues, at string, raw json.RawMessage) any {
		if typeOf(raw) == "null" {
			return nil
		}
		return read(is, at, raw)
	}
}

// number reads a number.
func number(is *issues, at string, raw json.RawMessage) any {
	if t := typeOf(raw); t != "number" {
		is.wrongType(at, "number", t)
		return nil
	}
	return finite(is, at, parseFloat(string(bytes.TrimSpace(raw))))
}

// numberFrom reads a number that is not too small.
func numberFrom(least float64) reader {
	return func(is *issues, at string, raw json.RawMessage) any {
		v := number(is, at, raw)
		if n, ok := v.(float64); ok && n < least {
			is.add(at, "Too small: expected number to be >=%v", least)
		}
		return v
	}
}

// parseFloat reads a decimal number; what is too large for one is infinite.
func parseFloat(s string) float64 {
	n, _ := strconv.ParseFloat(s, 64) // the error is a range, and n infinite
	return n
}

func finite(is *issues, at string, n float64) any {
	switch {
	case math.IsNaN(n):
		is.wrongType(at, "number", "NaN")
	case math.IsInf(n, 1):
		is.wrongType(at, "number", "Infinity")
	case math.IsInf(n, -1):
		is.wrongType(at, "number", "-Infinity")
	default:
		return n
	}
	return nil
}

// count reads a parameter that counts, as JavaScript turns text into a number.
func count(is *issues, at string, raw json.RawMessage) any {
	n := math.NaN()
	if s, ok := text(new(issues), at, raw).(string); ok {
		n = numberOf(s)
	}
	v := finite(is, at, n)
	switch {
	case v == nil:
	case n != math.Trunc(n):
		is.wrongType(at, "int", "number")
	case n > float64(key.MaxCount):
		is.add(at, "Too big: expected int to be <=%d", key.MaxCount)
	case n < 0:
		if n < -float64(key.MaxCount) {
			is.add(at, "Too small: expected int to be >=%d", -key.MaxCount)
		}
		is.add(at, "Too small: expected number to be >=0")
	}
	return v
}

var decimalPattern = regexp.MustCompile(`^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$`)

// numberOf is Number() of JavaScript.
func numberOf(s string) float64 {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return 0
	case strings.TrimLeft(s, "+-") == "Infinity" && len(s) <= len("+Infinity"):
		return parseFloat(s)
	case decimalPattern.MatchString(s):
		return parseFloat(s)
	case len(s) > 2 && s[0] == '0' && strings.ContainsRune("xXoObB", rune(s[1])) && !strings.Contains(s, "_"):
		if n, err := strconv.ParseUint(s, 0, 64); err == nil {
			return float64(n)
		}
	}
	return math.NaN()
}

// oneOf reads one of some words.
func oneOf(words ...string) reader {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	return func(is *issues, at string, raw json.RawMessage) any {
		s, ok := text(new(issues), at, raw).(string)
		if !ok || !slices.Contains(words, s) {
			is.add(at, "Invalid option: expected one of %s", strings.Join(quoted, "|"))
			return nil
		}
		return s
	}
}

// orEmpty reads a string that may be empty, which is then as good as none.
func orEmpty(read reader) reader {
	return func(is *issues, at string, raw json.RawMessage) any {
		if s, ok := text(is, at, raw).(string); !ok || s == "" {
			return nil
		}
		return read(is, at, raw)
	}
}

// permissions reads actions by resource. Problems are reported in the order of the
// body.
func permissions(is *issues, at string, raw json.RawMessage) any {
	if t := typeOf(raw); t != "object" {
		is.wrongType(at, "record", t)
		return nil
	}
	p := key.Permissions{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.Token() //nolint:errcheck // the JSON is valid
	for d.More() {
		name, _ := d.Token()
		resource, _ := name.(string)
		var actions json.RawMessage
		if d.Decode(&actions) != nil { // the JSON is valid
			return nil
		}
		p[resource] = is.readActions(at+"."+resource, actions)
	}
	return p
}

func (is *issues) readActions(at string, raw json.RawMessage) []string {
	if t := typeOf(raw); t != "array" {
		is.wrongType(at, "array", t)
		return nil
	}
	var list []json.RawMessage
	json.Unmarshal(raw, &list) //nolint:errcheck // the JSON is valid
	actions := []string{}
	for i, item := range list {
		if s, ok := text(is, fmt.Sprintf("%s.%d", at, i), item).(string); ok {
			actions = append(actions, s)
		}
	}
	return actions
}
