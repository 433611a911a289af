package apikey

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// grpcInternal is the gRPC status INTERNAL (grpc/grpc, doc/statuscodes.md).
const grpcInternal = 13

// grpcType returns the media type of a gRPC or gRPC-Web request, such as
// application/grpc+proto, or an empty string for every other request. Such requests
// are always a POST. Who asks a gate whether a request may pass, as forward_auth
// does, asks with GET but passes on the client's Content-Type, and must not get the
// status 200 of a gRPC refusal.
func grpcType(r *http.Request) string {
	types := r.Header["Content-Type"]
	if r.Method != http.MethodPost || len(types) != 1 {
		return ""
	}
	media, _, _ := strings.Cut(types[0], ";")
	media = strings.ToLower(textproto.TrimString(media))
	codec, ok := strings.CutPrefix(media, "application/grpc")
	if !ok {
		return ""
	}
	if web, ok := strings.CutPrefix(codec, "-web"); ok {
		codec = strings.TrimPrefix(web, "-text")
	}
	if codec != "" && (codec[0] != '+' || strings.Trim(codec, "+-._abcdefghijklmnopqrstuvwxyz0123456789") != "") {
		return ""
	}
	return media
}

// refuseGRPC answers without a body. A gRPC client reads the status from the headers,
// and takes the status of HTTP and a body for failures of a proxy.
func refuseGRPC(w http.ResponseWriter, media string, status uint32, code string) {
	h := w.Header()
	h["Content-Type"] = []string{media}
	h["Grpc-Status"] = []string{strconv.FormatUint(uint64(status), 10)}
	h["Grpc-Message"] = []string{code}
	w.WriteHeader(http.StatusOK)
}
