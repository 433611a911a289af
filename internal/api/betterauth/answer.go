package betterauth

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/caddy-apikey/caddy-apikey/internal/strictjson"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// failure is an error with the answer that it becomes.
type failure struct {
	status int
	body   errorBody
	cause  error // for the log; nil where the caller is to blame
}

// errorBody is the body of an answer that is an error.
type errorBody struct {
	Message string   `json:"message"`
	Code    string   `json:"code"`
	Details *details `json:"details,omitempty"`
}

// details say when to try again.
type details struct {
	TryAgainIn int64 `json:"tryAgainIn"` // milliseconds
}

func (f *failure) Error() string { return f.body.Message }
func (f *failure) Unwrap() error { return f.cause }

func fail(status int, code, message string) *failure {
	return &failure{status: status, body: errorBody{Message: message, Code: code}}
}

const (
	codeValidation = "VALIDATION_ERROR"
	codeForbidden  = "INSUFFICIENT_PERMISSIONS"
)

// Refusals that the routes themselves decide about.
var (
	errSession      = fail(http.StatusUnauthorized, "UNAUTHORIZED_SESSION", "Unauthorized or invalid session")
	errUnauthorized = fail(http.StatusUnauthorized, "UNAUTHORIZED", "Unauthorized")
	errReference    = fail(http.StatusUnauthorized, "INVALID_REFERENCE_ID_FROM_API_KEY", "The reference id from the API key is invalid.")
	errBanned       = fail(http.StatusUnauthorized, "USER_BANNED", "User is banned")
	errServerOnly   = fail(http.StatusBadRequest, "SERVER_ONLY_PROPERTY", "The property you're trying to set can only be set from the server auth instance only.")
	errNoValues     = fail(http.StatusBadRequest, keyring.NoValuesToUpdate, "No values to update.")
	errNotFound     = fail(http.StatusNotFound, "KEY_NOT_FOUND", "API Key not found")
	errAdminKey     = fail(http.StatusForbidden, codeForbidden, "Only a key with the permission admin may do this.")

	errOrganizationID = fail(http.StatusBadRequest, "ORGANIZATION_ID_REQUIRED", "Organization ID is required for organization-owned API keys.")
	errNoMember       = fail(http.StatusForbidden, "USER_NOT_MEMBER_OF_ORGANIZATION", "You are not a member of the organization that owns this API key.")
	errRole           = fail(http.StatusForbidden, "INSUFFICIENT_API_KEY_PERMISSIONS", "You do not have permission to perform this action on organization API keys.")

	errJSON     = fail(http.StatusBadRequest, "BAD_REQUEST", "Invalid JSON in request body")
	errBody     = fail(http.StatusBadRequest, "BAD_REQUEST", "The request body could not be read")
	errTooLarge = fail(http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE", fmt.Sprintf("The request body must be at most %d bytes", strictjson.MaxBody))
)

// foreignOrigin refuses a browser's request that a page of another origin made.
func foreignOrigin(r *http.Request) *failure {
	if origin := r.Header.Get("Origin"); origin == "" || origin == "null" {
		return fail(http.StatusForbidden, "MISSING_OR_NULL_ORIGIN", "Missing or null Origin")
	}
	return fail(http.StatusForbidden, "INVALID_ORIGIN", "Invalid origin")
}

// texts are the sentences of the plugin for what the keyring refuses.
var texts = map[string]string{
	keyring.Invalid.Code():        "Invalid API key.",
	keyring.Disabled.Code():       "API Key is disabled",
	keyring.Expired.Code():        "API Key has expired",
	keyring.RateLimited.Code():    "Rate limit exceeded.",
	keyring.UsageExceeded.Code():  "API Key has reached its usage limit",
	keyring.InvalidNameLength:     "The name length is either too large or too small.",
	keyring.NameRequired:          "API Key name is required.",
	keyring.InvalidPrefixLength:   "The prefix length is either too large or too small.",
	keyring.ExpiresInTooSmall:     "The expiresIn is smaller than the predefined minimum value.",
	keyring.ExpiresInTooLarge:     "The expiresIn is larger than the predefined maximum value.",
	keyring.KeyDisabledExpiration: "Custom key expiration values are disabled.",
	keyring.MetadataDisabled:      "Metadata is disabled.",
	keyring.InvalidMetadataType:   "metadata must be an object or undefined",
}

// refused translates the refusal of a key.
func refused(d *keyring.Decision) *failure {
	f := fail(d.Outcome.Status(), d.Outcome.Code(), d.Outcome.Title())
	if text, ok := texts[f.body.Code]; ok {
		f.body.Message = text
	}
	if d.Waitable && d.Outcome.Status() == http.StatusTooManyRequests {
		f.body.Details = &details{max(1, d.Wait)}
	}
	return f
}

// failureOf translates an error.
func failureOf(err error) *failure {
	var (
		f      *failure
		bad    *keyring.FieldError
		beyond *keyring.BeyondError
	)
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &bad):
		if text, ok := texts[bad.Code]; ok {
			return fail(http.StatusBadRequest, bad.Code, text)
		}
		return fail(http.StatusBadRequest, codeValidation, fmt.Sprintf("[body.%s] %s", bad.Field, bad.Message))
	case errors.As(err, &beyond):
		return fail(http.StatusForbidden, codeForbidden, beyond.Error())
	case errors.Is(err, store.ErrNotFound):
		return errNotFound
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		f = refused(&keyring.Decision{Outcome: keyring.Unavailable})
	default:
		f = fail(http.StatusInternalServerError, "INTERNAL_SERVER_ERROR", "The call failed: the server's log says why.")
	}
	f.cause = err
	return f
}

// fail answers with an error.
func (c *call) fail(w http.ResponseWriter, err error) {
	f := failureOf(err)
	if f.cause != nil && c.Context().Err() == nil { // what a caller who left has cancelled is no failure
		c.Report(fmt.Errorf("%s: %w", c.URL.Path, f.cause))
	}
	if c.caller != nil {
		c.caller.Refused(f.status)
	}
	if f.status == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", "1")
	}
	c.write(w, f.status, f.body)
}

// write sends JSON. The challenge that was noted for a caller without a key belongs
// to a 401 only.
func (h *Handler) write(w http.ResponseWriter, status int, body any) {
	b, err := strictjson.Marshal(body)
	if err != nil {
		h.Report(fmt.Errorf("writing an answer: %w", err))
		status, b = http.StatusInternalServerError, []byte(`{"message":"The answer cannot be written.","code":"INTERNAL_SERVER_ERROR"}`)
	}
	header := w.Header()
	if status != http.StatusUnauthorized {
		header.Del("WWW-Authenticate")
	} else if header.Get("WWW-Authenticate") == "" {
		header.Set("WWW-Authenticate", "Bearer")
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(b)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(b) // who has left needs no answer
}
