package observability

import (
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// apiServer answers what trouped asks a Kubernetes API server, or fails to: the way
// to provoke the failures that panels and alerts are about. A real one is asked in
// the other tests of e2e.
type apiServer struct {
	srv     *httptest.Server
	failing atomic.Bool
	peers   *sliceAPI
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	a := &apiServer{peers: newSliceAPI()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", func(w http.ResponseWriter, r *http.Request) {
		var review authenticationv1.TokenReview
		if !decode(w, r, &review) {
			return
		}
		review.Status = authenticationv1.TokenReviewStatus{
			Authenticated: true, Audiences: review.Spec.Audiences,
			User: authenticationv1.UserInfo{Username: "system:serviceaccount:demo:ci"},
		}
		answer(w, &review)
	})
	mux.HandleFunc("POST /apis/authorization.k8s.io/v1/subjectaccessreviews",
		func(w http.ResponseWriter, r *http.Request) {
			var review authorizationv1.SubjectAccessReview
			if !decode(w, r, &review) {
				return
			}
			review.Status.Allowed = true
			answer(w, &review)
		})
	mux.HandleFunc("PATCH /api/v1/namespaces/"+namespace+"/pods/{pod}", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]string{"kind": "Pod", "apiVersion": "v1"})
	})
	mux.HandleFunc("POST /api/v1/namespaces/"+namespace+"/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"kind":"Event","apiVersion":"v1"}`))
	})
	mux.HandleFunc("GET /apis/discovery.k8s.io/v1/namespaces/"+namespace+"/endpointslices", a.peers.serve)
	a.srv = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.failing.Load() {
			http.Error(w, "etcd is gone", http.StatusInternalServerError)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(a.srv.Close)
	return a
}

// fail makes it fail from now on, until goOn is called. What was open has ended.
func (a *apiServer) fail() (goOn func()) {
	a.failing.Store(true)
	a.peers.cut()
	return func() { a.failing.Store(false) }
}

func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // a client that has gone needs no answer
}

// env is what Kubernetes gives to every container.
func (a *apiServer) env() []string {
	u, err := url.Parse(a.srv.URL)
	if err != nil {
		panic(err) // httptest made it
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		panic(err)
	}
	return []string{"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port}
}

// pod wraps a command so that it finds a service account where a pod has one: in a
// mount namespace of its own, since that place is fixed.
func (a *apiServer) pod(t *testing.T, args []string) []string {
	t.Helper()
	account := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.srv.Certificate().Raw})
	for name, content := range map[string]string{"token": "pod-token", "ca.crt": string(ca), "namespace": namespace} {
		if err := os.WriteFile(filepath.Join(account, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unshare := []string{"unshare", "--mount"}
	if os.Getuid() != 0 {
		unshare = append(unshare, "--map-current-user", "--keep-caps")
	}
	if out, err := exec.Command(unshare[0], append(unshare[1:], "true")...).CombinedOutput(); err != nil {
		t.Fatalf("a mount namespace is needed: %v: %s", err, out)
	}
	const enter = `set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
mount --bind "$1" /run/secrets/kubernetes.io/serviceaccount
shift
exec "$@"`
	return append(append(unshare, "sh", "-c", enter, "sh", account), append(args, "--auth", "kubernetes")...)
}
