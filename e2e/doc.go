// Package e2e holds the black-box tests. They run Caddy with this plugin in
// processes of its own and use it as its users do: over HTTP, over the admin
// endpoint and on the command line. They also read its log and its files. The
// package exports nothing.
//
// A test starts a server with a Caddyfile and uses it:
//
//	func TestGreeting(t *testing.T) {
//		full(t)
//		s := startCaddy(t, "{$SITE} {\n\tapikey\n\trespond ok\n}\n")
//		made := s.run("apikey", "create", "--owner", "alice")
//		http.Get(s.URL)
//	}
//
// The Caddyfile names the site {$SITE}. The admin endpoint needs no option: its
// address reaches the server and its commands in the environment. Ports and files
// belong to the server, which ends with the test. All tests share one build of
// cmd/caddy, and one with the tag testclock, whose clock a test shifts
// (withTestClock, setClock).
//
// A test first calls full or quick, which lets it run beside others. With -short
// only those tests run that call quick.
//
// The harness has five files:
//   - harness_run_test.go decides which tests run and reports progress.
//   - harness_test.go starts, reloads, stops and kills a server, and runs commands.
//   - harness_gate_test.go makes keys, serves an upstream that records requests, and
//     sends requests over every version of HTTP (startGate).
//   - harness_http2_test.go writes HTTP/2 frames that the client of net/http refuses to.
//   - harness_life_test.go looks at the files, descriptors and memory of a server
//     over its whole life (startLife).
//
// A test belongs here if it needs no unexported name of the plugin. It may use the
// wire types in internal/api. It waits for conditions (eventually, await), never for
// time to pass. What it needs from the system it requests with tool: where that is
// missing, the test is skipped, but in CI it fails.
package e2e
