package k8s

import (
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// account writes a service account's directory.
func account(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func certificate(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// TestInCluster: over TLS, as the service account, whose token is read from its file.
func TestInCluster(t *testing.T) {
	var seen atomic.Value
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("Authorization") + " " + r.Proto)
		reviewer(w, r)
	}))
	server.EnableHTTP2 = true // as an API server does; the client must not use it
	server.StartTLS()
	defer server.Close()
	u, _ := url.Parse(server.URL)
	host, port, _ := net.SplitHostPort(u.Host)
	connect := func(dir string) (string, error) {
		cluster, err := InCluster(host, port, dir)
		if err != nil {
			t.Fatal(err)
		}
		if cluster.Namespace != "ns" {
			t.Errorf("namespace %q", cluster.Namespace)
		}
		c, err := NewClient(ClientConfig{Cluster: cluster})
		if err != nil {
			t.Fatal(err)
		}
		auth, err := NewAuthenticator(AuthConfig{Client: c, Audience: "troupe", Namespace: "ns"})
		if err != nil {
			t.Fatal(err)
		}
		defer auth.Close()
		return auth.Authenticate(t.Context(), "good:ann")
	}
	dir := account(t, map[string]string{"token": "own-token\n", "ca.crt": certificate(server), "namespace": "ns\n"})
	if subject, err := connect(dir); subject != "ann" || err != nil || seen.Load() != "Bearer own-token HTTP/1.1" {
		t.Errorf("got %q, %v; the server saw %v", subject, err, seen.Load())
	}

	// A server whose certificate another authority signed gets neither token.
	seen.Store("")
	foreign := account(t, map[string]string{"token": "own-token", "ca.crt": foreignCA, "namespace": "ns"})
	_, err := connect(foreign)
	if err == nil || isRefused(err) || seen.Load() != "" || strings.Contains(err.Error(), "own-token") {
		t.Errorf("with a foreign authority: %v; the server saw %v", err, seen.Load())
	}
}

// TestNoCluster: the error names what is missing.
func TestNoCluster(t *testing.T) {
	empty := map[string]string{"token": "", "ca.crt": "c"}
	whole := map[string]string{"token": "t", "ca.crt": "c", "namespace": "n"}
	without := func(name string) string {
		files := map[string]string{}
		for k, v := range whole {
			if k != name {
				files[k] = v
			}
		}
		return account(t, files)
	}
	for _, c := range []struct{ name, host, port, dir, want string }{
		{"no host", "", "443", account(t, whole), "KUBERNETES_SERVICE_HOST"},
		{"no port", "10.0.0.1", "", account(t, whole), "KUBERNETES_SERVICE_PORT"},
		{"no token", "10.0.0.1", "443", without("token"), "/token: no such file"},
		{"no authority", "10.0.0.1", "443", without("ca.crt"), "/ca.crt: no such file"},
		{"an empty token", "10.0.0.1", "443", account(t, empty), "/token: the file is empty"},
	} {
		_, err := InCluster(c.host, c.port, c.dir)
		if !errors.Is(err, ErrNoCluster) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	cluster, err := InCluster("fd00::1", "443", without("namespace"))
	if err != nil || cluster.Namespace != "" || cluster.REST.Host != "https://[fd00::1]:443" {
		t.Errorf("without a namespace: %+v, %v", cluster, err)
	}
	// A ca.crt without a certificate must not mean the system's authorities.
	cluster, err = InCluster("10.0.0.1", "443", account(t, whole))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(ClientConfig{Cluster: cluster}); err == nil {
		t.Error("a ca.crt without a certificate was accepted")
	}
	if _, err := NewClient(ClientConfig{}); err == nil {
		t.Error("a Client without a Cluster")
	}
}

// foreignCA has signed nothing. It was made by openssl req -x509 -newkey ec -pkeyopt
// ec_paramgen_curve:P-256 -nodes -subj /CN=foreign -days 36500
const foreignCA = `-----BEGIN CERTIFICATE-----
MIIBfDCCASGgAwIBAgIUId76nPQQstEm1AdLcuUE5zPkvcwwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHZm9yZWlnbjAgFw0yNjExMjUwMTExMThaGA8yMTI2MTEwMTAx
MTExOFowEjEQMA4GA1UEAwwHZm9yZWlnbjBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABJBMjld0gceycb5Ir6szmTWyMxCLZemw/JCHfnoj6mVef8P9F9v4cAj6Txwd
XaBCA9rl8mDhzSFjZFF3ssqdd9OjUzBRMB0GA1UdDgQWBBQJEojeFaDoqqISRoIg
Vn47/gJhRTAfBgNVHSMEGDAWgBQJEojeFaDoqqISRoIgVn47/gJhRTAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQD9ZBPy3BHLl4Lf0kbgTUdN5wBv
C/PoUyxo87+M7g3IKwIhAN41a4cuKccXFUvuCxk0IwIe7O2nDqp4m7a/gjm0kGQh
-----END CERTIFICATE-----
`
