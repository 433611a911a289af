package api

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Codes of errors that the keyring does not know.
const (
	CodeBadRequest       = "BAD_REQUEST" // no field is to blame
	CodeNotFound         = "NOT_FOUND"   // no such path
	CodeKeyNotFound      = "KEY_NOT_FOUND"
	CodeOwnerNotFound    = "OWNER_NOT_FOUND"
	CodeMethodNotAllowed = "METHOD_NOT_ALLOWED"
	CodeKeyExists        = "KEY_EXISTS"
	CodeKeyLimit         = "KEY_LIMIT_REACHED"
	CodeTooLarge         = "PAYLOAD_TOO_LARGE"
	CodeTimeout          = "REQUEST_TIMEOUT"
	CodeMediaType        = "UNSUPPORTED_MEDIA_TYPE"
	CodeCrossOrigin      = "CROSS_ORIGIN"
	CodeInternal         = "INTERNAL"
	CodeNotImplemented   = "NOT_IMPLEMENTED"
)

// Error is an error as it is answered. Handlers may return any error: those of the
// keyring and the store, a *Refusal and a *keyring.FieldError are translated.
type Error struct {
	Status  int
	Code    string // for programs
	Message string // for people; it repeats no value that was sent
	Field   string // the field that is to blame, if one is
	// Wait is how many milliseconds later a repetition may succeed; 0 is not known.
	Wait int64
	// Cause is reported; nil where the caller is to blame.
	Cause error

	// Refused is the refusal of a caller that this is, or nil.
	Refused *Refusal

	allow []string // methods, for a 405
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.Cause }

// Refusal is why somebody may not make a call: what was decided about the key.
type Refusal struct {
	keyring.Decision
	// Challenges are the values of WWW-Authenticate for a 401.
	Challenges []string
	// By is who is refused, for the audit log. The zero Kind: nobody knows.
	By keyring.Actor
}

func (r *Refusal) Error() string { return r.Outcome.Title() }

// Answer returns the refusal as it is answered.
func (r *Refusal) Answer() *Error {
	o := r.Outcome
	e := &Error{Status: o.Status(), Code: o.Code(), Message: r.Detail(), Refused: r}
	if r.Waitable {
		e.Wait = max(1, r.Wait)
	}
	if o == keyring.RateLimited && len(r.Limits) > 0 && r.Limits[0].Name == keyring.SelfServiceLimit {
		e.Message = "The limit of calls that list, revoke and show usage is reached."
	}
	return e
}

// noRoute is a request that no route takes, where the path takes some methods.
func noRoute(allowed []string) *Error {
	if allowed == nil {
		return &Error{Status: http.StatusNotFound, Code: CodeNotFound, Message: "path not found"}
	}
	return &Error{Status: http.StatusMethodNotAllowed, Code: CodeMethodNotAllowed, Message: "the method is not allowed here", allow: allowed}
}

var (
	// ErrCrossOrigin refuses a browser's request for a page of another origin.
	ErrCrossOrigin = &Error{Status: http.StatusForbidden, Code: CodeCrossOrigin, Message: "cross-origin request not allowed"}
	// ErrMediaType refuses a body that does not say that it is JSON.
	ErrMediaType = &Error{Status: http.StatusUnsupportedMediaType, Code: CodeMediaType, Message: "the body must be JSON, and its Content-Type application/json"}
)

// BadRequest is a request that no field is to blame for.
func BadRequest(message string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: CodeBadRequest, Message: message}
}

// Invalid is a request that a field is to blame for. The message must not hold what
// was sent.
func Invalid(field, format string, args ...any) *keyring.FieldError {
	return &keyring.FieldError{Field: field, Code: keyring.InvalidField, Message: fmt.Sprintf(format, args...)}
}

// Unavailable is a call that the store, or the lack of a configuration, prevents.
func Unavailable(cause error) *Error {
	o := keyring.Unavailable
	return &Error{Status: o.Status(), Code: o.Code(), Message: o.Title(), Wait: 1000, Cause: cause}
}

// errorOf translates an error that a route returned. The result is the caller's to
// change.
func errorOf(err error, rt *Route) *Error {
	var (
		e       *Error
		refusal *Refusal
		field   *keyring.FieldError
		scope   *keyring.ScopeError
	)
	switch {
	case errors.As(err, &e):
		e := *e
		return &e
	case errors.As(err, &refusal):
		return refusal.Answer()
	case errors.As(err, &field):
		return &Error{Status: http.StatusBadRequest, Code: field.Code, Message: field.Error(), Field: field.Field}
	case errors.As(err, &scope):
		return &Error{Status: http.StatusForbidden, Code: keyring.Forbidden.Code(), Message: scope.Error(), Field: scope.Field}
	case errors.Is(err, store.ErrKeyLimit):
		return &Error{Status: http.StatusForbidden, Code: CodeKeyLimit, Message: "the owner has as many keys as are allowed"}
	case errors.Is(err, keyring.ErrTooFewCredits):
		return &Error{Status: http.StatusConflict, Code: keyring.UsageExceeded.Code(), Message: err.Error(), Field: "remainingDelta"}
	case errors.Is(err, store.ErrCursor):
		return errorOf(Invalid("cursor", "%v", store.ErrCursor), rt)
	case errors.Is(err, store.ErrNotFound) && rt.variable() == "userId":
		return &Error{Status: http.StatusNotFound, Code: CodeOwnerNotFound, Message: "owner not found"}
	case errors.Is(err, store.ErrNotFound):
		return &Error{Status: http.StatusNotFound, Code: CodeKeyNotFound, Message: "key not found"}
	case errors.Is(err, store.ErrExists) && rt.Conflict:
		return &Error{Status: http.StatusConflict, Code: CodeKeyExists, Message: "the generator created an existing key: try again"}
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		return Unavailable(err)
	default:
		return &Error{Status: http.StatusInternalServerError, Code: CodeInternal, Message: "internal error: see the server's log", Cause: err}
	}
}
