package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
)

// TestUpgradeAndRollbackKeepTheToken protects from: a chart that makes a new
// token with each upgrade, so that every client is locked out, from values that
// do not reach the server, and from a rollback that does not bring them back.
func TestUpgradeAndRollbackKeepTheToken(t *testing.T) {
	t.Parallel()
	r := install(t, "lifecycle")
	token := r.token
	if len(token) < 32 {
		t.Fatalf("the chart made a token of %d characters", len(token))
	}
	executions := func() int { return r.dial(t).Limits().MaxExecutions }
	before := executions()

	if err := r.upgrade(t.Context(), "limits: {maxExecutions: 3}"); err != nil {
		t.Fatal(err)
	}
	r.keepsToken(t, token)
	eventually(t, time.Minute, "new sessions have the new limit", func(context.Context) error {
		if n := executions(); n != 3 {
			return fmt.Errorf("max_executions is %d, want 3", n)
		}
		return nil
	})

	if out, err := r.helm(t.Context(), "rollback", r.name, "1", "--wait", "--timeout", installBound.String()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r.keepsToken(t, token)
	eventually(t, time.Minute, "new sessions have the old limit", func(context.Context) error {
		if n := executions(); n != before {
			return fmt.Errorf("max_executions is %d, want %d", n, before)
		}
		return nil
	})
	r.works(t)
}

// keepsToken fails the test when the Secret holds another token than it did.
func (r *release) keepsToken(t *testing.T, token string) {
	t.Helper()
	if err := r.loadToken(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.token != token {
		t.Error("the token changed")
	}
}

// TestUninstallLeavesNothing looks through every kind of object that the API
// server has, in the namespace and outside of it. Protects from: objects that
// are not the release's, hooks that are not deleted, and a namespace that is
// not as it was.
func TestUninstallLeavesNothing(t *testing.T) {
	t.Parallel()
	r := install(t, "uninstalled")
	r.works(t)
	if out, err := r.helm(t.Context(), "test", r.name, "--timeout", installBound.String()); err != nil {
		t.Errorf("helm test: %v: %s", err, out)
	}
	seen, err := r.leftovers(t.Context())
	if err != nil || len(seen) < 8 {
		t.Fatalf("before it is uninstalled only %d objects are found (%v): %v", len(seen), err, seen)
	}
	if out, err := r.helm(t.Context(), "uninstall", r.name, "--wait", "--timeout", installBound.String()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, time.Minute, "the pods are gone", func(ctx context.Context) error {
		pods, err := r.pods(ctx)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods", len(pods))
		}
		return err
	})
	eventually(t, 30*time.Second, "nothing is left", func(ctx context.Context) error {
		left, err := r.leftovers(ctx)
		if err != nil {
			return err
		}
		return errorList(left)
	})
}

// leftovers lists the objects of the namespace that not every namespace has, and
// objects outside of it that are labelled with the release.
func (r *release) leftovers(ctx context.Context) ([]string, error) {
	lists, err := discovery.ServerPreferredResources(suite.kube.Discovery())
	if err != nil && len(lists) == 0 {
		return nil, err // a group whose server is down hides only its own kinds
	}
	objects, err := dynamic.NewForConfig(suite.rest)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, kind := range list.APIResources {
			if !slices.Contains(kind.Verbs, "list") || kind.Name == "events" || strings.HasPrefix(group.Group, "metrics.") {
				continue
			}
			names, err := r.ofKind(ctx, objects.Resource(group.WithResource(kind.Name)), kind)
			if err != nil {
				return nil, fmt.Errorf("listing %s: %w", kind.Name, err)
			}
			found = append(found, names...)
		}
	}
	return found, nil
}

// always are the objects that Kubernetes itself puts into every namespace.
var always = []string{"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"}

func (r *release) ofKind(ctx context.Context, of dynamic.NamespaceableResourceInterface,
	kind metav1.APIResource,
) ([]string, error) {
	var resource dynamic.ResourceInterface = of
	options := metav1.ListOptions{LabelSelector: r.selector()}
	if kind.Namespaced {
		resource, options = of.Namespace(r.namespace), metav1.ListOptions{}
	}
	list, err := resource.List(ctx, options)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range list.Items {
		if name := kind.Kind + "/" + list.Items[i].GetName(); !slices.Contains(always, name) {
			names = append(names, name)
		}
	}
	return names, nil
}
