package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificateLife is one year, as kubeadm's. A cluster is created again with each
// Up and does not live as long.
const certificateLife = 365 * 24 * time.Hour

// authority is a certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte // of the certificate
}

// subject is whom a certificate speaks for: to the API server a user's name
// and groups.
type subject struct {
	name   string
	groups []string
	// hosts are the names and addresses of a server. Empty for a client.
	hosts []string
}

// users are the owners of the kubeconfigs that Up writes, by file name. The
// names and groups are those to which Kubernetes binds its default roles.
func users() map[string]subject {
	u := map[string]subject{
		"admin":              {name: "kubernetes-super-admin", groups: []string{"system:masters"}},
		"controller-manager": {name: "system:kube-controller-manager"},
		"scheduler":          {name: "system:kube-scheduler"},
		"kube-proxy":         {name: "system:kube-proxy"},
		"coredns":            {name: "system:coredns"}, // bound in manifests/system.yaml
	}
	for m := 1; m <= maxNodes; m++ {
		u[nodeName(m)] = subject{name: "system:node:" + nodeName(m), groups: []string{"system:nodes"}}
	}
	return u
}

// writePKI writes the certificates, keys and kubeconfigs of a new cluster into
// a directory.
func writePKI(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority("kubernetes")
	if err != nil {
		return err
	}
	frontProxy, err := newAuthority("front-proxy-ca")
	if err != nil {
		return err
	}
	caKey, err := encodeKey(ca.key)
	if err != nil {
		return err
	}
	files := map[string][]byte{"ca.crt": ca.pem, "ca.key": caKey, "front-proxy-ca.crt": frontProxy.pem}

	for _, pair := range []struct {
		file string
		by   *authority
		of   subject
	}{
		{"apiserver", ca, subject{name: "kube-apiserver", hosts: []string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + clusterDomain,
			"localhost", nodeName(1), "127.0.0.1", apiServiceIP, lanAddress(1),
		}}},
		{"apiserver-kubelet-client", ca, subject{name: "kube-apiserver-kubelet-client"}},
		{"front-proxy-client", frontProxy, subject{name: "front-proxy-client"}},
	} {
		if files[pair.file+".crt"], files[pair.file+".key"], err = pair.by.issue(pair.of); err != nil {
			return err
		}
	}
	if files["sa.key"], files["sa.pub"], err = newTokenKey(); err != nil {
		return err
	}
	for file, user := range users() {
		if files[file+".conf"], err = ca.kubeconfig(user); err != nil {
			return err
		}
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := certificate(subject{name: name})
	if err != nil {
		return nil, err
	}
	template.KeyUsage |= x509.KeyUsageCertSign
	template.IsCA, template.BasicConstraintsValid = true, true
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: key, pem: encodeCert(der)}, nil
}

// certificate is the part of a certificate that does not depend on who signs
// it.
func certificate(s subject) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.name, Organization: s.groups},
		NotBefore:    now.Add(-time.Hour), // a clock may be set back
		NotAfter:     now.Add(certificateLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	for _, h := range s.hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	return c, nil
}

// issue makes a key and a certificate for it, for a client or a server.
func (a *authority) issue(s subject) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template, err := certificate(s)
	if err != nil {
		return nil, nil, err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(s.hosts) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(private)
	return encodeCert(der), key, err
}

// newTokenKey makes the key pair with which service accounts' tokens are
// signed.
func newTokenKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if private, err = encodeKey(key); err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	return private, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

func encodeKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// kubeconfig makes a kubeconfig for a user.
func (a *authority) kubeconfig(s subject) ([]byte, error) {
	cert, key, err := a.issue(s)
	if err != nil {
		return nil, err
	}
	base64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: troupe
  cluster: {server: "https://%s", certificate-authority-data: %s}
users:
- name: %s
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: troupe
  context: {cluster: troupe, user: %[3]s}
current-context: troupe
`, APIServer, base64(a.pem), s.name, base64(cert), base64(key)), nil
}
