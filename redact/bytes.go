package redact

// percentAt decodes the "%XX" at i, if there is one.
func percentAt(b []byte, i int) (c byte, ok bool) {
	if i+2 >= len(b) || b[i] != '%' {
		return 0, false
	}
	hi, lo := hexDigit(b[i+1]), hexDigit(b[i+2])
	return byte(hi<<4 | lo), hi >= 0 && lo >= 0 //nolint:gosec // hexadecimal digits
}

// decodeBefore returns the character of a query that ends at i > 0, and its length.
func decodeBefore(b []byte, i int) (c byte, n int) {
	if i >= 3 {
		if c, ok := percentAt(b, i-3); ok {
			return c, 3
		}
	}
	if c = b[i-1]; c == '+' {
		c = ' '
	}
	return c, 1
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func backslashesBefore(b []byte, i int) (n int) {
	for n < i && b[i-1-n] == '\\' {
		n++
	}
	return n
}

func isQuote(c byte) bool { return c == '"' || c == '\'' || c == '`' }

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// fold folds a character of a name: upper and lower case are the same, and so
// are "-", "_" and ".".
func fold(c byte) byte {
	if c == '_' || c == '.' {
		return '-'
	}
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// foldName folds a whole name.
func foldName(name string) string {
	b := []byte(name)
	for i, c := range b {
		b[i] = fold(c)
	}
	return string(b)
}
