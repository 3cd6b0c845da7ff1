package loki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/config"

	"github.com/hindsight-events/hindsight/sink/loki"
	"github.com/hindsight-events/hindsight/test/fakeloki"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.key, a.cert = a.sign(template, nil)
	a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue issues a certificate for a name and 127.0.0.1, and writes its files.
func (a *authority) issue(name string) (cert tls.Certificate, certFile, keyFile string) {
	a.t.Helper()
	key, leaf := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf},
		a.write(name+".pem", "CERTIFICATE", leaf.Raw), a.write(name+"-key.pem", "EC PRIVATE KEY", der)
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	server, _, _ := ours.issue("server")
	l := fakeloki.Start(t, fakeloki.Options{TLS: &tls.Config{
		Certificates: []tls.Certificate{server}, ClientCAs: ours.pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	}})
	l.ScriptPushes(accept)
	_, certFile, keyFile := ours.issue("client")
	_, otherCert, otherKey := theirs.issue("other")
	ca := filepath.Join(ours.dir, "ca.pem")
	for name, c := range map[string]struct {
		tls     config.TLSConfig
		message string // empty: the push succeeds
	}{
		"with the authority and a certificate": {config.TLSConfig{CAFile: ca, CertFile: certFile, KeyFile: keyFile}, ""},
		"without checks":                       {config.TLSConfig{InsecureSkipVerify: true, CertFile: certFile, KeyFile: keyFile}, ""},
		"without the authority":                {config.TLSConfig{CertFile: certFile, KeyFile: keyFile}, "certificate signed by unknown authority"},
		"with another authority":               {config.TLSConfig{CAFile: filepath.Join(theirs.dir, "ca.pem"), CertFile: certFile, KeyFile: keyFile}, "certificate signed by unknown authority"},
		"without a certificate":                {config.TLSConfig{CAFile: ca}, "certificate required"},
		"with a certificate of another authority": {
			config.TLSConfig{CAFile: ca, CertFile: otherCert, KeyFile: otherKey}, "tls: ",
		},
		"as another name": {config.TLSConfig{CAFile: ca, CertFile: certFile, KeyFile: keyFile, ServerName: "loki.example"}, "wanted to match loki.example"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, l.URL, func(k *loki.Config, _ *loki.Options) { k.HTTP.TLSConfig = c.tls })
			err := s.Send(t.Context(), oneRecord(s))
			if c.message == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if sinkErr := asError(t, err); !strings.Contains(sinkErr.Error(), c.message) || sinkErr.Permanent {
				t.Errorf("got %v, want a temporary error with %q", err, c.message)
			}
		})
	}
}

func TestMissingFileIsAnErrorOfNew(t *testing.T) {
	t.Parallel()
	c := loki.DefaultConfig()
	c.URL = "https://loki"
	c.HTTP.TLSConfig.CAFile = filepath.Join(t.TempDir(), "absent.pem")
	if _, err := loki.New(c, loki.Options{}); err == nil || !strings.Contains(err.Error(), "absent.pem") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}
