package redact

import "bytes"

// cookieHeaders are the headers that hold cookies, as by fold.
var cookieHeaders = newMasker(&names{headers: []string{"Cookie", "Set-Cookie"}})

// cookieValues masks the values of cookies, by their names, in the headers that hold
// cookies.
func (s *scan) cookieValues() {
	jar := scan{masker: cookieHeaders, seg: s.seg, json: s.json}
	jar.headerValues(':')
	jar.headerValues('=')
	for _, v := range jar.found {
		s.cookiesIn(v.start, v.end)
	}
}

// cookiesIn masks the values of cookies in the value of a header.
func (s *scan) cookiesIn(start, end int) {
	for i := start; i < end; {
		n := bytes.IndexByte(s.seg[i:end], '=')
		if n < 0 {
			return
		}
		i += n + 1
		stop := end
		if n := bytes.IndexByte(s.seg[i:end], ';'); n >= 0 {
			stop = i + n
		}
		if s.cookieBefore(start, i-1) {
			s.add(i, stop, false)
		}
		i = stop
	}
}

// cookieBefore reports whether the name of a cookie ends at end, behind start.
func (s *scan) cookieBefore(start, end int) bool {
	for _, name := range s.cookies {
		from := end - len(name)
		if from < start {
			continue
		}
		same := true
		for i, c := range name {
			same = same && fold(s.seg[from+i]) == c
		}
		if same && (from == start || s.startsName(from)) {
			return true
		}
	}
	return false
}
