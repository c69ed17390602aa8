package k8s

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	product "github.com/troupe-dev/troupe/k8s"
)

const audience = "troupe"

// sessions is the permission that a client needs.
var sessions = rbacv1.PolicyRule{
	APIGroups: []string{"troupe.dev"}, Resources: []string{"sessions"},
	Verbs: []string{"create"},
}

// authenticator is trouped's, as its service account, without a memory of its own.
func (s *space) authenticator() *product.Authenticator {
	s.t.Helper()
	a, err := product.NewAuthenticator(product.AuthConfig{Client: s.client(), Audience: audience, Namespace: s.name})
	must(s.t, err)
	s.t.Cleanup(a.Close)
	return a
}

// is returns an error unless a token's owner gets this answer: a subject, or one of the words
// below.
func is(ctx context.Context, a *product.Authenticator, token, want string) error {
	subject, err := a.Authenticate(ctx, token)
	got := subject
	var denied *product.DeniedError
	switch {
	case errors.Is(err, product.ErrBadToken):
		got = "bad"
	case errors.As(err, &denied):
		got = "denied"
	case err != nil:
		got = "failed"
	}
	if got != want {
		return fmt.Errorf("%q (%w), want %q", got, err, want)
	}
	return nil
}

// TestWhoMayOpenSessions: the token has to be meant for troupe and valid, and its
// owner to have the permission in this namespace.
func TestWhoMayOpenSessions(t *testing.T) {
	t.Parallel()
	s, other := newSpace(t), newSpace(t)
	a := s.authenticator()
	for _, account := range []string{"ann", "bob", "cat", "dan"} {
		s.account(account)
	}
	other.account("eve")
	s.grant("ann", "ann", sessions)
	s.grant("cat", "cat", rbacv1.PolicyRule{
		APIGroups: []string{"troupe.dev"}, Resources: []string{"sessions"},
		Verbs: []string{"get", "list"},
	})
	s.grant("dan", "dan", rbacv1.PolicyRule{
		APIGroups: []string{"troupe.dev"}, Resources: []string{"*"},
		Verbs: []string{"*"},
	})
	other.grant("eve", "eve", sessions)
	ann := "system:serviceaccount:" + s.name + ":ann"
	tampered := []byte(s.token("ann", nil, audience))
	tampered[len(tampered)/2] ^= 1
	for _, c := range []struct{ name, token, want string }{
		{"permitted", s.token("ann", nil, audience), ann},
		{"permitted, one audience of two", s.token("ann", nil, "other", audience), ann},
		{"permitted by a wildcard", s.token("dan", nil, audience), "system:serviceaccount:" + s.name + ":dan"},
		{"another audience", s.token("ann", nil, "other"), "bad"},
		{"the API server's audience", s.token("ann", nil), "bad"},
		{"trouped's own token", s.token("troupe", nil), "bad"},
		{"nothing bound", s.token("bob", nil, audience), "denied"},
		{"other verbs", s.token("cat", nil, audience), "denied"},
		{"permitted in another namespace", other.token("eve", nil, audience), "denied"},
		{"tampered with", string(tampered), "bad"},
		{"no token at all", "nonsense", "bad"},
		{"empty", "", "bad"},
		{"not even text", "\x00\xff\n", "bad"},
		{"long", strings.Repeat("a.", 15_000), "bad"},
	} {
		if err := is(t.Context(), a, c.token, c.want); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if n := s.failures(); n != 0 {
		t.Errorf("%d failures were counted; the log:\n%s", n, &s.logs)
	}
}

// TestExpiredToken: the API server refuses it, by its time alone.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	a := s.authenticator()
	s.account("ann")
	s.grant("ann", "ann", sessions)
	now := time.Now()
	for _, c := range []struct {
		expires time.Time
		want    string
	}{
		{now.Add(time.Hour), "system:serviceaccount:" + s.name + ":ann"}, // the signature is right
		{now.Add(-time.Minute), "bad"},
	} {
		if err := is(t.Context(), a, resign(t, s.token("ann", nil, audience), c.expires), c.want); err != nil {
			t.Errorf("expires %v from now: %v", c.expires.Sub(now), err)
		}
	}
}

// resign gives a token another time, with the API server's key. It will not issue a
// token for less than ten minutes.
func resign(t *testing.T, token string, expires time.Time) string {
	t.Helper()
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(t, err)
	var claims map[string]any
	must(t, json.Unmarshal(payload, &claims))
	claims["exp"] = expires.Unix()
	claims["iat"], claims["nbf"] = expires.Add(-2*time.Hour).Unix(), expires.Add(-2*time.Hour).Unix()
	payload, err = json.Marshal(claims)
	must(t, err)
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload)

	file, err := os.ReadFile(filepath.Join(server.ControlPlane.APIServer.CertDir, "sa-signer.key"))
	must(t, err)
	block, _ := pem.Decode(file)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("the API server signs with a %T", parsed)
	}
	sum := sha256.Sum256([]byte(signed))
	r, v, err := ecdsa.Sign(rand.Reader, key, sum[:])
	must(t, err)
	signature := make([]byte, 64) // RFC 7518 section 3.4
	r.FillBytes(signature[:32])
	v.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// TestAccessEnds when the service account, or the pod whose token it is, is deleted,
// or its permission withdrawn; and begins when it is granted.
func TestAccessEnds(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	a := s.authenticator()
	for _, account := range []string{"ann", "bob", "cat"} {
		s.account(account)
		s.grant(account, account, sessions)
	}
	pod := s.pod("client", "cat")
	name := func(account string) string { return "system:serviceaccount:" + s.name + ":" + account }
	ann, bob := s.token("ann", nil, audience), s.token("bob", nil, audience)
	cat := s.token("cat", &authenticationv1.BoundObjectReference{
		Kind: "Pod", APIVersion: "v1", Name: pod.Name,
		UID: types.UID(pod.UID),
	}, audience)
	becomes := func(what, token, want string) {
		t.Helper()
		eventually(t, what, func(ctx context.Context) error { return is(ctx, a, token, want) })
	}
	becomes("ann", ann, name("ann"))
	becomes("bob", bob, name("bob"))
	becomes("cat, from a pod", cat, name("cat"))

	must(t, kube.CoreV1().ServiceAccounts(s.name).Delete(t.Context(), "ann", metav1.DeleteOptions{}))
	s.withdraw("bob")
	now := int64(0)
	must(t, kube.CoreV1().Pods(s.name).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	becomes("ann, deleted", ann, "bad")
	becomes("bob, withdrawn", bob, "denied")
	becomes("cat, its pod deleted", cat, "bad")

	s.grant("bob-again", "bob", sessions)
	becomes("bob, granted again", bob, name("bob"))
	if n := s.failures(); n != 0 {
		t.Errorf("%d failures were counted; the log:\n%s", n, &s.logs)
	}
}

// TestTroupedMayNotAsk: without system:auth-delegator no client is accepted, and none is
// told that its token is invalid.
func TestTroupedMayNotAsk(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	a := s.authenticator()
	s.account("ann")
	s.grant("ann", "ann", sessions)
	token := s.token("ann", nil, audience)
	must(t, is(t.Context(), a, token, "system:serviceaccount:"+s.name+":ann"))
	must(t, kube.RbacV1().ClusterRoleBindings().Delete(t.Context(), s.name, metav1.DeleteOptions{}))
	eventually(t, "the permission is withdrawn", func(ctx context.Context) error { return is(ctx, a, token, "failed") })
	_, err := a.Authenticate(t.Context(), token)
	if err == nil || !strings.Contains(err.Error(), `cannot create resource "tokenreviews"`) ||
		strings.Contains(err.Error(), token) {
		t.Errorf("got %v", err)
	}
	if s.failures() == 0 {
		t.Error("no failure was counted")
	}
}
