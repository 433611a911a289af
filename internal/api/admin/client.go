package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

// Client calls the admin API.
type Client struct {
	// HTTP does the requests. Default: http.DefaultClient.
	HTTP *http.Client
	// Base is the admin endpoint, such as "http://localhost:2019".
	Base string
	// Origin is sent along where it is not empty: Caddy checks it on some endpoints.
	Origin string
	// Name is the address as messages show it.
	Name string
	// Actor is who makes the calls, for the audit log; empty: nobody says.
	Actor string
}

// Answer is an answer with the JSON that it was read from.
type Answer[T any] struct {
	Value T
	Raw   json.RawMessage
}

// APIError is an answer that is an error.
type APIError struct {
	Status  int
	Code    string // empty where Caddy itself answered
	Field   string // empty where none is to blame
	Message string
	Raw     json.RawMessage // the body; nil where it is not an error of an API
	Text    string          // the first bytes of the body, where Raw is nil
	Server  string          // the header Server
}

func (e *APIError) Error() string { return e.Message }

// maxAnswer bounds what is read: 500 keys, each with 16 KiB of metadata, are half of it.
const maxAnswer = 32 << 20

// CreateKey makes a key.
func (c *Client) CreateKey(ctx context.Context, in CreateKey) (Answer[IssuedKey], error) {
	return send[IssuedKey](ctx, c, http.MethodPost, "/apikey/keys", in)
}

// ListKeys returns a page of keys.
func (c *Client) ListKeys(ctx context.Context, in ListKeys) (Answer[KeyList], error) {
	return send[KeyList](ctx, c, http.MethodGet, "/apikey/keys"+queryOf(in), nil)
}

// Key returns a key.
func (c *Client) Key(ctx context.Context, id string) (Answer[Key], error) {
	return send[Key](ctx, c, http.MethodGet, "/apikey/keys/"+segment(id), nil)
}

// PatchKey changes a key.
func (c *Client) PatchKey(ctx context.Context, id string, in PatchKey) (Answer[Key], error) {
	return send[Key](ctx, c, http.MethodPatch, "/apikey/keys/"+segment(id), in)
}

// DeleteKey removes a key.
func (c *Client) DeleteKey(ctx context.Context, id string) error {
	_, err := send[struct{}](ctx, c, http.MethodDelete, "/apikey/keys/"+segment(id), nil)
	return err
}

// RotateKey gives a key a new raw key.
func (c *Client) RotateKey(ctx context.Context, id string, in RotateKey) (Answer[IssuedKey], error) {
	return send[IssuedKey](ctx, c, http.MethodPost, "/apikey/keys/"+segment(id)+"/rotate", in)
}

// EndGrace ends all replaced raw keys of a key.
func (c *Client) EndGrace(ctx context.Context, id string) (Answer[Key], error) {
	return send[Key](ctx, c, http.MethodPost, "/apikey/keys/"+segment(id)+"/end-grace", nil)
}

// DeleteExpired removes every key whose time is over.
func (c *Client) DeleteExpired(ctx context.Context) (Answer[Deleted], error) {
	return send[Deleted](ctx, c, http.MethodPost, "/apikey/keys/delete-expired", nil)
}

// ImportKeys imports keys and owners.
func (c *Client) ImportKeys(ctx context.Context, in ImportKeys) (Answer[Imported], error) {
	return send[Imported](ctx, c, http.MethodPost, "/apikey/keys/import", in)
}

// ExportKeys returns an export, which the caller reads and closes. One that broke
// off ends with another error than io.EOF.
func (c *Client) ExportKeys(ctx context.Context) (io.ReadCloser, error) {
	resp, err := c.download(ctx, "/apikey/keys/export", api.StreamType)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Backup returns a backup, which the caller reads and closes, and its size, which is -1
// where a server in between has dropped it. One that broke off ends with another error
// than io.EOF.
func (c *Client) Backup(ctx context.Context) (b io.ReadCloser, size int64, err error) {
	resp, err := c.download(ctx, "/apikey/backup", BackupType)
	if err != nil {
		return nil, 0, err
	}
	return resp.Body, resp.ContentLength, nil
}

// download calls for an answer of a type, whose body it does not read.
func (c *Client) download(ctx context.Context, path, contentType string) (*http.Response, error) {
	resp, err := c.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 && resp.Header.Get("Content-Type") == contentType {
		return resp, nil
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return nil, apiError(resp, raw)
}

// Verify asks whether a raw key is valid. An invalid one is no error.
func (c *Client) Verify(ctx context.Context, in VerifyKey) (Answer[Verification], error) {
	return send[Verification](ctx, c, http.MethodPost, "/apikey/verify", in)
}

// ListOwners returns a page of owners.
func (c *Client) ListOwners(ctx context.Context, in ListOwners) (Answer[OwnerList], error) {
	return send[OwnerList](ctx, c, http.MethodGet, "/apikey/owners"+queryOf(in), nil)
}

// Owner returns an owner.
func (c *Client) Owner(ctx context.Context, userID string) (Answer[Owner], error) {
	return send[Owner](ctx, c, http.MethodGet, "/apikey/owners/"+segment(userID), nil)
}

// PutOwner makes or changes an owner.
func (c *Client) PutOwner(ctx context.Context, userID string, in PutOwner) (Answer[Owner], error) {
	return send[Owner](ctx, c, http.MethodPut, "/apikey/owners/"+segment(userID), in)
}

// DeleteOwner removes an owner and all its keys.
func (c *Client) DeleteOwner(ctx context.Context, userID string) error {
	_, err := send[struct{}](ctx, c, http.MethodDelete, "/apikey/owners/"+segment(userID), nil)
	return err
}

// KeyUsage returns what a key has used.
func (c *Client) KeyUsage(ctx context.Context, id string, in UsageQuery) (Answer[Usage], error) {
	return send[Usage](ctx, c, http.MethodGet, "/apikey/keys/"+segment(id)+"/usage"+queryOf(in), nil)
}

// OwnerUsage returns what the keys of an owner have used.
func (c *Client) OwnerUsage(ctx context.Context, userID string, in UsageQuery) (Answer[Usage], error) {
	return send[Usage](ctx, c, http.MethodGet, "/apikey/owners/"+segment(userID)+"/usage"+queryOf(in), nil)
}

// Audit returns a page of the audit log.
func (c *Client) Audit(ctx context.Context, in ListAudit) (Answer[AuditLog], error) {
	return send[AuditLog](ctx, c, http.MethodGet, "/apikey/audit"+queryOf(in), nil)
}

// Report returns a page of findings about keys.
func (c *Client) Report(ctx context.Context, in Report) (Answer[Findings], error) {
	return send[Findings](ctx, c, http.MethodGet, "/apikey/report"+queryOf(in), nil)
}

// Deliveries returns a page of the events that webhooks have not taken.
func (c *Client) Deliveries(ctx context.Context, in ListDeliveries) (Answer[DeliveryList], error) {
	return send[DeliveryList](ctx, c, http.MethodGet, "/apikey/webhooks"+queryOf(in), nil)
}

// RetryDelivery has an event sent to its webhook again.
func (c *Client) RetryDelivery(ctx context.Context, id string) (Answer[Delivery], error) {
	return send[Delivery](ctx, c, http.MethodPost, "/apikey/webhooks/"+segment(id)+"/retry", nil)
}

// Tiers returns the configured tiers.
func (c *Client) Tiers(ctx context.Context) (Answer[TierList], error) {
	return send[TierList](ctx, c, http.MethodGet, "/apikey/tiers", nil)
}

// Configs returns the configurations, and how their raw keys look.
func (c *Client) Configs(ctx context.Context) (Answer[ConfigList], error) {
	return send[ConfigList](ctx, c, http.MethodGet, "/apikey/configs", nil)
}

// Health asks the store.
func (c *Client) Health(ctx context.Context) (Answer[Health], error) {
	return send[Health](ctx, c, http.MethodGet, "/apikey/health", nil)
}

// OpenAPI returns the OpenAPI document.
func (c *Client) OpenAPI(ctx context.Context) (json.RawMessage, error) {
	a, err := send[json.RawMessage](ctx, c, http.MethodGet, "/apikey/openapi.json", nil)
	return a.Raw, err
}

func send[T any](ctx context.Context, c *Client, method, path string, in any) (a Answer[T], err error) {
	if a.Raw, err = c.do(ctx, method, path, in); err != nil || len(a.Raw) == 0 {
		return a, err
	}
	if err := json.Unmarshal(a.Raw, &a.Value); err != nil {
		return a, fmt.Errorf("%s %s: reading the answer: %w", method, path, err)
	}
	return a, nil
}

// do is call that returns the body of a good answer.
func (c *Client) do(ctx context.Context, method, path string, in any) (json.RawMessage, error) {
	resp, err := c.call(ctx, method, path, in)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", err)
	case len(raw) > maxAnswer:
		return nil, errors.New("reading the answer: it is too long")
	case resp.StatusCode >= 300 || len(raw) > 0 && !json.Valid(raw):
		return nil, apiError(resp, raw)
	}
	return raw, nil
}

// call sends in as JSON, or nothing for nil.
func (c *Client) call(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := api.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("writing the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Base, "/")+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Actor != "" {
		req.Header.Set(actorHeader, c.Actor)
	}
	if c.Origin != "" {
		req.Header.Set("Origin", c.Origin)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	return client.Do(req)
}

// apiError reads an error of ours, or of whatever else answered.
func apiError(resp *http.Response, raw []byte) *APIError {
	status, server := resp.StatusCode, resp.Header.Get("Server")
	var e Error
	if json.Unmarshal(raw, &e) != nil || e.Message == "" {
		message := fmt.Sprintf("the admin endpoint answered %d %s", status, http.StatusText(status))
		return &APIError{Status: status, Message: message, Text: string(raw[:min(len(raw), maxText)]), Server: server}
	}
	return &APIError{Status: status, Code: e.Code, Field: e.Field, Message: e.Message, Raw: raw, Server: server}
}

// maxText is how many bytes of a foreign answer are kept.
const maxText = 256

// IsAdminEndpoint reports whether Caddy's admin endpoint answers, with or without
// this API.
func (c *Client) IsAdminEndpoint(ctx context.Context) bool {
	resp, err := c.call(ctx, http.MethodGet, "/config/", nil)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Etag"), `"/config/`)
}

// segment escapes a path segment. Dots are escaped where servers would take
// the segment for a direction.
func segment(s string) string {
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}

// queryOf writes the query fields of a struct that are not nil.
func queryOf(in any) string {
	q := url.Values{}
	v := reflect.ValueOf(in)
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsNil() {
			q.Set(v.Type().Field(i).Tag.Get("query"), param(f.Elem()))
		}
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// param writes a value as a parameter.
func param(v reflect.Value) string {
	if t, ok := v.Interface().(api.Time); ok {
		return t.UTC().Format(time.RFC3339Nano)
	}
	switch v.Kind() {
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	default:
		return v.String()
	}
}
