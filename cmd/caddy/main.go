// Command caddy is Caddy with this plugin, for "go run" and for tests. Builds
// with other plugins are made with xcaddy.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-apikey/caddy-apikey"
)

func main() { caddycmd.Main() }
