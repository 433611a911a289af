package redact

import (
	"testing"

	"go.uber.org/goleak"
)

// Caddy's log files leave a goroutine each behind, which ends with the process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/DeRuina/timberjack.(*Logger).millRun"))
}
