package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestCertificatesAreTrustedForTheirPurpose(t *testing.T) {
	dir := t.TempDir()
	if err := writePKI(dir); err != nil {
		t.Fatal(err)
	}
	load := func(name string) *x509.Certificate {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return parseCert(t, data)
	}
	verify := func(cert *x509.Certificate, ca string, usage x509.ExtKeyUsage, host string) error {
		roots := x509.NewCertPool()
		roots.AddCert(load(ca))
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	for _, host := range []string{
		"10.99.0.1", "127.0.0.1", "10.96.0.1", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local", "node1",
	} {
		if err := verify(load("apiserver.crt"), "ca.crt", x509.ExtKeyUsageServerAuth, host); err != nil {
			t.Errorf("API server as %s: %v", host, err)
		}
	}
	if err := verify(load("front-proxy-client.crt"), "front-proxy-ca.crt", x509.ExtKeyUsageClientAuth, ""); err != nil {
		t.Error(err)
	}
	// Aggregated APIs believe the front proxy's headers about who the user is: no
	// user's certificate may pass for it.
	if verify(load("front-proxy-client.crt"), "ca.crt", x509.ExtKeyUsageClientAuth, "") == nil {
		t.Error("the two authorities are one")
	}
	for _, file := range []string{"apiserver", "apiserver-kubelet-client", "front-proxy-client"} {
		if _, err := tls.LoadX509KeyPair(filepath.Join(dir, file+".crt"), filepath.Join(dir, file+".key")); err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key: %v, %v", info.Mode(), err)
	}
}

func TestKubeconfigsNameTheirUsers(t *testing.T) {
	ca, err := newAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	for file, user := range users() {
		text, err := ca.kubeconfig(user)
		if err != nil {
			t.Fatal(err)
		}
		var config struct {
			Users []struct {
				User struct {
					Cert []byte `json:"client-certificate-data"`
				}
			}
			Clusters []struct {
				Cluster struct{ Server string }
			}
		}
		if err := yaml.Unmarshal(text, &config); err != nil {
			t.Fatalf("%s: %v\n%s", file, err, text)
		}
		cert := parseCert(t, config.Users[0].User.Cert)
		if cert.Subject.CommonName != user.name || !slices.Equal(cert.Subject.Organization, user.groups) {
			t.Errorf("%s belongs to %s", file, cert.Subject)
		}
		if config.Clusters[0].Cluster.Server != "https://10.99.0.1:6443" {
			t.Errorf("%s: %+v", file, config)
		}
	}
	// NodeRestriction goes by exactly these.
	if u := users()["node2"]; u.name != "system:node:node2" || !slices.Equal(u.groups, []string{"system:nodes"}) {
		t.Errorf("node2 is %+v", u)
	}
}

func parseCert(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("no PEM: %q", data)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
