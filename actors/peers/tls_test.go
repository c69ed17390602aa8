package peers

import (
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"time"
)

// TestTLSIsRefusedAtOnce: a pod does not start with a certificate that every peer would refuse.
func TestTLSIsRefusedAtOnce(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good, foreign := sign(t, ca, CertName), sign(t, other, CertName)
	for name, c := range map[string]struct{ cert, key, ca, name, err string }{
		"as it should be":          {good.Cert, good.Key, good.CA, "", ""},
		"another name":             {good.Cert, good.Key, good.CA, "database", "peers would refuse it"},
		"another authority":        {good.Cert, good.Key, foreign.CA, "", "peers would refuse it"},
		"another key":              {good.Cert, foreign.Key, good.CA, "", "private key does not match"},
		"no certificate":           {good.Cert + ".none", good.Key, good.CA, "", "no such file"},
		"no authority in the file": {good.Cert, good.Key, good.Key, "", "there is no certificate in it"},
	} {
		_, err := NewTLS(c.cert, c.key, c.ca, c.name, nil)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
	}
	ca.Lifetime = -time.Minute
	expired := sign(t, ca, CertName)
	ca.Lifetime, ca.Uses = time.Hour, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	servers := sign(t, ca, CertName)
	for name, f := range map[string]string{"expired": expired.Cert, "for servers only": servers.Cert} {
		key := strings.TrimSuffix(f, "tls.crt") + "tls.key"
		if _, err := NewTLS(f, key, good.CA, "", nil); err == nil || !strings.Contains(err.Error(), "peers would refuse it") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTLSFollowsItsFiles: a change is taken over at the next use, and one that cannot be used is
// not.
func TestTLSFollowsItsFiles(t *testing.T) {
	ca := newAuthority(t)
	f := sign(t, ca, CertName)
	p, err := NewTLS(f.Cert, f.Key, f.CA, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := p.current()
	if again, _ := p.current(); again != first {
		t.Error("read again without a change")
	}
	next := sign(t, ca, CertName)
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(next.Cert, f.Cert)
	if half, _ := p.current(); half != first {
		t.Error("a certificate without its key was taken over")
	}
	move(next.Key, f.Key)
	if second, _ := p.current(); second == first {
		t.Error("a certificate with its key was not taken over")
	}
}
