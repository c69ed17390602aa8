package k8s

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/rest"
)

// ServiceAccountDir is where the kubelet mounts a pod's service account: the files token, ca.crt
// and namespace.
const ServiceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// Cluster tells how to reach an API server and with which identity.
type Cluster struct {
	REST      *rest.Config // NewClient copies it
	Namespace string       // of the service account; empty: unknown
}

// InCluster returns the cluster that this pod is in. host and port are those of the API server,
// which the kubelet passes to every container as KUBERNETES_SERVICE_HOST and
// KUBERNETES_SERVICE_PORT; dir is usually ServiceAccountDir. The error wraps ErrNoCluster and names
// what is missing.
//
// It differs from rest.InClusterConfig (client-go v0.37) in three ways: the directory is a
// parameter, the error says which file is missing, and an unreadable certificate authority is an
// error, where client-go logs it and trusts the system's.
func InCluster(host, port, dir string) (*Cluster, error) {
	if host == "" || port == "" {
		return nil, fmt.Errorf("%w: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set", ErrNoCluster)
	}
	token, ca := filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt")
	for _, file := range []string{token, ca} {
		content, err := os.ReadFile(file)
		if err == nil && len(content) == 0 {
			err = &os.PathError{Op: "read", Path: file, Err: errors.New("the file is empty")}
		}
		if err != nil {
			return nil, fmt.Errorf("%w: the pod has no service account token mounted: %w", ErrNoCluster, err)
		}
	}
	namespace, _ := os.ReadFile(filepath.Join(dir, "namespace")) // optional: --namespace can replace it
	return &Cluster{
		REST: &rest.Config{
			Host:            "https://" + net.JoinHostPort(host, port),
			TLSClientConfig: rest.TLSClientConfig{CAFile: ca},
			BearerTokenFile: token, // client-go reads it again every minute; the kubelet renews it
		},
		Namespace: strings.TrimSpace(string(namespace)),
	}, nil
}
