package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/maypok86/otter/v2"
	_ "github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"
	_ "golang.org/x/sync/singleflight"
)

func main() { caddycmd.Main() }
