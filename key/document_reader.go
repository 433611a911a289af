package key

import (
	"encoding/json"
	"fmt"
	"strings"
)

// documentReader reads JSON text from the front until something is wrong, and zeros
// from then on.
type documentReader struct {
	s     string
	at    int
	depth int
	name  string // the member that is being read
	err   error
}

// maxDepth is how deep values may lie in one another, as encoding/json has it.
const maxDepth = 10_000

// fail keeps the first error, which names the member and repeats no value.
func (d *documentReader) fail(what string) {
	if d.err != nil {
		return
	}
	if name := d.name; name != "" {
		what = fmt.Sprintf("%q %s", name, what)
	}
	d.err = fmt.Errorf("document: %s", what)
	d.at = len(d.s)
}

func (d *documentReader) space() {
	for d.at < len(d.s) {
		switch d.s[d.at] {
		case ' ', '\t', '\r', '\n':
			d.at++
		default:
			return
		}
	}
}

// peek returns the next byte that is no space, or 0.
func (d *documentReader) peek() byte {
	d.space()
	if d.at < len(d.s) {
		return d.s[d.at]
	}
	return 0
}

// take skips the next byte if it is c.
func (d *documentReader) take(c byte) bool {
	if d.peek() != c {
		return false
	}
	d.at++
	return true
}

func (d *documentReader) expect(c byte) {
	if !d.take(c) {
		d.fail("is not as it was written")
	}
}

func (d *documentReader) enter() {
	if d.depth++; d.depth > maxDepth {
		d.fail("lies too deep")
	}
}

// members calls value for each member of an object, to read it.
func (d *documentReader) members(value func(name string)) {
	outer := d.name
	d.enter()
	d.expect('{')
	for more := !d.take('}'); more && d.err == nil; more = !d.take('}') {
		name := d.text()
		d.expect(':')
		if outer == "" {
			d.name = name
		}
		if d.err != nil {
			return
		}
		value(name)
		if d.peek() != '}' {
			d.expect(',')
			if d.peek() == '}' {
				d.fail("is not as it was written")
			}
		}
	}
	d.depth--
	if d.err == nil {
		d.name = outer
	}
}

// elements calls value for each element of an array, to read it.
func (d *documentReader) elements(value func()) {
	d.enter()
	d.expect('[')
	for more := !d.take(']'); more && d.err == nil; more = !d.take(']') {
		value()
		if d.peek() != ']' {
			d.expect(',')
			if d.peek() == ']' {
				d.fail("is not as it was written")
			}
		}
	}
	d.depth--
}

// count returns about how many elements the array has that comes next.
func (d *documentReader) count() int {
	rest := d.s[min(d.at, len(d.s)):]
	end := strings.IndexByte(rest, ']')
	return strings.Count(rest[:max(end, 0)], ",") + 1
}

func (d *documentReader) text() string {
	d.expect('"')
	from := d.at
	for i := from; i < len(d.s); i++ {
		switch c := d.s[i]; {
		case c == '"':
			d.at = i + 1
			return d.s[from:i]
		case c == '\\':
			return d.escaped(from)
		case c < ' ':
			i = len(d.s)
		}
	}
	d.fail("is not a text")
	return ""
}

// escaped reads a text that has escapes. They are rare.
func (d *documentReader) escaped(from int) (s string) {
	for i := from; i < len(d.s); i++ {
		switch d.s[i] {
		case '\\':
			i++
		case '"':
			d.at = i + 1
			if json.Unmarshal([]byte(d.s[from-1:i+1]), &s) != nil {
				d.fail("is not a text")
			}
			return s
		}
	}
	d.fail("is not a text")
	return ""
}

// number reads an integer: nothing else is written.
func (d *documentReader) number() int64 {
	negative := d.take('-')
	if !negative {
		d.space()
	}
	from := d.at
	n := int64(0)
	for d.at < len(d.s) && d.s[d.at]-'0' <= 9 {
		if d.at-from > 17 {
			d.fail("is too large")
			return 0
		}
		n = n*10 + int64(d.s[d.at]-'0')
		d.at++
	}
	if d.at == from || d.at-from > 1 && d.s[from] == '0' {
		d.fail("is not an integer")
		return 0
	}
	if negative {
		return -n
	}
	return n
}

func (d *documentReader) flag() bool {
	if d.peek() == 't' {
		d.word("true")
		return true
	}
	d.word("false")
	return false
}

func (d *documentReader) word(w string) {
	d.space()
	if !strings.HasPrefix(d.s[min(d.at, len(d.s)):], w) {
		d.fail("is not as it was written")
		return
	}
	d.at += len(w)
}

// object returns a JSON object as it stands there.
func (d *documentReader) object() json.RawMessage {
	if d.peek() != '{' {
		d.fail("is not an object")
		return nil
	}
	from := d.at
	d.skip()
	if d.err != nil {
		return nil
	}
	return json.RawMessage(d.s[from:d.at])
}

// skip reads past any value.
func (d *documentReader) skip() {
	switch c := d.peek(); {
	case c == '{':
		d.members(func(string) { d.skip() })
	case c == '[':
		d.elements(d.skip)
	case c == '"':
		d.skipText()
	case c == 't':
		d.word("true")
	case c == 'f':
		d.word("false")
	case c == 'n':
		d.word("null")
	default:
		d.skipNumber()
	}
}

func (d *documentReader) skipText() {
	_ = d.text() // no copy, but where there are escapes
}

// skipNumber reads past a number with all that JSON allows.
func (d *documentReader) skipNumber() {
	digits := func() bool {
		from := d.at
		for d.at < len(d.s) && d.s[d.at]-'0' <= 9 {
			d.at++
		}
		return d.at > from
	}
	is := func(set string) bool {
		if d.at < len(d.s) && strings.IndexByte(set, d.s[d.at]) >= 0 {
			d.at++
			return true
		}
		return false
	}
	is("-")
	ok := is("0") || digits()
	if ok && is(".") {
		ok = digits()
	}
	if ok && is("eE") {
		is("+-")
		ok = digits()
	}
	if !ok {
		d.fail("is not as it was written")
	}
}
