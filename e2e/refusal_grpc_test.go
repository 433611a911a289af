package e2e

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

const grpcSites = `{
	log default {
		format apikey_redact
	}
	servers {
		protocols h1 h2c
	}
}

{$SITE} {
	@perm path /test.Perm/*
	apikey @perm nobody:has
	@broken path /test.Broken/*
	apikey @broken {
		cost {http.vars.none}
	}
	apikey
	reverse_proxy h2c://{$UPSTREAM}
}

http://errors.test:{$PORT} {
	apikey
	handle_errors 401 {
		respond "the page of the site"
	}
}
`

// withPort names the port of the site {$PORT}.
func withPort(s *server) { withEnv("PORT=" + port(s.t, strings.TrimPrefix(s.URL, "http://")))(s) }

// TestQ15_grpc calls a gRPC service behind a gate with a real client.
func TestQ15_grpc(t *testing.T) {
	full(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(new(emptypb.Empty)); err != nil {
			return err
		}
		return stream.SendMsg(new(emptypb.Empty))
	}))
	go up.Serve(ln) //nolint:errcheck // ends with Stop
	t.Cleanup(up.Stop)
	s := startGate(t, grpcSites, withEnv("UPSTREAM="+ln.Addr().String()), withPort)
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(s.URL, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })

	ok := s.create(nil)
	full := s.create(map[string]any{"rateLimitMax": 1, "rateLimitTimeWindow": 3_600_000})
	empty := s.create(map[string]any{"remaining": 0})
	off := s.create(map[string]any{"enabled": false})
	far := s.create(map[string]any{"allowedIps": []string{"192.0.2.1"}})
	s.get("/", "X-API-Key: "+full.Raw)
	for _, row := range []struct {
		method string
		keys   []string
		code   codes.Code
		text   string
		has    []string // headers of the answer
	}{
		{"/test.Echo/Do", []string{ok.Raw}, codes.OK, "", nil},
		{"/test.Echo/Do", []string{full.Raw}, codes.ResourceExhausted, "RATE_LIMITED", []string{"retry-after", "ratelimit", "ratelimit-policy"}},
		{"/test.Echo/Do", []string{empty.Raw}, codes.ResourceExhausted, "USAGE_EXCEEDED", []string{"ratelimit"}},
		{"/test.Echo/Do", nil, codes.Unauthenticated, "MISSING_API_KEY", []string{"www-authenticate"}},
		{"/test.Echo/Do", []string{"x"}, codes.Unauthenticated, "INVALID_API_KEY", []string{"www-authenticate"}},
		{"/test.Echo/Do", []string{off.Raw}, codes.Unauthenticated, "KEY_DISABLED", []string{"www-authenticate"}},
		{"/test.Echo/Do", []string{ok.Raw, off.Raw}, codes.InvalidArgument, "AMBIGUOUS_API_KEY", nil},
		{"/test.Perm/Do", []string{ok.Raw}, codes.PermissionDenied, "INSUFFICIENT_PERMISSIONS", nil},
		{"/test.Broken/Do", []string{ok.Raw}, codes.Internal, "INTERNAL", nil},
		{"/test.Early/Do", []string{far.Raw}, codes.Unavailable, "TOO_EARLY", nil},
		{"/test.Echo/Do", []string{far.Raw}, codes.PermissionDenied, "IP_NOT_ALLOWED", nil},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		for _, raw := range row.keys {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-api-key", raw)
		}
		if row.method == "/test.Early/Do" {
			ctx = metadata.AppendToOutgoingContext(ctx, "early-data", "1")
		}
		var header, trailer metadata.MD
		err := conn.Invoke(ctx, row.method, new(emptypb.Empty), new(emptypb.Empty), grpc.Header(&header), grpc.Trailer(&trailer))
		cancel()
		if got := status.Convert(err); got.Code() != row.code || got.Message() != row.text {
			t.Errorf("%s %.8q: got %v %q, want %v %q", row.method, row.keys, got.Code(), got.Message(), row.code, row.text)
		}
		for _, name := range row.has {
			if len(header[name])+len(trailer[name]) == 0 {
				t.Errorf("%s %.8q: no %s in %v, %v", row.method, row.keys, name, header, trailer)
			}
		}
	}
	if st := s.state(full.ID); st.RequestCount != 1 {
		t.Errorf("refusals were counted: %+v", st)
	}
}

// TestQ15_mediaTypes: which requests are refused as gRPC, and how the answer looks on
// the wire.
func TestQ15_mediaTypes(t *testing.T) {
	full(t)
	s := startGate(t, grpcSites, withEnv("UPSTREAM=127.0.0.1:9"), withPort)
	for _, row := range []struct {
		method, media string
		grpc          string // the media type of the answer; empty: not gRPC
	}{
		{"POST", "application/grpc", "application/grpc"},
		{"POST", "application/grpc+proto", "application/grpc+proto"},
		{"POST", "Application/gRPC+JSON; charset=utf-8", "application/grpc+json"},
		{"POST", "application/grpc-web", "application/grpc-web"},
		{"POST", "application/grpc-web+proto", "application/grpc-web+proto"},
		{"POST", "application/grpc-web-text+proto", "application/grpc-web-text+proto"},
		{"POST", "application/grpcx", ""},
		{"POST", "application/grpc-text", ""},
		{"POST", "application/grpc+a b", ""},
		{"POST", "application/json", ""},
		{"POST", "text/plain, application/grpc", ""},
		// A proxy that asks whether the request of a client may pass, with its headers.
		{"GET", "application/grpc", ""},
		{"HEAD", "application/grpc", ""},
	} {
		m := message{method: row.method, target: "/", fields: []field{{"Content-Type", row.media}}}
		r := m.plain(t, s.URL)
		name := row.method + " " + row.media
		if row.grpc == "" {
			if r.status != 401 || r.header.Get("Grpc-Status") != "" || r.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %d %v", name, r.status, r.header)
			}
			continue
		}
		h := r.header
		if r.status != 200 || r.body != "" || h.Get("Content-Type") != row.grpc || h.Get("Grpc-Status") != "16" || h.Get("Grpc-Message") != "MISSING_API_KEY" ||
			h.Get("WWW-Authenticate") == "" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v %q", name, r.status, h, r.body)
		}
	}
	// An error route that matches goes first.
	m := message{method: "POST", target: "/", noHost: true, fields: []field{
		{"Host", "errors.test:" + port(t, strings.TrimPrefix(s.URL, "http://"))}, {"Content-Type", "application/grpc"},
	}}
	if r := m.plain(t, s.URL); r.status != 401 || r.body != "the page of the site" || r.header.Get("Grpc-Status") != "" {
		t.Errorf("an error route: %+v", r)
	}
}
