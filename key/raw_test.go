package key

import (
	"fmt"
	"hash/crc32"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func generate(t testing.TB) string {
	t.Helper()
	raw, err := Random{}.Generate("ak_", DefaultLength, true)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// base62 is the checksum as the format's description says it, in big integers.
func base62(n uint32) string {
	x, out := big.NewInt(int64(n)), ""
	for len(out) < 6 {
		digit := new(big.Int)
		x.DivMod(x, big.NewInt(62), digit)
		out = string("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[digit.Int64()]) + out
	}
	return out
}

func TestRawFormat(t *testing.T) {
	for _, prefix := range []string{"", "ak_", "claw_", strings.Repeat("p", 32), "a-B_9"} {
		for _, length := range []int{MinLength, 48, DefaultLength, MaxLength} {
			raw, err := Random{}.Generate(prefix, length, true)
			if err != nil {
				t.Fatalf("%q %d: %v", prefix, length, err)
			}
			if len(raw) != len(prefix)+length || !strings.HasPrefix(raw, prefix) {
				t.Errorf("%q has the wrong length or prefix", raw)
			}
			body, sum := raw[:len(raw)-6], raw[len(raw)-6:]
			if want := base62(crc32.ChecksumIEEE([]byte(body))); sum != want {
				t.Errorf("checksum of %q is %q, want %q", body, sum, want)
			}
			if err := CheckShape(raw, true); err != nil {
				t.Errorf("%q: %v", raw, err)
			}
		}
	}
}

func TestRawChecksumVectors(t *testing.T) {
	// CRC-32 of "123456789" is 0xCBF43926, the check value of the algorithm.
	const want = 0xCBF43926
	if got := crc32.ChecksumIEEE([]byte("123456789")); got != want {
		t.Fatalf("CRC-32 is %#x", got)
	}
	if s := "123456789" + base62(want); !ChecksumFits(s) {
		t.Errorf("%q does not fit", s)
	}
	if ChecksumFits("") || ChecksumFits("000000") {
		t.Error("a checksum of nothing fits")
	}
}

func TestRawWithoutChecksum(t *testing.T) {
	raw, err := Random{}.Generate("x_", 40, false)
	if err != nil || len(raw) != 42 {
		t.Fatalf("%q, %v", raw, err)
	}
	if CheckShape(raw, false) != nil {
		t.Error("refused")
	}
	if CheckShape(raw, true) == nil {
		t.Error("accepted, though it has no checksum")
	}
}

func TestRawRefusesSettings(t *testing.T) {
	for _, c := range []struct {
		prefix string
		length int
	}{{"ak_", 32}, {"ak_", MaxLength + 1}, {strings.Repeat("p", 33), 64}, {"a b", 64}, {"é", 64}, {"a.b", 64}} {
		if raw, err := (Random{}).Generate(c.prefix, c.length, true); err == nil {
			t.Errorf("%q, %d made %q", c.prefix, c.length, raw)
		}
	}
}

// S3: only the exact string has the shape of a key.
func TestS3_EditsHaveNoShape(t *testing.T) {
	for range 100 {
		raw := generate(t)
		for n := range len(raw) {
			if CheckShape(raw[:n], true) == nil {
				t.Errorf("the first %d characters of %q pass", n, raw)
			}
			for _, c := range []byte(alphabet + "_-") {
				edited := raw[:n] + string(c) + raw[n+1:]
				if edited != raw && CheckShape(edited, true) == nil {
					t.Errorf("%q passes in place of %q", edited, raw)
				}
			}
		}
		for _, edited := range []string{
			raw + "a", " " + raw, raw + " ", raw + "\n", strings.ToUpper(raw), strings.ToLower(raw), raw + raw,
			strings.Replace(raw, "a", "а", 1) + "", raw + "\x00", "\ufeff" + raw, strings.Replace(raw, "_", "＿", 1),
		} {
			if edited != raw && CheckShape(edited, true) == nil {
				t.Errorf("%q passes in place of %q", edited, raw)
			}
		}
	}
}

func TestRawTooLong(t *testing.T) {
	if CheckShape(strings.Repeat("a", MaxRawLen+1), false) == nil {
		t.Error("513 characters pass")
	}
	if CheckShape(strings.Repeat("a", MaxRawLen), false) != nil {
		t.Error("512 characters do not pass")
	}
}

// S3: at least 160 random bits, evenly spread over the alphabet.
func TestS3_Randomness(t *testing.T) {
	// log2(62) > 5.954, and 58 of the 64 characters are random.
	if bits := (DefaultLength - checksumLen) * 5954 / 1000; bits < 160 {
		t.Fatalf("%d bits", bits)
	}
	const keys = 20_000
	counts := map[byte]int{}
	seen := map[string]bool{}
	for range keys {
		raw := generate(t)
		if seen[raw] {
			t.Fatal("the same key twice")
		}
		seen[raw] = true
		for _, c := range []byte(raw[3 : len(raw)-6]) {
			counts[c]++
		}
	}
	// 1,160,000 characters over 62: mean 18,710, standard deviation 136. Seven of
	// them happen once in 10^10 runs; a modulo without rejection is off by 25 %.
	mean := keys * 58 / 62
	for i := range len(alphabet) {
		if n := counts[alphabet[i]]; n < mean-7*136 || n > mean+7*136 {
			t.Errorf("%q came %d times, the mean is %d", alphabet[i], n, mean)
		}
	}
}

func TestChecksumFitsIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[0-9A-Za-z_-]{0,80}`).Draw(t, "s")
		want := len(s) > 6 && s[len(s)-6:] == base62(crc32.ChecksumIEEE([]byte(s[:len(s)-6])))
		if ChecksumFits(s) != want {
			t.Fatalf("%q: %v", s, !want)
		}
		whole := s + base62(crc32.ChecksumIEEE([]byte(s)))
		if s != "" && !ChecksumFits(whole) {
			t.Fatalf("%q does not fit", whole)
		}
	})
}

func TestDisplay(t *testing.T) {
	if got := Display("ak_0123456789abcdef"); got != "ak_012345678" {
		t.Errorf("%q", got)
	}
	if got := Display("short"); got != "short" {
		t.Errorf("%q", got)
	}
}

func TestNewSecret(t *testing.T) {
	secret, err := NewSecret("clsk_")
	if err != nil || len(secret) != 5+secretLength || !ChecksumFits(secret) {
		t.Errorf("%q, %v", secret, err)
	}
}

func TestNewID(t *testing.T) {
	last := ""
	for now := int64(1_795_297_943_000); now < 1_795_297_943_100; now++ {
		id := NewID(now)
		if len(id) != 24 || id <= last {
			t.Fatalf("%q after %q", id, last)
		}
		if want := fmt.Sprintf("%012x", now); id[:12] != want {
			t.Fatalf("%q does not begin with %q", id, want)
		}
		last = id
	}
}

func FuzzCheckShape(f *testing.F) {
	f.Add("ak_", true)
	f.Fuzz(func(t *testing.T, s string, checksum bool) {
		ok := CheckShape(s, checksum) == nil
		if ok && (len(s) == 0 || len(s) > MaxRawLen || strings.Trim(s, alphabet+"_-") != "") {
			t.Fatalf("%q passes", s)
		}
	})
}

// TestFindChecksum: a raw key is found whatever follows it, and only from its beginning.
func TestFindChecksum(t *testing.T) {
	for range 1000 {
		raw, err := Random{}.Generate("ak_", 64, true)
		if err != nil {
			t.Fatal(err)
		}
		for text, want := range map[string]int{
			raw: 67, raw + "abc": 67, raw + raw: 67, raw + " abc": 67, raw[:66]: 0, raw[1:]: 0, "x" + raw: 0, "": 0, raw[:30] + " " + raw[30:]: 0,
		} {
			if n := FindChecksum([]byte(text), 19); n != want {
				t.Fatalf("%d bytes: %d, want %d", len(text), n, want)
			}
		}
		if n := FindChecksum([]byte(raw), 67); n != 67 {
			t.Fatal(n)
		}
		if n := FindChecksum([]byte(raw), 68); n != 0 {
			t.Fatal(n)
		}
	}
}
