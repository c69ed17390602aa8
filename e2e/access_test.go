package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// refusedWith fails the test unless a client with the token gets this HTTP status.
func (r *release) refusedWith(t *testing.T, token string, status int) {
	t.Helper()
	if err := r.isRefused(t.Context(), token, status); err != nil {
		t.Error(err)
	}
}

func (r *release) isRefused(ctx context.Context, token string, status int) error {
	ctx, cancel := context.WithTimeout(ctx, commandBound)
	defer cancel()
	opt := r.options()
	opt.Token, opt.DialRetry = token, 0
	c, err := troupe.Dial(ctx, r.url(), opt)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("a session was opened, want status %d", status)
	}
	var refused *troupe.HandshakeError
	if !errors.As(err, &refused) || refused.StatusCode != status {
		return fmt.Errorf("refused with %w, want status %d", err, status)
	}
	if token != "" && strings.Contains(refused.Body, token) {
		return errors.New("the refusal repeats the token")
	}
	return nil
}

// TestWrongTokenIsRefused protects from: a server behind an ingress that lets
// everybody in.
func TestWrongTokenIsRefused(t *testing.T) {
	r := suite.shared
	r.works(t)
	r.refusedWith(t, "", http.StatusUnauthorized)
	r.refusedWith(t, r.token+"x", http.StatusUnauthorized)
	r.refusedWith(t, strings.Repeat("0", len(r.token)), http.StatusUnauthorized)
}

// account makes a service account in the release's namespace, or another one's.
func account(t *testing.T, namespace, name string) {
	t.Helper()
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := suite.kube.CoreV1().ServiceAccounts(namespace).Create(t.Context(), sa,
		metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// accountToken asks for a token of a service account for the audience.
func accountToken(t *testing.T, namespace, name, audience string) string {
	t.Helper()
	seconds := int64(600)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences:         []string{audience},
		ExpirationSeconds: &seconds,
	}}
	answer, err := suite.kube.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, request,
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Token
}

// TestServiceAccountsAreWhoTheySay: with auth.mode kubernetes the API server
// says who a token is, and RBAC who may open sessions. Protects from: a token
// that was made for another service, an account of another namespace, a right
// that stays after it was taken away, and a session that somebody else takes
// over with its resume token.
func TestServiceAccountsAreWhoTheySay(t *testing.T) {
	t.Parallel()
	const audience = "troupe"
	r := newRelease("accounts")
	t.Cleanup(func() { r.cleanUp(t) })
	grant := `
auth:
  mode: kubernetes
  kubernetes:
    grantTo:
    - {kind: ServiceAccount, name: allowed, namespace: troupe-e2e-accounts}
    - {kind: ServiceAccount, name: other, namespace: troupe-e2e-accounts}
`
	if err := r.create(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	if r.token != "" {
		t.Error("the chart made a token although the API server decides")
	}
	const foreign = namespacePrefix + "foreign"
	if err := createNamespace(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = suite.kube.CoreV1().Namespaces().Delete(context.Background(), foreign, metav1.DeleteOptions{})
	})
	for _, name := range []string{"allowed", "other", "denied"} {
		account(t, r.namespace, name)
	}
	account(t, foreign, "allowed") // the same name says nothing

	r.refusedWith(t, "", http.StatusUnauthorized)
	r.refusedWith(t, "not-a-token", http.StatusUnauthorized)
	r.refusedWith(t, accountToken(t, r.namespace, "allowed", "https://kubernetes.default.svc.cluster.local"),
		http.StatusUnauthorized)
	r.refusedWith(t, accountToken(t, r.namespace, "denied", audience), http.StatusForbidden)
	r.refusedWith(t, accountToken(t, foreign, "allowed", audience), http.StatusForbidden)

	r.token = accountToken(t, r.namespace, "allowed", audience)
	c := r.dial(t)
	if out := shell(t, c, "echo allowed"); out != "allowed\n" {
		t.Errorf("an account that may open sessions got %q", out)
	}
	r.cannotBeTaken(t, c, accountToken(t, r.namespace, "other", audience))

	// The right is taken away by an upgrade; trouped reuses an answer for 10 s.
	if err := r.upgrade(t.Context(), grant, "auth: {kubernetes: {grantTo: []}}"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "an account whose right was taken away is refused", func(ctx context.Context) error {
		return r.isRefused(ctx, r.token, http.StatusForbidden)
	})
}

// cannotBeTaken leaves a session and lets another subject try to resume it with
// the right resume token; then its owner does.
func (r *release) cannotBeTaken(t *testing.T, c *troupe.Client, thief string) {
	t.Helper()
	s := c.Detach()
	opt := r.options()
	opt.Token, opt.DialRetry = thief, 0
	stolen, err := troupe.Attach(t.Context(), r.url(), s.ID, s.ResumeToken, nil, opt)
	if err == nil {
		stolen.Detach()
		t.Error("a session was resumed by another subject")
	} else if wire.CodeOf(err) != wire.CodeNoSession {
		t.Errorf("another subject was refused with %v, want code %d", err, wire.CodeNoSession)
	}
	owned, err := troupe.Attach(t.Context(), r.url(), s.ID, s.ResumeToken, nil, r.options())
	if err != nil {
		t.Errorf("the owner cannot resume its session: %v", err)
		return
	}
	_ = owned.Close()
}

// TestServerHasTheRightsItNeeds protects from: a chart that grants more than
// troupe uses. What a command could do with a right that the server has, if it
// got hold of its token, is bounded by this list.
func TestServerHasTheRightsItNeeds(t *testing.T) {
	r := suite.shared
	pod := r.pod(t)
	for _, c := range []struct {
		verb, group, resource, name string
		want                        bool
	}{
		{"patch", "", "pods", pod.Name, true},
		{"create", "", "events", "", true},
		{"delete", "", "pods", "", false},
		{"create", "", "pods", "", false},
		{"create", "", "pods/exec", "", false},
		{"get", "", "secrets", "", false},
		{"list", "", "secrets", "", false},
		{"list", "", "configmaps", "", false},
		{"create", "", "serviceaccounts/token", "", false},
		{"create", "authentication.k8s.io", "tokenreviews", "", false}, // only with auth.mode kubernetes
		{"create", "rbac.authorization.k8s.io", "rolebindings", "", false},
		{"update", "apps", "deployments", "", false},
		{"*", "*", "*", "", false},
	} {
		may, err := allowed(t.Context(), pod, c.verb, c.group, c.resource, c.name)
		if err != nil {
			t.Fatal(err)
		}
		if may != c.want {
			t.Errorf("%s %s %s %s is allowed: %t, want %t", c.verb, c.group, c.resource, c.name, may, c.want)
		}
	}
}

// allowed asks the API server what the pod's account may do in its namespace.
func allowed(ctx context.Context, pod *corev1.Pod, verb, group, resource, name string) (bool, error) {
	resource, sub, _ := strings.Cut(resource, "/")
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:   "system:serviceaccount:" + pod.Namespace + ":" + pod.Spec.ServiceAccountName,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + pod.Namespace, "system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: pod.Namespace, Verb: verb, Group: group, Resource: resource, Subresource: sub, Name: name,
		},
	}}
	answer, err := suite.kube.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return answer.Status.Allowed, nil
}

// TestCommandsFindNoCredentials looks from inside of a command. Protects from:
// an account's token, a troupe token or the cluster's addresses in the reach of
// other people's commands.
func TestCommandsFindNoCredentials(t *testing.T) {
	c := suite.shared.dial(t)
	for _, line := range strings.Split(shell(t, c, "env"), "\n") {
		for _, prefix := range []string{"KUBERNETES_", "TROUPE_", "POD_"} {
			if strings.HasPrefix(line, prefix) && line != "TROUPE_ISOLATION=session" { // told on purpose
				t.Errorf("the environment has %s", line)
			}
		}
	}
	if out := shell(t, c,
		"ls -A /var/run/secrets /run/secrets /etc/troupe 2>/dev/null || true"); strings.TrimSpace(out) != "" {
		t.Errorf("there are secrets to be seen: %q", out)
	}
	if suite.shared.token != "" {
		// The pattern is not what it finds: grep and its shell have it among their own arguments.
		pattern := "[" + suite.shared.token[:1] + "]" + suite.shared.token[1:16]
		if out := shell(t, c, "grep -rls -e '"+pattern+"' /troupe /tmp /workspace /proc/*/environ /proc/*/cmdline 2>/dev/null || true"); out != "" {
			t.Errorf("the token is in %q", out)
		}
	}
	if out := shell(t, c,
		`for d in /proc/[0-9]*; do [ "$(cat $d/comm 2>/dev/null)" = trouped ] && echo $d; done; true`); out != "" {
		t.Errorf("commands see the server's processes: %q", out)
	}
	if out := shell(t, c, "id -u"); strings.TrimSpace(out) == "0" {
		t.Error("commands run as root")
	}
	if out := shell(t, c,
		`touch /etc/x 2>/dev/null && echo writable; touch "$HOME/x" "$TMPDIR/x" x && echo fine`); out != "fine\n" {
		t.Errorf("the root filesystem is writable, or the workspace is not: %q", out)
	}
}
