package cli

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// scanner finds raw keys with a checksum in text. It looks at bytes, so that it finds them
// in binary files too, and holds a window of the text, however long a line is.
type scanner struct {
	prefixes [][]byte  // that are not empty, the shortest first
	first    [256]bool // their first characters
	bare     bool      // keys without a prefix are looked for as well
}

// place is where a raw key is. Both count from 1, the column in bytes.
type place struct{ line, column int64 }

const (
	// minScanned is the shortest part after a prefix. Generators may make shorter keys than
	// those of this server, but what is shorter than that is no secret.
	minScanned = 16
	// scanWindow is how much of a text is in memory at a time.
	scanWindow = 256 << 10
)

func newScanner(prefixes []string) *scanner {
	s := &scanner{}
	for _, p := range prefixes {
		if p == "" {
			s.bare = true
			continue
		}
		s.prefixes = append(s.prefixes, []byte(p))
		s.first[p[0]] = true
	}
	slices.SortFunc(s.prefixes, func(a, b []byte) int { return len(a) - len(b) })
	return s
}

// scan calls found with each raw key in a text, and the length of its prefix.
func (s *scanner) scan(r io.Reader, found func(raw string, prefix int, at place) error) error {
	window := make([]byte, 0, scanWindow)
	at := place{1, 1} // of window[0]
	inside := false   // the byte before window[0] may stand in a key
	for more := true; more; {
		n, err := io.ReadFull(r, window[len(window):cap(window)])
		window = window[:len(window)+n]
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			more = false
		case err != nil:
			return err
		}
		// What begins in the last bytes may go on behind the window. One byte more tells
		// whether a key without a prefix has ended.
		end := len(window)
		if more {
			end -= key.MaxRawLen + 1
		}
		i, seen := 0, 0
		for i < end {
			length, prefix := s.match(window[i:], inside)
			if length == 0 {
				inside = key.IsKeyChar(window[i])
				i++
				continue
			}
			at.advance(window[seen:i])
			seen = i
			if err := found(string(window[i:i+length]), prefix, at); err != nil {
				return err
			}
			i, inside = i+length, true
		}
		at.advance(window[seen:i])
		window = window[:copy(window, window[i:])]
	}
	return nil
}

// match returns the length of the raw key with which text begins, 0 for none, and that of
// its prefix.
func (s *scanner) match(text []byte, inside bool) (length, prefix int) {
	if s.first[text[0]] {
		for _, p := range s.prefixes {
			if bytes.HasPrefix(text, p) {
				// Which prefix it is makes no difference to the checksum.
				return key.FindChecksum(text, len(p)+minScanned), len(p)
			}
		}
	}
	if !s.bare || inside || !key.IsKeyChar(text[0]) {
		return 0, 0
	}
	n := 1
	for n < len(text) && n <= key.MaxRawLen && key.IsKeyChar(text[n]) {
		n++
	}
	if n >= key.MinLength && n <= key.MaxRawLen && key.ChecksumFits(string(text[:n])) {
		return n, 0
	}
	return 0, 0
}

func (p *place) advance(over []byte) {
	if i := bytes.LastIndexByte(over, '\n'); i >= 0 {
		p.line += int64(bytes.Count(over, []byte{'\n'}))
		p.column, over = 1, over[i+1:]
	}
	p.column += int64(len(over))
}

// mask returns s with each raw key cut down to its prefix.
func (s *scanner) mask(text string) string {
	var b bytes.Buffer
	rest := 0
	inside := false
	for i := 0; i < len(text); {
		length, prefix := s.match([]byte(text[i:min(len(text), i+key.MaxRawLen+1)]), inside)
		if length == 0 {
			inside = key.IsKeyChar(text[i])
			i++
			continue
		}
		b.WriteString(text[rest:i+prefix] + ellipsis)
		i, inside = i+length, true
		rest = i
	}
	return b.String() + text[rest:]
}

// textReader returns what a scanner reads of a file: of UTF-16, which starts with a mark of its
// byte order, the bytes that are not zero, because those of a raw key then follow each other.
func textReader(r io.Reader) io.Reader {
	mark := make([]byte, 2)
	n, err := io.ReadFull(r, mark)
	mark = mark[:n]
	switch {
	case n == 2 && (string(mark) == "\xff\xfe" || string(mark) == "\xfe\xff"):
		return &withoutZeros{r}
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return &failed{err}
	}
	return io.MultiReader(bytes.NewReader(mark), r)
}

type withoutZeros struct{ r io.Reader }

func (w *withoutZeros) Read(p []byte) (int, error) {
	for {
		n, err := w.r.Read(p)
		kept := slices.DeleteFunc(p[:n], func(c byte) bool { return c == 0 })
		if len(kept) > 0 || err != nil {
			return len(kept), err
		}
	}
}

type failed struct{ err error }

func (f *failed) Read([]byte) (int, error) { return 0, f.err }
