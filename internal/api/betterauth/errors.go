package betterauth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

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

func fail(status int, code, message string) *api.Error {
	return &api.Error{Status: status, Code: code, Message: message}
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
	errServerOnly   = fail(http.StatusBadRequest, "SERVER_ONLY_PROPERTY", "The property you're trying to set can only be set from the server auth instance only.")
	errNoValues     = fail(http.StatusBadRequest, keyring.NoValuesToUpdate, "No values to update.")
	errNotFound     = fail(http.StatusNotFound, api.CodeKeyNotFound, "")
	errAdminKey     = fail(http.StatusForbidden, codeForbidden, "Only a key with the permission admin may do this.")
	errJSON         = fail(http.StatusBadRequest, api.CodeBadRequest, "Invalid JSON in request body")
	errNoPath       = fail(http.StatusNotFound, api.CodeNotFound, "")

	errOrganizationID = fail(http.StatusBadRequest, "ORGANIZATION_ID_REQUIRED", "Organization ID is required for organization-owned API keys.")
	errNoMember       = fail(http.StatusForbidden, "USER_NOT_MEMBER_OF_ORGANIZATION", "You are not a member of the organization that owns this API key.")
	errRole           = fail(http.StatusForbidden, "INSUFFICIENT_API_KEY_PERMISSIONS", "You do not have permission to perform this action on organization API keys.")
)

// texts are the sentences of the plugin, by code.
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
	api.CodeKeyNotFound:           "API Key not found",
	api.CodeTooLarge:              fmt.Sprintf("The request body must be at most %d bytes", api.MaxBody),
}

// errorOf words an error as the plugin does. A path or method that the plugin does not
// have is a 404 without a body.
func errorOf(c *api.Call, e *api.Error) any {
	switch {
	case e.Code == api.CodeMethodNotAllowed || e.Code == api.CodeNotFound:
		e.Status = http.StatusNotFound
		return nil
	case e.Refused != nil && e.Refused.Outcome == keyring.Disabled && e.Refused.Key() == nil: // a person, whose owner is disabled
		return errorBody{Message: "User is banned", Code: "USER_BANNED"}
	case e.Code == api.CodeInternal:
		return errorBody{Message: "Internal error: see the server's log.", Code: "INTERNAL_SERVER_ERROR"}
	case e.Code == api.CodeCrossOrigin:
		return foreignOrigin(c.Request)
	case e.Code == api.CodeMediaType:
		sent := strings.Join(c.Header["Content-Type"], ", ")
		return errorBody{Message: fmt.Sprintf("Content-Type %q is not allowed. Allowed types: application/json", sent), Code: e.Code}
	}
	if text, ok := texts[e.Code]; ok {
		e.Message = text
	} else if e.Field != "" && e.Status == http.StatusBadRequest {
		return errorBody{Message: fmt.Sprintf("[body.%s] %s", e.Field, strings.TrimPrefix(e.Message, e.Field+": ")), Code: codeValidation}
	}
	b := errorBody{Message: e.Message, Code: e.Code}
	if e.Status == http.StatusTooManyRequests && e.Wait > 0 {
		b.Details = &details{e.Wait}
	}
	return b
}

// foreignOrigin refuses a browser's request that a page of another origin made.
func foreignOrigin(r *http.Request) errorBody {
	if origin := r.Header.Get("Origin"); origin == "" || origin == "null" {
		return errorBody{Message: "Missing or null Origin", Code: "MISSING_OR_NULL_ORIGIN"}
	}
	return errorBody{Message: "Invalid origin", Code: "INVALID_ORIGIN"}
}

// refused words the refusal of a key that somebody asks about.
func refused(c *api.Call, d keyring.Decision) *errorBody {
	b, _ := errorOf(c, (&api.Refusal{Decision: d}).Answer()).(errorBody)
	return &b
}

// body checks the JSON of a request. A body that does not say what it is counts as
// none.
func body(r *http.Request, b []byte) ([]byte, error) {
	types := r.Header["Content-Type"]
	if types != nil {
		if media, _, _ := strings.Cut(strings.Join(types, ", "), ";"); !strings.EqualFold(strings.TrimSpace(media), "application/json") {
			return nil, api.ErrMediaType
		}
	}
	if types == nil || len(b) == 0 {
		return nil, nil
	}
	// As JavaScript reads it: what is no UTF-8 is replaced.
	if b = bytes.ToValidUTF8(b, []byte("\uFFFD")); !json.Valid(b) {
		return nil, errJSON
	}
	return b, nil
}
