package k8s

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/troupe-dev/troupe/e2e/cluster"
	product "github.com/troupe-dev/troupe/k8s"
)

// bound is how long anything may take that the API server or trouped does by
// itself: it caches what it knows of tokens for 10 s.
const bound = 60 * time.Second

// The API server of all tests.
var (
	server *envtest.Environment
	admin  *rest.Config
	kube   kubernetes.Interface
	bin    string // trouped, troupe and troupe-runner, built by binaries
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	programs := cluster.ControlPlane()
	if programs == "" {
		const why = "no etcd and kube-apiserver: set KUBEBUILDER_ASSETS, or build the test cluster's programs (go run ./cmd/cluster build)"
		if os.Getenv("E2E") == "1" {
			fmt.Fprintln(os.Stderr, "e2e/k8s:", why)
			return 1
		}
		fmt.Println("e2e/k8s: skipped:", why)
		return 0
	}
	scratch, err := os.MkdirTemp("", "troupe-k8s-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(scratch)
	bin = filepath.Join(scratch, "bin")
	server = &envtest.Environment{BinaryAssetsDirectory: programs, ControlPlaneStartTimeout: time.Minute}
	defer func() { restarted(); _ = server.Stop() }()
	if admin, err = server.Start(); err == nil {
		admin.QPS, admin.Burst = 100, 200
		kube, err = kubernetes.NewForConfig(admin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e/k8s:", err)
		return 1
	}
	return m.Run()
}

// restarted ends the API server if a test has restarted it: see restart.
var restarted = func() {}

// binaries builds the product's programs, once.
var binaries = sync.OnceValue(func() error {
	for _, name := range []string{"trouped", "troupe", "troupe-runner"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(bin, name), "./cmd/"+name)
		cmd.Dir = "../.." // in its own module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
})

// space is a namespace with a service account for trouped and what an
// installation binds to it.
type space struct {
	t    *testing.T
	name string
	dir  string // trouped's service account, as in a pod
	logs logs
	reg  *prometheus.Registry
}

// newSpace makes the least that trouped needs, as the chart does.
func newSpace(t *testing.T) *space {
	t.Helper()
	ns, err := kube.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "troupe-"}}, metav1.CreateOptions{})
	must(t, err)
	s := &space{t: t, name: ns.Name, dir: t.TempDir(), reg: prometheus.NewRegistry()}
	s.account("troupe")
	s.grant("troupe", "troupe",
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"patch"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}})
	_, err = kube.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: s.name, Name: "troupe"}},
	}, metav1.CreateOptions{})
	must(t, err)
	s.write("token", s.token("troupe", nil))
	s.write("ca.crt", string(admin.CAData))
	s.write("namespace", s.name)
	return s
}

func (s *space) write(name, content string) {
	s.t.Helper()
	must(s.t, os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600))
}

func (s *space) account(name string) {
	s.t.Helper()
	_, err := kube.CoreV1().ServiceAccounts(s.name).Create(s.t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(s.t, err)
}

// grant makes a Role and its binding, both with a name, to a service account.
func (s *space) grant(name, account string, rules ...rbacv1.PolicyRule) {
	s.t.Helper()
	meta := metav1.ObjectMeta{Name: name}
	_, err := kube.RbacV1().Roles(s.name).Create(s.t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: rules},
		metav1.CreateOptions{})
	must(s.t, err)
	_, err = kube.RbacV1().RoleBindings(s.name).Create(s.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: s.name, Name: account}},
	}, metav1.CreateOptions{})
	must(s.t, err)
}

// withdraw undoes grant.
func (s *space) withdraw(name string) {
	s.t.Helper()
	must(s.t, kube.RbacV1().RoleBindings(s.name).Delete(s.t.Context(), name, metav1.DeleteOptions{}))
}

// token asks for a token of a service account. No audience: the API server's own.
func (s *space) token(account string, boundTo *authenticationv1.BoundObjectReference, audiences ...string) string {
	s.t.Helper()
	request, err := kube.CoreV1().ServiceAccounts(s.name).CreateToken(s.t.Context(), account,
		&authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, BoundObjectRef: boundTo},
		}, metav1.CreateOptions{})
	must(s.t, err)
	return request.Status.Token
}

// cluster is what a trouped in a pod of the namespace finds.
func (s *space) cluster() *product.Cluster {
	s.t.Helper()
	host, port := address()
	cluster, err := product.InCluster(host, port, s.dir)
	must(s.t, err)
	return cluster
}

// address is the API server's.
func address() (host, port string) {
	at := server.ControlPlane.APIServer.SecureServing
	return at.Address, at.Port
}

// client is trouped's.
func (s *space) client() *product.Client {
	s.t.Helper()
	c, err := product.NewClient(product.ClientConfig{
		Cluster: s.cluster(), Version: "e2e", Logger: slog.New(slog.NewTextHandler(&s.logs, nil)),
		Metrics: product.NewMetrics(s.reg),
	})
	must(s.t, err)
	return c
}

// failures are what troupe_kubernetes_failures_total says of all operations.
func (s *space) failures() int {
	s.t.Helper()
	families, err := s.reg.Gather()
	must(s.t, err)
	n := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "troupe_kubernetes_failures_total" {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

// pod creates a pod of a service account. No kubelet runs it.
func (s *space) pod(name, account string) product.Pod {
	s.t.Helper()
	made, err := kube.CoreV1().Pods(s.name).Create(s.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"example.com/note": "mine"}},
		Spec: corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{
			Name:  "server",
			Image: "none",
		}}},
	}, metav1.CreateOptions{})
	must(s.t, err)
	return product.Pod{Namespace: s.name, Name: name, UID: string(made.UID)}
}

// logs is a log that may be read while it is written.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logs) count(text string) int { return strings.Count(l.String(), text) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for check to return nil.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: still %v after %v", what, err, bound)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
