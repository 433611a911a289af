package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const certificateSite = `{
	skip_install_trust
	auto_https disable_redirects
	log default {
		format apikey_redact
	}
	apikey {
		config team
	}
}

(api) {
	bind 127.0.0.1
	apikey_api {
		user {tls_client_subject}
	}
	route /api/* {
		vars uid bob
		vars role owner
		apikey_api {
			dialect better_auth
			user {vars.uid}
			organization {tls_client_subject} {
				role {vars.role}
				config team
			}
		}
	}
}

https://localhost:{$ASKS} {
	import api
	tls internal {
		client_auth {
			mode request
		}
	}
}

https://localhost:{$VERIFIES} {
	import api
	tls internal {
		client_auth {
			mode verify_if_given
			trust_pool file {$CA}
		}
	}
}

{$SITE} {
	respond ok
}
`

// TestSelfService_certificate takes people from certificates: those that nobody has
// verified say what their holder likes.
func TestSelfService_certificate(t *testing.T) {
	full(t)
	ca := newCertificate(t, "ca", nil)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	var ports [2]string
	for i := range ports {
		_, ports[i], _ = net.SplitHostPort(freeAddr(t))
	}
	s := startGate(t, certificateSite, withEnv("ASKS="+ports[0], "VERIFIES="+ports[1], "CA="+file))
	for _, port := range ports {
		newProtocols(t, "localhost:"+port).ready(t)
	}
	real, forged := newCertificate(t, "carol", &ca), newCertificate(t, "carol", nil)
	const usage, organization = "/v1/auth/usage", "/api/auth/api-key/list?organizationId=CN%3Dcarol"
	for _, row := range []struct {
		name, port, target string
		certificate        *tls.Certificate
		status             int
		code               string
		warns              bool
	}{
		{"none is asked for", ports[0], usage, nil, 401, "MISSING_API_KEY", false},
		{"none is given", ports[1], usage, nil, 401, "MISSING_API_KEY", false},
		{"a verified one", ports[1], usage, &real, 200, "", false},
		{"an organization of a verified one", ports[1], organization, &real, 200, "", false},
		{"one that nobody has verified", ports[0], usage, &forged, 401, "MISSING_API_KEY", true},
		{"an organization of one that nobody has verified", ports[0], organization, &forged, 403, "USER_NOT_MEMBER_OF_ORGANIZATION", true},
	} {
		r := getWithCertificate(t, "https://localhost:"+row.port+row.target, row.certificate)
		if r.status != row.status || r.code != row.code {
			t.Errorf("%s: %d %s, want %d %s", row.name, r.status, r.body, row.status, row.code)
		}
		const warning = "has not verified"
		if row.warns {
			awaitLog(t, s, warning)
		} else if strings.Contains(s.Log(), warning) {
			t.Errorf("%s: a warning in the log", row.name)
		}
	}
}

// newCertificate makes a certificate that issuer, or else it itself, has signed.
func newCertificate(t *testing.T, name string, issuer *tls.Certificate) tls.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: issuer == nil, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, any(private)
	if issuer != nil {
		parent, signer = issuer.Leaf, issuer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}
}

// getWithCertificate sends a request, with a certificate if there is one.
func getWithCertificate(t *testing.T, url string, certificate *tls.Certificate) *reply {
	t.Helper()
	// The server's certificate is of Caddy's own authority, made a moment ago.
	conf := &tls.Config{InsecureSkipVerify: true}
	if certificate != nil {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	transport := &http.Transport{TLSClientConfig: conf}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: testTimeout}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := &reply{status: resp.StatusCode, header: resp.Header, body: string(body)}
	var refusal struct{ Code string }
	if err := json.Unmarshal(body, &refusal); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	r.code = refusal.Code
	return r
}
