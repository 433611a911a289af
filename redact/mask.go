package redact

import (
	"bytes"
	"cmp"
	"slices"

	"go.uber.org/zap/buffer"
)

// masker finds what must not be in a log line. It is immutable.
type masker struct {
	headers [][]byte // in lower case, with "-" for "_" and "."
	query   [][]byte // in lower case

	// The characters that names end with, as folded by foldHeader and foldByte:
	// most of what precedes a ":" or "=" is dismissed by them.
	headerEnds, queryEnds [256]bool
}

func newMasker(headers, query []string) *masker {
	m := new(masker)
	for _, name := range slices.Concat(defaultHeaders, headers) {
		b := []byte(name)
		for i, c := range b {
			b[i] = foldHeader(c)
		}
		m.headers = append(m.headers, b)
		m.headerEnds[b[len(b)-1]] = true
	}
	for _, name := range query {
		b := []byte(name)
		for i, c := range b {
			b[i] = foldByte(c)
		}
		m.query = append(m.query, b)
		m.queryEnds[b[len(b)-1]] = true
	}
	return m
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
