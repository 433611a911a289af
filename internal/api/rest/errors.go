package rest

import (
	"errors"
	"net/http"

	"github.com/caddy-apikey/caddy-apikey/internal/strictjson"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Error is the body of every answer that is an error.
type Error struct {
	Message string `json:"error"`
	Code    string `json:"code"`
}

// failure is an error with the answer that it becomes.
type failure struct {
	status int
	body   Error
	cause  error // for the log; nil where the caller is to blame
}

func (f *failure) Error() string { return f.body.Message }

func fail(status int, code, message string) *failure {
	return &failure{status: status, body: Error{message, code}}
}

var (
	errMethod    = fail(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "the method is not allowed here")
	errForeign   = fail(http.StatusForbidden, "CROSS_ORIGIN", "pages of another origin may not do this")
	errMediaType = fail(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "the Content-Type must be application/json")
)

// malformed is a request that no field is to blame for.
func malformed(message string) *failure {
	return fail(http.StatusBadRequest, "BAD_REQUEST", message)
}

// invalid is a request that a field is to blame for. The message must not hold
// what was sent.
func invalid(field, message string) *failure {
	return fail(http.StatusBadRequest, keyring.InvalidField, field+": "+message)
}

// failureOf translates an error of the keyring.
func failureOf(err error) *failure {
	var f *failure
	var bad *keyring.FieldError
	var beyond *keyring.BeyondError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &bad):
		return fail(http.StatusBadRequest, bad.Code, bad.Error())
	case errors.As(err, &beyond):
		return fail(http.StatusForbidden, keyring.Forbidden.Code(), beyond.Error())
	case errors.As(err, new(*strictjson.TooLargeError)):
		return fail(http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE", err.Error())
	case errors.Is(err, strictjson.ErrMediaType):
		return fail(errMediaType.status, errMediaType.body.Code, err.Error())
	case errors.Is(err, strictjson.ErrUnreadable), errors.Is(err, strictjson.ErrNoObject), errors.Is(err, strictjson.ErrInvalid):
		return malformed(err.Error())
	case errors.Is(err, errNoKey), errors.Is(err, store.ErrNotFound):
		return fail(http.StatusNotFound, "KEY_NOT_FOUND", errNoKey.Error())
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		f = fail(http.StatusServiceUnavailable, keyring.Unavailable.Code(), keyring.Unavailable.Title())
	default:
		f = fail(http.StatusInternalServerError, "INTERNAL", "the call failed: the server's log says why")
	}
	f.cause = err
	return f
}

// sentenceOf says for people why a caller is refused.
func sentenceOf(o keyring.Outcome) string {
	if o == keyring.Disabled {
		return "The API key, or its owner, is disabled."
	}
	return o.Title()
}
