package redact

import (
	"bytes"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// longSegment is the length from which a segment of a path is masked wherever it
// stands, if it has nothing but key characters.
const longSegment = 20

// pathSegments masks segments of paths, where a gate reads keys from one.
func (s *scan) pathSegments() {
	for i := 0; i < len(s.seg); {
		n := bytes.IndexByte(s.seg[i:], '/')
		if n < 0 {
			return
		}
		i += n
		start, ok := s.pathAt(i)
		if !ok {
			i++
			continue
		}
		i = s.path(start)
	}
}

// pathAt returns where the path of a URI starts to which the slash at i belongs. It is
// not ok if there is none.
func (s *scan) pathAt(i int) (start int, ok bool) {
	if i > 0 && s.seg[i-1] == ':' && i+1 < len(s.seg) && s.seg[i+1] == '/' { // http://localhost/a
		for i += 2; i < len(s.seg); i++ {
			switch c := s.seg[i]; {
			case c == '/':
				return i, true
			case c <= ' ' || c == '?' || c == '#' || c == '\\' || isQuote(c):
				return i, false
			}
		}
		return i, false
	}
	if i > 1 && s.seg[i-1] == ' ' && isAlnum(s.seg[i-2]) { // GET /a
		return i, true
	}
	end := i
	if end > 0 && isQuote(s.seg[end-1]) {
		end--
		end -= backslashesBefore(s.seg, end)
	}
	quoted := end < i
	for end > 0 && s.seg[end-1] == ' ' {
		end--
	}
	if end == 0 {
		return i, quoted
	}
	switch s.seg[end-1] {
	case '[', ',':
		return i, quoted
	case ':', '=':
		return i, s.namesPath(end - 1)
	}
	return i, false
}

// pathNames are the ends of names of what is a path, as by fold.
var pathNames = [][]byte{
	[]byte("uri"), []byte("url"), []byte("path"), []byte("path-info"), []byte("path-translated"), []byte("name"), []byte("result"),
}

// namesPath reports whether the name that ends at end is that of a path or a URI.
func (s *scan) namesPath(end int) bool {
	if end > 0 && isQuote(s.seg[end-1]) {
		end--
		end -= backslashesBefore(s.seg, end)
	}
	return slices.ContainsFunc(pathNames, func(name []byte) bool {
		start := end - len(name)
		if start < 0 {
			return false
		}
		for i, c := range name {
			if fold(s.seg[start+i]) != c {
				return false
			}
		}
		return true
	})
}

// path masks segments of the path that starts with the slash at i, and returns where
// it ends. As in the placeholders of Caddy, an encoded slash separates segments too.
func (s *scan) path(i int) int {
	for n, sep := 0, 1; sep > 0; n++ {
		start := i + sep
		i, sep = s.segmentEnd(start)
		if slices.Contains(s.segments, n) || i-start >= longSegment && mayBeKey(s.seg[start:i]) {
			s.add(start, i, false)
		}
	}
	return i
}

// segmentEnd returns where the segment at i ends, and the length of the slash there,
// 0 at the end of the path.
func (s *scan) segmentEnd(i int) (end, slash int) {
	for i < len(s.seg) {
		switch c := s.seg[i]; {
		case c == '/':
			return i, 1
		case c <= ' ' || c == '?' || c == '#' || c == 0x7f:
			return i, 0
		case c == '%':
			if d, ok := percentAt(s.seg, i); ok && d == '/' {
				return i, 3
			}
			i++
		case c == '"':
			if s.json || s.afterQuotedURL(i+1) {
				return i, 0
			}
			i++
		case c == '\\':
			if s.endsAtEscape(i) && !bytes.HasPrefix(s.seg[i:], []byte(`\u0026`)) {
				return i, 0
			}
			i += s.escapeLen(i)
		default:
			i++
		}
	}
	return len(s.seg), 0
}

// mayBeKey reports whether text has nothing but key characters, which may be
// percent-encoded.
func mayBeKey(text []byte) bool {
	for i := 0; i < len(text); i++ {
		c := text[i]
		if d, ok := percentAt(text, i); ok {
			c = d
			i += 2
		}
		if !key.IsKeyChar(c) {
			return false
		}
	}
	return true
}
