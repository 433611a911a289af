package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

const (
	secretPrefix = "whsec_"
	minSecret    = 24 // bytes, as the specification says
	maxSecret    = 64
	maxURL       = 2048
)

// ParseSecret reads "whsec_" and the base64 of 24 to 64 bytes. Its error does not repeat the
// secret.
func ParseSecret(s string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(s, secretPrefix)
	secret, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(secret) < minSecret || len(secret) > maxSecret {
		return nil, fmt.Errorf("must be %s followed by the base64 of %d to %d random bytes", secretPrefix, minSecret, maxSecret)
	}
	return secret, nil
}

// CheckURL checks the URL of a webhook.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || len(s) > maxURL:
		return fmt.Errorf("must be a URL of at most %d characters, such as https://example.com/hook", maxURL)
	case u.User != nil || u.Fragment != "":
		return errors.New("must have no user and no fragment")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return errors.New("must begin with https://; http:// is for localhost, 127.0.0.0/8 and [::1] only")
}

// HostOf returns what may be told of the URL of a webhook: the rest of it may be a secret.
func HostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Host
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// Endpoint is a webhook.
type Endpoint struct {
	URL    string
	Secret []byte
}
