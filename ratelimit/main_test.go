package ratelimit

import (
	"flag"
	"os"
	"testing"
)

// TestMain makes property tests longer than rapid's defaults, so that a sliding
// window's log fills up. Flags still decide.
func TestMain(m *testing.M) {
	flag.Lookup("rapid.checks").Value.Set("200")
	flag.Lookup("rapid.steps").Value.Set("150")
	flag.Parse()
	os.Exit(m.Run())
}
