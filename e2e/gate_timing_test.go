package e2e

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"
)

// TestS7_Timing sends, in turn, wrong keys that share 20 characters with a stored key and
// wrong keys that share none, all with the right checksum. The answers are the same
// bytes. In the long form, they also take the same time: a short series would measure the
// machine.
func TestS7_Timing(t *testing.T) {
	full(t)
	s := startGate(t, "{\n\tlog default {\n\t\tformat apikey_redact\n\t}\n}\n{$SITE} {\n\tapikey\n\trespond ok\n}\n")
	stored := s.create(nil).Raw
	if r := s.get("/", keyLine(stored)); r.status != http.StatusOK { // it is in memory
		t.Fatalf("the stored key: %d", r.status)
	}
	wrong := &wrongKeys{T: t, stored: stored, conn: dial(t, s.URL), host: s.URL[len("http://"):]}
	defer wrong.conn.Close()
	wrong.answers = bufio.NewReader(wrong.conn)
	samples := times(500, 100_000)
	var shared, none []float64
	for range samples {
		// Which of the two comes first is random, as is what comes before.
		if rand.IntN(2) == 0 {
			shared, none = append(shared, wrong.time(20)), append(none, wrong.time(0))
		} else {
			none, shared = append(none, wrong.time(0)), append(shared, wrong.time(20))
		}
	}
	apart, welch := median(shared)-median(none), welchT(shared, none)
	t.Logf("%d samples each: the medians are %.2f µs apart, t is %.2f", samples, apart, welch)
	if isLong() && (math.Abs(apart) > 50 || math.Abs(welch) >= 4.5) {
		t.Errorf("a key that shares 20 characters with a stored one takes another time: %.2f µs, t %.2f", apart, welch)
	}
}

// wrongKeys sends wrong keys over one connection.
type wrongKeys struct {
	*testing.T
	stored, host string
	conn         io.ReadWriteCloser
	answers      *bufio.Reader
	answer       string // the one that all get
}

// time returns the microseconds that the answer takes to a wrong key that shares so many
// characters of its random part with the stored one.
func (w *wrongKeys) time(shared int) float64 {
	const prefix = len("ak_")
	b := []byte(w.stored[:len(w.stored)-6])
	for i := prefix + shared; i < len(b); i++ {
		for was := b[i]; b[i] == was; {
			b[i] = base62[rand.IntN(len(base62))]
		}
	}
	text := fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\n\r\n", w.host, withChecksum(string(b)))
	began := time.Now()
	if _, err := io.WriteString(w.conn, text); err != nil {
		w.Fatal(err)
	}
	resp, err := http.ReadResponse(w.answers, nil)
	if err != nil {
		w.Fatal(err)
	}
	took := time.Since(began)
	r, err := read(resp)
	if err != nil {
		w.Fatal(err)
	}
	r.header.Del("Date")
	got := fmt.Sprint(r.status, r.header, r.body)
	if w.answer == "" {
		w.answer = got
	}
	if got != w.answer || r.code != "INVALID_API_KEY" {
		w.Fatalf("%d shared:\n%s\nelse\n%s", shared, got, w.answer)
	}
	return float64(took.Nanoseconds()) / 1000
}

func median(of []float64) float64 { return slices.Sorted(slices.Values(of))[len(of)/2] }

// welchT compares two means (Welch's t-test). Samples in which the machine did something
// else would hide a difference: each series is cut at the 95th percentile of both.
func welchT(a, b []float64) float64 {
	most := slices.Sorted(slices.Values(slices.Concat(a, b)))[(len(a)+len(b))*95/100]
	meanA, errorA := meanAndError(a, most)
	meanB, errorB := meanAndError(b, most)
	return (meanA - meanB) / math.Sqrt(errorA+errorB)
}

// meanAndError returns the mean of the samples up to most, and its squared standard error.
func meanAndError(of []float64, most float64) (mean, squared float64) {
	n := 0.0
	for _, v := range of {
		if v <= most {
			n++
			mean += v
		}
	}
	mean /= n
	for _, v := range of {
		if v <= most {
			squared += (v - mean) * (v - mean)
		}
	}
	return mean, squared / (n - 1) / n
}
