// Package e2e holds the black-box tests: they run Caddy with this plugin in
// processes of its own, and see of it what everybody sees, over HTTP, the admin
// endpoint, the command line, the log and the files. It exports nothing.
//
// A test starts a server with a Caddyfile, and uses it:
//
//	s := startCaddy(t, "{$SITE} {\n\tapikey\n\trespond ok\n}\n")
//	made := s.run("apikey", "create", "--owner", "alice")
//	http.Get(s.URL)
//
// The Caddyfile names the site {$SITE}. The admin endpoint needs no option: its
// address reaches the server and its commands in the environment. Ports and files
// are the server's own, and it ends with the test. All tests share one build of
// cmd/caddy, and one with the tag testclock, whose clock a test shifts
// (withTestClock, setClock).
//
// Three files help:
//   - harness_test.go: starts, reloads, stops and kills a server, runs commands.
//   - harness_gate_test.go: keys, an upstream that remembers what it has seen, and
//     requests over every version of HTTP (startGate).
//   - harness_life_test.go: what a server does with its files, descriptors and
//     memory, in its whole life (startLife).
//
// A test belongs here if it can be written without an unexported name of the
// plugin; wire types may come from internal/api. It waits for conditions
// (eventually, await), never for time to pass. What it needs from the system it
// asks for with tool, which skips it where that is missing, but never in CI.
package e2e
