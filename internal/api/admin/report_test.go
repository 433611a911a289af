package admin

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestReport: the report is answered as documented, and takes its parameters.
func TestReport(t *testing.T) {
	a := newAPI(t)
	if got := a.send("GET", "/apikey/report", ""); string(got.body) != `{"findings":[],"nextCursor":null}`+"\n" {
		t.Errorf("%s", got.body)
	}
	id, raw := a.make(`{"userId":"alice","permissions":["files:read"]}`)
	want := `{"findings":[{"rule":"no_expiry","keyId":"ID","userId":"alice","since":"2026-11-21T19:09:19.500Z","controls":["ASVS 13.3.4"]},` +
		`{"rule":"no_limit","keyId":"ID","userId":"alice","since":null,"controls":["ASVS 2.4.1","OWASP API4:2023"]}],"nextCursor":null}` + "\n"
	if got := a.send("GET", "/apikey/report", ""); string(got.body) != replaceID(want, id) {
		t.Errorf("%s", got.body)
	}
	a.sleep(time.Minute)
	for query, rules := range map[string]string{
		"?olderThan=60&idle=61": "no_expiry not_rotated no_limit",
		"?olderThan=61&idle=60": "no_expiry idle no_limit unused_permission",
		"?idle=0&rule=idle":     "idle",
		"?rule=in_grace":        "",
	} {
		var got []string
		for _, f := range a.send("GET", "/apikey/report"+query, "").want(t, 200)["findings"].([]any) {
			got = append(got, f.(map[string]any)["rule"].(string))
		}
		if !slices.Equal(got, strings.Fields(rules)) {
			t.Errorf("%s: %q, want %s", query, got, rules)
		}
	}
	answer := must(a.Report(t.Context(), Report{Idle: ptr(int64(0)), Rule: ptr("unused_permission")}))
	if f := answer.Value.Findings; len(f) != 1 || !slices.Equal(f[0].Permissions, []string{"files:read"}) || strings.Contains(string(answer.Raw), raw[3:13]) {
		t.Errorf("%s", answer.Raw)
	}
	for query, field := range map[string]string{
		"?rule=nosuch": "rule", "?olderThan=90d": "olderThan", "?idle=-1": "idle", "?limit=0": "limit", "?limit=501": "limit", "?cursor=x": "cursor", "?nosuch=1": "nosuch",
	} {
		a.send("GET", "/apikey/report"+query, "").refused(t, 400, "INVALID_FIELD", field)
	}
	// The document names the rules that there are.
	doc := string(must(a.OpenAPI(t.Context())))
	if list := `["` + strings.Join(ReportRules, `","`) + `"]`; strings.Count(doc, list) != 2 {
		t.Errorf("the document does not have %s twice", list)
	}
}
