package keyring

import (
	"net/http"
	"regexp"
	"slices"
	"testing"
)

// TestOutcomes: each outcome has a complete row, and no two have the same code.
func TestOutcomes(t *testing.T) {
	codes := map[string]bool{}
	grpc := map[int][]uint32{200: {0}, 400: {3}, 401: {16}, 403: {7}, 425: {14}, 429: {8}, 503: {14}} // contract of the statuses
	for o := Allowed; o < NumOutcomes; o++ {
		row := outcomes[o]
		if o != Allowed && !regexp.MustCompile(`^[A-Z][A-Z_]+$`).MatchString(row.code) || codes[row.code] {
			t.Errorf("outcome %d has the code %q", o, row.code)
		}
		codes[row.code] = true
		if len(row.title) < 10 || http.StatusText(row.status) == "" {
			t.Errorf("%s: title %q, status %d", row.code, row.title, row.status)
		}
		if !slices.Contains(grpc[row.status], row.grpc) {
			t.Errorf("%s: gRPC status %d with %d", row.code, row.grpc, row.status)
		}
		// Only a request without any credential gets a challenge without an error.
		if (row.challenge != "") != (row.status == 401 && o != Missing) {
			t.Errorf("%s: challenge %q with %d", row.code, row.challenge, row.status)
		}
		if (row.statistic == limited) != (row.status == 429) || (row.statistic == allowed) != (o == Allowed) {
			t.Errorf("%s is counted as %d", row.code, row.statistic)
		}
	}
}
