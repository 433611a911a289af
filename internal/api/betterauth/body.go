package betterauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/strictjson"
)

// readBody reads the JSON of a request, and nil where there is none. A body that
// does not say what it is counts as none.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	types := r.Header["Content-Type"]
	if t := strings.Join(types, ", "); types != nil {
		if media, _, _ := strings.Cut(t, ";"); !strings.EqualFold(strings.TrimSpace(media), "application/json") {
			return nil, mediaType(t)
		}
	}
	body, err := strictjson.ReadAll(w, r, strictjson.MaxBody)
	switch {
	case errors.As(err, new(*strictjson.TooLargeError)):
		return nil, errTooLarge
	case err != nil:
		return nil, errBody
	}
	if types == nil || len(body) == 0 {
		return nil, nil
	}
	// As JavaScript reads it: what is no UTF-8 is replaced.
	if body = bytes.ToValidUTF8(body, []byte("\uFFFD")); !json.Valid(body) {
		return nil, errJSON
	}
	return body, nil
}

func mediaType(sent string) *failure {
	return fail(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE",
		fmt.Sprintf("Content-Type %q is not allowed. Allowed types: application/json", sent))
}
