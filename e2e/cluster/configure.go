package cluster

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"text/template"
)

//go:embed config
var configFiles embed.FS

// settings is what the files in config/ are templates of.
type settings struct {
	Node, Address, PodRange, Cgroup        string
	PodRanges, DNS, DNSService, Domain     string
	CA, Kubeconfig, ProxyConf, CoreDNSConf string
	Sandbox, Socket                        string
	MaxFiles                               uint64
}

// placed says where the files in config/ go: below the node's own directory
// or, when the path is absolute, to that place in the node's view.
var placed = map[string]string{
	"audit.yaml":      "audit.yaml",
	"containerd.toml": "containerd.toml",
	"Corefile":        "Corefile",
	"kubelet.yaml":    "kubelet.yaml",
	"kube-proxy.yaml": "kube-proxy.yaml",
	"pods.conflist":   "/etc/cni/net.d/10-pods.conflist",
	"resolv.conf":     "/etc/resolv.conf",
}

// configure writes the configuration of every service of the node.
func (n *initProcess) configure() error {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	s := settings{
		Node:        n.Name,
		Address:     lanAddress(n.Number),
		PodRange:    podRange(n.Number),
		Cgroup:      "/" + nodeCgroup(n.Cgroup, n.Name),
		PodRanges:   podRanges,
		DNS:         DNSAddress,
		DNSService:  dnsServiceIP,
		Domain:      clusterDomain,
		CA:          n.shared("ca.crt"),
		ProxyConf:   n.shared("kube-proxy.conf"),
		CoreDNSConf: n.shared("coredns.conf"),
		Sandbox:     imagePause,
		Socket:      containerdSocket,
		// The kubelet sets this limit for itself and needs CAP_SYS_RESOURCE to
		// raise it: so no more than it has.
		MaxFiles: min(files.Max, 1000000),
	}
	for name, place := range placed {
		text, err := render(name, s)
		if err != nil {
			return err
		}
		if !filepath.IsAbs(place) {
			place = n.own(place)
		}
		if err := replace(place, text); err != nil {
			return err
		}
	}
	if err := replace("/etc/hostname", []byte(n.Name+"\n")); err != nil {
		return err
	}
	return replace("/etc/hosts", []byte(hosts(n.Name)))
}

func render(name string, s settings) ([]byte, error) {
	text, err := configFiles.ReadFile("config/" + name)
	if err != nil {
		return nil, err
	}
	t, err := template.New(name).Option("missingkey=error").Parse(string(text))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, s); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b.Bytes(), nil
}

// replace replaces a file. The old one may be a symbolic link to a place
// that the node does not have, as /etc/resolv.conf often is.
func replace(file string, content []byte) error {
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}
