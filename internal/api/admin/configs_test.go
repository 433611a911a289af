package admin

import (
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// noted is a generator that is not that of this server.
type noted struct{ key.Random }

// TestConfigs: the answer says how raw keys look, and whether some have no checksum.
func TestConfigs(t *testing.T) {
	a := newAPI(t)
	if got := a.send("GET", "/apikey/configs", ""); string(got.body) != `{"configs":[{"id":"default","prefix":"ak_","length":64,"checksum":true}],"plainKeys":false}`+"\n" {
		t.Errorf("%s", got.body)
	}
	a = newAPI(t, func(r *keyring.Rules) { r.Prefix, r.Checksum, r.Generator = "", false, noted{} })
	a.make(`{"userId":"alice"}`)
	if got := must(a.Configs(t.Context())); string(got.Raw) != `{"configs":[{"id":"default","prefix":"","length":null,"checksum":false}],"plainKeys":true}`+"\n" {
		t.Errorf("%s", got.Raw)
	}
}
