package redact

import (
	"bytes"
	"cmp"
	"slices"

	"go.uber.org/zap/buffer"
)

// masker finds what must not be in a log line. It is immutable.
type masker struct {
	headers, query, cookies [][]byte // folded by fold
	segments                []int

	// The characters that names end with, as folded by fold: most of what
	// precedes a ":" or "=" is dismissed by them.
	headerEnds, queryEnds [256]bool

	published *names // those of Publish that are among the names
}

func newMasker(n *names) *masker {
	m := &masker{segments: n.segments}
	for _, name := range n.headers {
		m.headers = addName(m.headers, &m.headerEnds, name)
	}
	for _, name := range n.query {
		m.query = addName(m.query, &m.queryEnds, name)
	}
	for _, name := range n.cookies {
		m.cookies = append(m.cookies, []byte(foldName(name)))
	}
	return m
}

// addName adds a name to a list, unless it is there, and its last character to ends.
func addName(list [][]byte, ends *[256]bool, name string) [][]byte {
	b := []byte(foldName(name))
	if slices.ContainsFunc(list, func(other []byte) bool { return bytes.Equal(other, b) }) {
		return list
	}
	ends[b[len(b)-1]] = true
	return append(list, b)
}

// span is a part of a line to be replaced. A quoted one gets quotes around the
// replacement, so that JSON stays valid where a value had none.
type span struct {
	start, end int
	quoted     bool
}

// writeMasked writes line with the spans replaced; where they overlap, together.
func writeMasked(out *buffer.Buffer, line []byte, found []span) {
	slices.SortFunc(found, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.end, a.end))
	})
	pos := 0
	for _, f := range found {
		if f.start < pos {
			pos = max(pos, f.end)
			continue
		}
		_, _ = out.Write(line[pos:f.start])
		if f.quoted {
			out.AppendString(`"` + redacted + `"`)
		} else {
			out.AppendString(redacted)
		}
		pos = f.end
	}
	_, _ = out.Write(line[pos:])
}

// find returns the parts of a line to be replaced, in no order, nil if it is
// clean. Neither a JSON string nor anything looked for contains a tab or a line
// break, so these cut the line into segments that are searched on their own: the
// one of the JSON encoder, or the columns of the console encoder, of which the
// last is JSON.
func (m *masker) find(line []byte) []span {
	s := scan{masker: m, budget: searchBudget}
	for start := 0; start < len(line); {
		end := len(line)
		if i := bytes.IndexByte(line[start:], '\n'); i >= 0 {
			end = start + i
		}
		for start <= end {
			stop := end
			if i := bytes.IndexByte(line[start:end], '\t'); i >= 0 {
				stop = start + i
			}
			s.segment(line[start:stop], start)
			start = stop + 1
		}
	}
	return s.found
}

// scan is one search.
type scan struct {
	*masker
	found  []span
	budget int // steps left for finding keys by their checksum

	seg  []byte // the segment being searched
	base int    // where it starts in the line
	json bool   // whether it is a JSON object
}

func (s *scan) segment(seg []byte, base int) {
	s.seg, s.base = seg, base
	s.json = isJSON(seg)
	s.headerValues(':')
	s.headerValues('=')
	if len(s.query) > 0 {
		s.queryValues()
		s.nestedQueryValues()
	}
	if len(s.cookies) > 0 {
		s.cookieValues()
	}
	if len(s.segments) > 0 {
		s.pathSegments()
	}
	s.keys()
}

// isJSON reports whether seg looks like a JSON object, maybe behind the
// "<level>" of Caddy's journald encoder.
func isJSON(seg []byte) bool {
	if len(seg) > 3 && seg[0] == '<' && seg[2] == '>' {
		seg = seg[3:]
	}
	return len(seg) > 1 && seg[0] == '{' && (seg[1] == '"' || seg[1] == '}')
}

func (s *scan) add(start, end int, quoted bool) {
	if start < end {
		s.found = append(s.found, span{s.base + start, s.base + end, quoted})
	}
}
