package chart

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/yaml"
)

// helm runs helm's actions on a real API server. Releases have no replicas, so
// that neither nodes nor images are needed.
type helm struct {
	api       *apiServer
	config    *action.Configuration
	namespace string
}

func newHelm(t *testing.T, name string) *helm {
	t.Helper()
	h := &helm{api: needAPIServer(t), config: &action.Configuration{}}
	h.namespace = h.api.namespace(t, name)
	flags := genericclioptions.NewConfigFlags(true)
	flags.KubeConfig, flags.Namespace = &h.api.kubeconfig, &h.namespace
	if err := h.config.Init(flags, h.namespace, "secret", t.Logf); err != nil {
		t.Fatal(err)
	}
	return h
}

// withoutPods reads values and takes the pods away.
func withoutPods(t *testing.T, text string) map[string]any {
	t.Helper()
	values := parse(t, text)
	values["replicaCount"] = 0
	return values
}

func (h *helm) install(t *testing.T, values string) error {
	t.Helper()
	install := action.NewInstall(h.config)
	install.ReleaseName, install.Namespace = releaseName, h.namespace
	_, err := install.Run(loadChart(t), withoutPods(t, values))
	return err
}

func (h *helm) upgrade(t *testing.T, values string) {
	t.Helper()
	upgrade := action.NewUpgrade(h.config)
	upgrade.Namespace = h.namespace
	if _, err := upgrade.Run(releaseName, loadChart(t), withoutPods(t, values)); err != nil {
		t.Fatal(err)
	}
}

func (h *helm) rollback(t *testing.T, revision int) {
	t.Helper()
	rollback := action.NewRollback(h.config)
	rollback.Version = revision
	if err := rollback.Run(releaseName); err != nil {
		t.Fatal(err)
	}
}

func (h *helm) uninstall(t *testing.T) {
	t.Helper()
	if _, err := action.NewUninstall(h.config).Run(releaseName); err != nil {
		t.Fatal(err)
	}
}

var secrets = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}

// tokens returns the generated Secret's data as it is in the cluster.
func (h *helm) tokens(t *testing.T) string {
	t.Helper()
	secret, err := h.api.client.Resource(secrets).Namespace(h.namespace).Get(t.Context(), "troupe-tokens",
		metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	data, _, _ := unstructured.NestedString(secret.Object, "data", "tokens")
	return data
}

// setTokens is kubectl edit of the Secret.
func (h *helm) setTokens(t *testing.T, data string) {
	t.Helper()
	patch := fmt.Sprintf(`{"data":{"tokens":%q}}`, data)
	if _, err := h.api.client.Resource(secrets).Namespace(h.namespace).Patch(t.Context(), "troupe-tokens",
		"application/merge-patch+json", []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestTokensAreKept protects from: an upgrade or a rollback that locks every
// client out, undoes the lines that somebody added, or brings a revoked token back.
func TestTokensAreKept(t *testing.T) {
	h := newHelm(t, "tokens")
	if err := h.install(t, ""); err != nil {
		t.Fatal(err)
	}
	first := h.tokens(t)
	if first == "" {
		t.Fatal("there is no token")
	}
	kept := func(after, want string) {
		t.Helper()
		if got := h.tokens(t); got != want {
			t.Errorf("%s the Secret is %q, want %q", after, got, want)
		}
	}
	h.upgrade(t, "limits: {maxSessions: 5}\nauth: {token: {subject: somebody}}")
	kept("after an upgrade", first)

	const added, revoked = "YWxpY2UgMDEyMzQ1Njc4OWFiY2RlZgo=", "Ym9iIGZlZGNiYTk4NzY1NDMyMTAK"
	h.setTokens(t, added)
	h.upgrade(t, "limits: {maxSessions: 6}")
	kept("after an edit and an upgrade", added)
	h.setTokens(t, revoked)
	h.rollback(t, 1)
	kept("after an edit and a rollback to before both edits", revoked)
	h.rollback(t, 3)
	kept("after a rollback to between the edits", revoked)

	// A Secret of one's own, and back: the generated one waits.
	h.upgrade(t, "auth: {token: {existingSecret: mine}}")
	h.rollback(t, 5)
	kept("after a Secret of one's own, and a rollback", revoked)
	h.upgrade(t, "auth: {mode: kubernetes}")
	h.uninstall(t)
	kept("after uninstall", "")
}

// TestTokensComeLater: the Secret is made by the upgrade that first needs it.
func TestTokensComeLater(t *testing.T) {
	h := newHelm(t, "later")
	if err := h.install(t, "auth: {mode: kubernetes}"); err != nil {
		t.Fatal(err)
	}
	if got := h.tokens(t); got != "" {
		t.Errorf("with auth.mode kubernetes there are tokens: %q", got)
	}
	h.upgrade(t, "")
	if h.tokens(t) == "" {
		t.Error("there is no token")
	}
	h.uninstall(t)
	if got := h.tokens(t); got != "" {
		t.Errorf("after uninstall there are tokens: %q", got)
	}
}

// TestForeignSecretStays: uninstall would remove it.
func TestForeignSecretStays(t *testing.T) {
	h := newHelm(t, "foreign")
	secret := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "troupe-tokens", "namespace": h.namespace},
		"data": map[string]any{"tokens": "YWxpY2UgMDEyMzQ1Njc4OWFiY2RlZgo="},
	}}
	if _, err := h.api.resource(t, secret).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := h.install(t, ""); err == nil || !strings.Contains(err.Error(), "is not of this release") {
		t.Errorf("a Secret of somebody else's is answered with %v", err)
	}
	if err := h.install(t, "auth: {mode: kubernetes}"); err != nil {
		t.Fatal(err)
	}
	h.uninstall(t)
	if h.tokens(t) == "" {
		t.Error("a Secret of somebody else's is gone")
	}
}

// TestUninstallLeavesNothing goes through every rendering on one API server.
// Protects from: an object that helm cannot make, or forgets.
func TestUninstallLeavesNothing(t *testing.T) {
	h := newHelm(t, "uninstall")
	all := values(t)
	for _, name := range []string{"default", "kubernetes", "bare", "autoscaling-sessions", "placement", "peers"} {
		t.Run(name, func(t *testing.T) {
			if err := h.install(t, all[name]); err != nil {
				t.Fatal(err)
			}
			if left := h.left(t, all[name]); len(left) < 4 {
				t.Errorf("the release consists of %v", left)
			}
			h.uninstall(t)
			// Nothing of it has a finalizer, so what was deleted is gone.
			if left := h.left(t, all[name]); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

// left returns which of the objects of a rendering are in the cluster.
func (h *helm) left(t *testing.T, text string) []string {
	t.Helper()
	r, err := render(loadChart(t), parse(t, text))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, o := range r.objects {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(o.text), &object.Object); err != nil {
			t.Fatal(err)
		}
		if object.GetNamespace() != "" {
			object.SetNamespace(h.namespace)
		}
		name := strings.ReplaceAll(object.GetName(), ":"+namespace+":", ":"+h.namespace+":")
		_, err := h.api.resource(t, object).Get(t.Context(), name, metav1.GetOptions{})
		if err == nil {
			found = append(found, o.Kind+" "+name)
		} else if !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	slices.Sort(found)
	return found
}
