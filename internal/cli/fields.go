package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// fields are the flags that create and update share. Nil is "does not say".
type fields struct {
	owner       *string
	name        *string
	expiresIn   *int64
	remaining   *credits
	refill      *rate
	rateLimit   *rate
	algorithm   *string
	limited     *bool
	permissions []string
	metadata    map[string]string
	object      *json.RawMessage
	allowedIPs  []string
	enabled     *bool
}

// credits is a number of credits; nil is unlimited.
type credits struct{ n *int64 }

func parseCredits(s string) (credits, error) {
	if s == "unlimited" {
		return credits{}, nil
	}
	n, err := parseNumber(s)
	if err != nil {
		err = errors.New(`must be a whole number, or "unlimited"`)
	}
	return credits{&n}, err
}

// define adds the flags to a command.
func (x *fields) define(h *Host, cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	value(f, &x.owner, "owner", "`userId` of the owner", parseText)
	value(f, &x.name, "name", "`text` that tells people which key it is", parseText)
	value(f, &x.expiresIn, "expires-in", "`lifetime` from now, such as 90d", h.seconds(1))
	value(f, &x.remaining, "remaining", "`credits`: how many requests are left, or \"unlimited\"", parseCredits)
	value(f, &x.refill, "refill", "set the credits to an `amount/interval`, such as 100/1d", h.rate)
	value(f, &x.rateLimit, "rate-limit", "at most `requests/window`, such as 100/1m", h.rate)
	value(f, &x.algorithm, "rate-limit-algorithm", "`name`: fixed_window, sliding_window or token_bucket",
		oneOf("fixed_window", "sliding_window", "token_bucket"))
	boolean(f, "rate-limit-enabled", "enforce the key's rate limit; =false does not", on(&x.limited))
	each(f, "permission", "`resource:action` that the key may do; repeatable", x.addPermission)
	each(f, "metadata", "`field=text` to keep with the key; repeatable", x.addMetadata)
	value(f, &x.object, "metadata-json", "the whole metadata as a JSON `object`", parseObject)
	each(f, "allowed-ip", "`address` or network that the key may be used from; repeatable", x.addIP)
	cmd.MarkFlagsMutuallyExclusive("metadata", "metadata-json")
}

func (x *fields) addPermission(s string) error {
	_, err := key.ParsePermission(s)
	x.permissions = append(x.permissions, s)
	return err
}

func (x *fields) addMetadata(s string) error {
	name, text, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return errors.New("must be field=text")
	}
	if x.metadata == nil {
		x.metadata = map[string]string{}
	}
	x.metadata[name] = text
	return nil
}

func (x *fields) addIP(s string) error {
	x.allowedIPs = append(x.allowedIPs, s)
	return nil
}

// wantedPermissions returns nil where none were given.
func (x *fields) wantedPermissions() (key.Permissions, error) {
	return permissionsOf(x.permissions)
}

func permissionsOf(list []string) (key.Permissions, error) {
	if list == nil {
		return nil, nil
	}
	p, err := key.ParsePermissions(list)
	if err != nil {
		return nil, WrongUsage("--permission: %v", err)
	}
	return p, nil
}

// wantedMetadata returns nil where none was given.
func (x *fields) wantedMetadata() (json.RawMessage, error) {
	switch {
	case x.object != nil:
		return *x.object, nil
	case x.metadata != nil:
		return marshal(x.metadata)
	default:
		return nil, nil
	}
}

// marshal writes JSON as it would be typed, without the escapes that only HTML
// needs: metadata is kept as it is sent.
func marshal(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}
