package chart

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/troupe-dev/troupe/e2e/cluster"
)

// apiServer is an API server to test against: of the cluster that E2E_KUBECONFIG
// names, or one started for the tests.
type apiServer struct {
	kubeconfig string
	client     dynamic.Interface
	mapper     meta.ResettableRESTMapper
	warnings   *warnings
}

// warnings collects what the API server says of objects it takes nevertheless,
// such as that a Deployment's pods would violate the Pod Security Standard.
type warnings struct {
	mu  sync.Mutex
	all []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, text)
}

// take returns the warnings since the last call.
func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.all
	w.all = nil
	return all
}

// needAPIServer returns the API server, or skips the test.
func needAPIServer(t *testing.T) *apiServer {
	t.Helper()
	kubeconfig, err := sharedKubeconfig()
	if err != nil {
		t.Fatal(err)
	}
	if kubeconfig == "" {
		if os.Getenv("E2E") == "1" {
			t.Fatal("E2E=1, and there are no programs of a cluster to start an API server from")
		}
		t.Skip("no API server: set E2E_KUBECONFIG or KUBEBUILDER_ASSETS, or build the test cluster's programs")
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	s := &apiServer{kubeconfig: kubeconfig, warnings: &warnings{}}
	config.WarningHandler = s.warnings
	config.QPS, config.Burst = 100, 200
	if s.client, err = dynamic.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d))
	return s
}

// sharedKubeconfig is "" where there is no API server and no program to start one from.
var sharedKubeconfig = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("E2E_KUBECONFIG"); path != "" {
		return path, nil
	}
	programs := cluster.ControlPlane()
	if programs == "" {
		return "", nil
	}
	crds, err := exec.Command("go", "list", "-m", "-f",
		"{{.Dir}}/config/crd/standard/gateway.networking.k8s.io_httproutes.yaml", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the definition of HTTPRoute: %w", err)
	}
	env := &envtest.Environment{
		BinaryAssetsDirectory: programs, CRDDirectoryPaths: []string{strings.TrimSpace(string(crds))},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: time.Minute,
	}
	if _, err := env.Start(); err != nil {
		return "", err
	}
	cleanups = append(cleanups, func() { _ = env.Stop() })
	dir, err := os.MkdirTemp("", "troupe-chart-")
	if err != nil {
		return "", err
	}
	cleanups = append(cleanups, func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "kubeconfig")
	return path, os.WriteFile(path, env.KubeConfig, 0o600)
})

// namespace makes a namespace for one test in which restricted pods are asked for.
func (s *apiServer) namespace(t *testing.T, name string) string {
	t.Helper()
	ns := &unstructured.Unstructured{}
	ns.SetAPIVersion("v1")
	ns.SetKind("Namespace")
	ns.SetGenerateName("troupe-chart-" + name + "-")
	ns.SetLabels(map[string]string{
		"pod-security.kubernetes.io/enforce": "restricted",
		"pod-security.kubernetes.io/warn":    "restricted",
	})
	made, err := s.resource(t, ns).Create(t.Context(), ns, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.resource(t, ns).Delete(context.Background(), made.GetName(), metav1.DeleteOptions{}); err != nil &&
			!apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return made.GetName()
}

// resource is where objects of o's kind are made.
func (s *apiServer) resource(t *testing.T, o *unstructured.Unstructured) dynamic.ResourceInterface {
	t.Helper()
	mapping, err := s.mapper.RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
	if err != nil {
		t.Fatal(err)
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return s.client.Resource(mapping.Resource).Namespace(o.GetNamespace())
	}
	return s.client.Resource(mapping.Resource)
}

// TestAPIServerAcceptsEveryRendering makes every object of every rendering, for
// a trial, with strict field validation and in a restricted namespace. Protects
// from: what only the API server knows, such as the rules of HTTPRoute, ranges
// of numbers and names, and from pods that the namespace would refuse later.
func TestAPIServerAcceptsEveryRendering(t *testing.T) {
	s := needAPIServer(t)
	ns := s.namespace(t, "rendering")
	forEach(t, func(t *testing.T, _ string, r *rendering) {
		s.warnings.take()
		var made int
		for _, o := range r.objects {
			object := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(o.text), &object.Object); err != nil {
				t.Fatal(err)
			}
			if _, err := s.mapper.RESTMapping(object.GroupVersionKind().GroupKind(),
				object.GroupVersionKind().Version); meta.IsNoMatchError(err) {
				if core := strings.HasSuffix(object.GroupVersionKind().Group, ".k8s.io"); core && o.Kind != "HTTPRoute" {
					t.Errorf("the API server does not know %s", object.GroupVersionKind())
				}
				continue // of an operator that this cluster does not have: see TestEveryFieldIsKnown
			}
			if object.GetNamespace() != "" {
				object.SetNamespace(ns)
			}
			options := metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict, DryRun: []string{metav1.DryRunAll}}
			if o.Kind == "ServiceAccount" {
				options.DryRun = nil // a pod is refused when its account is not there
			}
			if _, err := s.resource(t, object).Create(t.Context(), object, options); err != nil &&
				!apierrors.IsAlreadyExists(err) {
				t.Errorf("%s %s: %v", o.Kind, o.Metadata.Name, err)
			}
			made++
		}
		if said := s.warnings.take(); len(said) > 0 {
			t.Errorf("the API server warns:\n%s", strings.Join(said, "\n"))
		}
		if made < 5 {
			t.Errorf("only %d objects were looked at", made)
		}
	})
}

// TestAPIServerRefuses shows that the test above can fail.
func TestAPIServerRefuses(t *testing.T) {
	s := needAPIServer(t)
	ns := s.namespace(t, "refused")
	deployment := func() *unstructured.Unstructured {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(renderNamed(t, "default").find("Deployment")[0].text), &o.Object); err != nil {
			t.Fatal(err)
		}
		o.SetNamespace(ns)
		return o
	}
	options := metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict, DryRun: []string{metav1.DryRunAll}}

	unknown := deployment()
	_ = unstructured.SetNestedField(unknown.Object, true, "spec", "template", "spec", "automount")
	if _, err := s.resource(t, unknown).Create(t.Context(), unknown, options); err == nil ||
		!strings.Contains(err.Error(), "unknown field") {
		t.Errorf("an unknown field is answered with %v", err)
	}
	s.warnings.take()
	root := deployment()
	_ = unstructured.SetNestedField(root.Object, true, "spec", "template", "spec", "hostNetwork")
	if _, err := s.resource(t, root).Create(t.Context(), root, options); err != nil {
		t.Error(err)
	}
	if said := s.warnings.take(); !slices.ContainsFunc(said,
		func(w string) bool { return strings.Contains(w, "would violate PodSecurity") }) {
		t.Errorf("a pod in the host's network gets the warnings %v", said)
	}
}
