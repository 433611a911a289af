package apikey

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Logs mask the places of a configuration from the time when its gates are provisioned
// until nothing can use it any more, which is after its Cleanup.
func TestQ43_MasksFollowTheConfiguration(t *testing.T) {
	holder := struct {
		Raw json.RawMessage `caddy:"namespace=caddy.logging.encoders inline_key=format"`
	}{json.RawMessage(`{"format":"apikey_redact","wrap":{"format":"json"}}`)}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	mod, err := ctx.LoadModule(&holder, "Raw")
	if err != nil {
		t.Fatal(err)
	}
	masked := func() bool {
		buf, err := mod.(zapcore.Encoder).EncodeEntry(zapcore.Entry{Message: "/?masked_late=canary"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer buf.Free()
		return !strings.Contains(buf.String(), "canary")
	}
	if masked() {
		t.Fatal("masked before there is a gate")
	}
	func() {
		config := caddy.Context{Context: t.Context()}
		app := &App{settings: new(keyring.Settings)}
		app.register(config, handler{sources: sources{query: "masked_late"}})
		if !masked() {
			t.Error("not masked once the gate is provisioned")
		}
		if err := app.Cleanup(); err != nil {
			t.Error(err)
		}
		runtime.GC()
		if !masked() {
			t.Error("not masked while a request of the configuration may be served")
		}
		runtime.KeepAlive(app)
	}()
	for deadline := time.Now().Add(time.Minute); masked(); runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatal("masked after the configuration is gone")
		}
	}
}
