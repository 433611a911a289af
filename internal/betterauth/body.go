package betterauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxBody is the longest body that is read. Its largest part, metadata, may be 16 KiB.
const maxBody = 64 << 10

// readBody reads the JSON of a request, and nil where there is none. A body that
// does not say what it is counts as none.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	types := r.Header["Content-Type"]
	if t := strings.Join(types, ", "); types != nil {
		if media, _, _ := strings.Cut(t, ";"); !strings.EqualFold(strings.TrimSpace(media), "application/json") {
			return nil, mediaType(t)
		}
	}
	if r.ContentLength > maxBody {
		return nil, errTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			return nil, errTooLarge
		}
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
