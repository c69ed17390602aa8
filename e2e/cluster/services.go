package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	containerdSocket = "/run/containerd/containerd.sock"
	// bootTimeout bounds each wait of a node's start for another service.
	bootTimeout = 2 * time.Minute
	// bootPoll is between two looks: a fraction of what the shortest start takes.
	bootPoll = 50 * time.Millisecond
)

// startServices starts what runs on the node. The images are imported while
// the control plane starts; the kubelet waits for both, since it backs off for
// seconds when it finds either of them missing.
func (n *initProcess) startServices() error {
	if err := n.serve(n.log("containerd"), "containerd", "-c", n.own("containerd.toml")); err != nil {
		return err
	}
	imported := make(chan error, 1)
	go func() { imported <- n.importImages() }()
	if n.Number == 1 {
		if err := n.startControlPlane(); err != nil {
			return err
		}
	}
	if err := n.awaitAPI(); err != nil {
		return err
	}
	if n.Number == 1 {
		if err := n.startControllers(); err != nil {
			return err
		}
	}
	if err := n.serve(n.log("kube-proxy"), "kube-proxy", "--config="+n.own("kube-proxy.yaml")); err != nil {
		return err
	}
	if err := <-imported; err != nil {
		return fmt.Errorf("importing images: %w", err)
	}
	return n.serve(n.log("kubelet"), "kubelet",
		"--config="+n.own("kubelet.yaml"),
		"--kubeconfig="+n.shared(n.Name+".conf"),
		"--hostname-override="+n.Name,
		"--node-ip="+lanAddress(n.Number),
		"--root-dir=/var/lib/kubelet",
		"--cert-dir=/var/lib/kubelet/pki",
	)
}

func (n *initProcess) log(service string) string { return n.own("log", service+".log") }

func (n *initProcess) startControlPlane() error {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	err := n.serve(n.log("etcd"), "etcd", "--name=default", "--data-dir="+n.own("etcd"),
		// A power-off here kills processes and not the machine: what was written to
		// a file stays written.
		"--unsafe-no-fsync",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer,
		"--initial-cluster=default="+peer, "--log-level=warn")
	if err != nil {
		return err
	}
	return n.serve(n.log("kube-apiserver"), append([]string{"kube-apiserver"}, n.apiServerFlags(client)...)...)
}

// apiServerFlags are kubeadm's, with an audit log.
func (n *initProcess) apiServerFlags(etcd string) []string {
	return []string{
		"--etcd-servers=" + etcd,
		"--secure-port=6443",
		"--advertise-address=" + lanAddress(1),
		"--service-cluster-ip-range=" + serviceRange,
		"--allow-privileged=true",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--client-ca-file=" + n.shared("ca.crt"),
		"--tls-cert-file=" + n.shared("apiserver.crt"),
		"--tls-private-key-file=" + n.shared("apiserver.key"),
		"--kubelet-client-certificate=" + n.shared("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + n.shared("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc." + clusterDomain,
		"--service-account-key-file=" + n.shared("sa.pub"),
		"--service-account-signing-key-file=" + n.shared("sa.key"),
		"--requestheader-client-ca-file=" + n.shared("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + n.shared("front-proxy-client.crt"),
		"--proxy-client-key-file=" + n.shared("front-proxy-client.key"),
		"--enable-aggregator-routing=true",
		"--audit-policy-file=" + n.own("audit.yaml"),
		"--audit-log-path=/var/log/audit.log",
		"--audit-log-mode=blocking-strict", // a test reads what its request wrote
	}
}

// startControllers starts what needs a complete API server: the controller
// manager ends when the default roles are not there yet.
func (n *initProcess) startControllers() error {
	controllers := n.shared("controller-manager.conf")
	err := n.serve(n.log("kube-controller-manager"), "kube-controller-manager",
		"--kubeconfig="+controllers,
		"--authentication-kubeconfig="+controllers,
		"--authorization-kubeconfig="+controllers,
		"--service-account-private-key-file="+n.shared("sa.key"),
		"--root-ca-file="+n.shared("ca.crt"),
		"--client-ca-file="+n.shared("ca.crt"),
		"--requestheader-client-ca-file="+n.shared("front-proxy-ca.crt"),
		"--cluster-signing-cert-file="+n.shared("ca.crt"),
		"--cluster-signing-key-file="+n.shared("ca.key"),
		"--controllers=*,bootstrapsigner,tokencleaner",
		"--use-service-account-credentials=true",
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
		// Faster than the defaults of 15 s and 40 s, for tests that wait for them.
		"--horizontal-pod-autoscaler-sync-period=5s",
		"--node-monitor-grace-period=20s")
	if err != nil {
		return err
	}
	scheduler := n.shared("scheduler.conf")
	err = n.serve(n.log("kube-scheduler"), "kube-scheduler",
		"--kubeconfig="+scheduler,
		"--authentication-kubeconfig="+scheduler,
		"--authorization-kubeconfig="+scheduler,
		"--leader-elect=false",
		"--bind-address=127.0.0.1")
	if err != nil {
		return err
	}
	return n.serve(n.log("coredns"), "coredns", "-conf", n.own("Corefile"))
}

// awaitAPI waits until the API server is ready, which includes its default
// roles.
func (n *initProcess) awaitAPI() error {
	ca, err := os.ReadFile(n.shared("ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
		Timeout: 5 * time.Second,
	}
	return await("the API server", func(ctx context.Context) error {
		// Anyone may ask for this, once the default roles exist.
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+APIServer+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %s", res.Status)
		}
		return nil
	})
}

// await looks again and again until ready returns nil.
func await(what string, ready func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if pause(ctx, bootPoll) != nil {
			return fmt.Errorf("%s is not ready after %s: %w", what, bootTimeout, err)
		}
	}
}

// importImages gives containerd every image that it does not have from an
// earlier start of the node.
func (n *initProcess) importImages() error {
	err := await("containerd", func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", containerdSocket)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.own("imported"), 0o755); err != nil {
		return err
	}
	for _, tarball := range n.Images {
		info, err := os.Stat(tarball)
		if err != nil {
			return err
		}
		stamp := n.own("imported", fmt.Sprintf("%s.%d.%d", filepath.Base(tarball), info.Size(), info.ModTime().UnixNano()))
		if unix.Access(stamp, unix.F_OK) == nil {
			continue
		}
		if err := n.command(n.log("import"), importCommand(tarball)...); err != nil {
			return err
		}
		if err := os.WriteFile(stamp, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// importCommand imports an image tarball on the node where it runs.
func importCommand(tarball string) []string {
	return []string{"ctr", "-a", containerdSocket, "-n", "k8s.io", "images", "import", "--local", tarball}
}
