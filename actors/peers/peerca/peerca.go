// Package peerca makes short-lived certificates for pods that talk to each other. It serves tests
// and measurements that run all pods on one machine.
package peerca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Authority signs certificates of peers.
type Authority struct {
	// Lifetime and Uses apply to certificates that it signs from now on.
	Lifetime time.Duration
	Uses     []x509.ExtKeyUsage

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// lifetime applies to every certificate made here, unless Authority.Lifetime says otherwise.
const lifetime = 24 * time.Hour

// New makes an authority.
func New() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "troupe peers"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{
		Lifetime: lifetime, Uses: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}, nil
}

func serial() *big.Int { return big.NewInt(time.Now().UnixNano()) }

// Files names the PEM files of a certificate, its key and the authorities.
type Files struct{ Cert, Key, CA string }

// Sign writes a new certificate for name into dir, along with those of this authority and of the
// trusted ones. It replaces each file atomically.
func (a *Authority) Sign(dir, name string, trusted ...*Authority) (Files, error) {
	f := Files{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return f, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(a.Lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: a.Uses,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return f, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return f, err
	}
	var roots []byte
	for _, ca := range append(trusted, a) {
		roots = append(roots, ca.pem...)
	}
	for path, content := range map[string][]byte{
		f.Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		f.Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		f.CA:   roots,
	} {
		if err := os.WriteFile(path+".new", content, 0o600); err != nil {
			return f, err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return f, err
		}
	}
	return f, nil
}
