package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/spf13/pflag"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

// peersConfig holds the settings of a service of several pods.
type peersConfig struct {
	list     []string // name=host:port of each
	service  string   // whose EndpointSlices list the pods; empty: see list
	listen   string   // empty: no peers
	cert     string
	key      string
	ca       string
	certName string
	insecure bool

	directory peers.Static // of list, set by validate
}

func defaultPeers() peersConfig { return peersConfig{certName: peers.CertName} }

func (c *config) peerFlags(fs *pflag.FlagSet) {
	p := &c.peers
	fs.Var(settings.List(&p.list, "name=host:port,...", ","), "peers",
		"pods of the service with their peer addresses; may include this pod; each pod serves the sessions of all pods")
	fs.Var(settings.Text(&p.service, "name"), "peer-service",
		"headless Service in --namespace whose EndpointSlices list the pods of the service, with a port named peer")
	fs.Var(settings.Text(&p.listen, "host:port"), "peer-listen",
		"address on which peers connect; empty: this trouped has no peers")
	fs.Var(settings.Text(&p.cert, "file"), "peer-cert",
		"certificate for --peer-cert-name to present to peers; read again when it changes")
	fs.Var(settings.Text(&p.key, "file"), "peer-key", "private key of --peer-cert")
	fs.Var(settings.Text(&p.ca, "file"), "peer-ca", "certificates of the authorities that sign peers' certificates")
	fs.Var(settings.Text(&p.certName, "name"), "peer-cert-name", "DNS name that the certificate of every peer carries")
	settings.Bool(fs, &p.insecure, "peer-insecure", "", "talk to peers in plain text, on loopback addresses only")
}

// validatePeers checks what can be checked without opening files or sockets.
func (c *config) validatePeers() (err error) {
	p := &c.peers
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	files := p.cert != "" || p.key != "" || p.ca != ""
	if p.listen == "" {
		if len(p.list) > 0 || p.service != "" || files || p.insecure {
			refuse("--peer-listen must name the address on which peers connect")
		}
		return errors.Join(errs...)
	}
	if _, _, err := net.SplitHostPort(p.listen); err != nil {
		refuse("--peer-listen must be host:port, got %q", p.listen)
	}
	if err := p.validateService(); err != nil {
		errs = append(errs, err)
	}
	if p.directory, err = peers.Parse(p.list); err != nil {
		refuse("--peers: %w", err)
	}
	for _, peer := range p.directory {
		if !podName.MatchString(peer.Pod) {
			refuse("--peers: the name of a pod is 1 to 253 of the characters A-Z a-z 0-9 . - _, got %q", peer.Pod)
		}
		if p.insecure && !loopback(peer.Addr) {
			refuse("--peer-insecure is for loopback addresses, and %s=%s is not one", peer.Pod, peer.Addr)
		}
	}
	switch {
	case p.insecure && files:
		refuse("--peer-insecure contradicts --peer-cert, --peer-key and --peer-ca")
	case p.insecure && !loopback(p.listen):
		refuse("--peer-insecure is for loopback addresses, and --peer-listen %s is not one", p.listen)
	case !p.insecure && (p.cert == "" || p.key == "" || p.ca == ""):
		refuse("--peer-cert, --peer-key and --peer-ca are needed with --peer-listen; " +
			"or use --peer-insecure if all peers are on loopback addresses")
	case p.certName == "":
		refuse("--peer-cert-name must be the name in peers' certificates")
	}
	return errors.Join(errs...)
}

// openPeers binds the peer listener. The engine serves and closes it.
func (s *server) openPeers() error {
	p := &s.c.peers
	if p.listen == "" {
		return nil
	}
	cfg := new(actors.PeersConfig)
	directory, err := s.openDirectory()
	if err != nil {
		return err
	}
	cfg.Directory = directory
	if !p.insecure {
		if cfg.TLS, err = peers.NewTLS(p.cert, p.key, p.ca, p.certName, s.log); err != nil {
			return fmt.Errorf("--peer-cert, --peer-key, --peer-ca: %w", err)
		}
	}
	if cfg.Listener, err = bind("peer-listen", p.listen); err != nil {
		return err
	}
	s.onClose("peer listener", cfg.Listener.Close)
	cfg.Listener = s.keepFromCommands(cfg.Listener, "peer")
	s.peers = cfg
	log := s.log.With("pod", s.c.pod, "addr", cfg.Listener.Addr().String())
	if p.service != "" {
		log.Info("serving with the pods of a Service", "service", p.service, "namespace", s.c.kubernetes.namespace)
	} else {
		log.Info("serving with peers", "peers", len(p.directory))
	}
	return nil
}
