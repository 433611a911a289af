package admin

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Codes of errors that keyring does not know.
const (
	codeBadRequest       = "BAD_REQUEST" // no field is to blame
	codeNotFound         = "NOT_FOUND"   // no such path
	codeKeyNotFound      = "KEY_NOT_FOUND"
	codeOwnerNotFound    = "OWNER_NOT_FOUND"
	codeMethodNotAllowed = "METHOD_NOT_ALLOWED"
	codeKeyExists        = "KEY_EXISTS"
	codeTooLarge         = "PAYLOAD_TOO_LARGE"
	codeMediaType        = "UNSUPPORTED_MEDIA_TYPE"
	codeInternal         = "INTERNAL"
)

// failure is an error with the answer that it becomes.
type failure struct {
	status int
	body   Error
	cause  error // for the log; nil where the caller is to blame
}

func (f *failure) Error() string { return f.body.Message }
func (f *failure) Unwrap() error { return f.cause }

func fail(status int, code, message string) *failure {
	return &failure{status: status, body: Error{Message: message, Code: code}}
}

// malformed is a request that no field is to blame for.
func malformed(message string) *failure {
	return fail(http.StatusBadRequest, codeBadRequest, message)
}

// invalid is a request that a field is to blame for. The message must not hold
// what was sent.
func invalid(field, format string, args ...any) *failure {
	return fieldFailure(&keyring.FieldError{Field: field, Code: keyring.InvalidField, Message: fmt.Sprintf(format, args...)})
}

func fieldFailure(e *keyring.FieldError) *failure {
	return &failure{status: http.StatusBadRequest, body: Error{Message: e.Error(), Code: e.Code, Field: e.Field}}
}

func unavailable(cause error) *failure {
	f := fail(http.StatusServiceUnavailable, keyring.Unavailable.Code(), cause.Error())
	f.cause = cause
	return f
}

// failureOf translates an error of the keyring. missing is the code where
// nothing was found.
func failureOf(err error, missing string) *failure {
	var f *failure
	var bad *keyring.FieldError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &bad):
		return fieldFailure(bad)
	case errors.Is(err, keyring.ErrTooFewCredits):
		f = fail(http.StatusConflict, keyring.UsageExceeded.Code(), err.Error())
		f.body.Field = "remainingDelta"
		return f
	case errors.Is(err, store.ErrCursor):
		return invalid("cursor", "%v", store.ErrCursor)
	case errors.Is(err, store.ErrNotFound) && missing == codeOwnerNotFound:
		return fail(http.StatusNotFound, missing, "there is no such owner")
	case errors.Is(err, store.ErrNotFound):
		return fail(http.StatusNotFound, missing, "there is no such key")
	case errors.Is(err, store.ErrExists):
		return fail(http.StatusConflict, codeKeyExists, "the generator made a key that exists already: try again")
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		return unavailable(err)
	default:
		f = fail(http.StatusInternalServerError, codeInternal, "the call failed: the server's log says why")
		f.cause = err
		return f
	}
}
