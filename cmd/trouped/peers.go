package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/peers"
)

// peersConfig is what can be set of a service of many pods.
type peersConfig struct {
	list     []string // name=host:port of each
	service  string   // whose EndpointSlices list them instead; empty: list does
	listen   string   // empty: alone
	cert     string
	key      string
	ca       string
	certName string
	insecure bool

	directory peers.Static // of list, set by validate
}

func defaultPeers() peersConfig { return peersConfig{certName: peers.CertName} }

func peerSettings(c *config) []setting {
	p := &c.peers
	return []setting{
		{
			name: "peers", value: listValue{&p.list, "name=host:port,...", ","},
			usage: "the pods of the service with their peer addresses, this one may be among them; any of them serves the sessions of all",
		},
		{
			name: "peer-service", value: textValue{&p.service, "name"},
			usage: "headless Service in --namespace whose pods, by their EndpointSlices, are the pods of the service; their port is the one named peer",
		},
		{
			name: "peer-listen", value: textValue{&p.listen, "host:port"},
			usage: "address on which peers connect; empty: this trouped is alone",
		},
		{
			name: "peer-cert", value: textValue{&p.cert, "file"}, files: true,
			usage: "certificate shown to peers, for --peer-cert-name; read again when it changes",
		},
		{
			name: "peer-key", value: textValue{&p.key, "file"}, files: true,
			usage: "its private key",
		},
		{
			name: "peer-ca", value: textValue{&p.ca, "file"}, files: true,
			usage: "certificates of those who sign peers'",
		},
		{
			name: "peer-cert-name", value: textValue{&p.certName, "name"},
			usage: "DNS name that the certificate of every peer carries",
		},
		{
			name: "peer-insecure", value: boolValue{&p.insecure},
			usage: "talk to peers in plain text, for loopback addresses",
		},
	}
}

// validatePeers looks at what can be seen without opening anything.
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
			refuse("--peer-insecure is for loopback addresses, and %s=%s is none", peer.Pod, peer.Addr)
		}
	}
	switch {
	case p.insecure && files:
		refuse("--peer-insecure contradicts --peer-cert, --peer-key and --peer-ca")
	case p.insecure && !loopback(p.listen):
		refuse("--peer-insecure is for loopback addresses, and --peer-listen %s is none", p.listen)
	case !p.insecure && (p.cert == "" || p.key == "" || p.ca == ""):
		refuse("--peer-cert, --peer-key and --peer-ca are needed with --peer-listen; or say --peer-insecure, if all peers are on loopback addresses")
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
	s.peers = cfg
	log := s.log.With("pod", s.c.pod, "addr", cfg.Listener.Addr().String())
	if p.service != "" {
		log.Info("serving with the pods of a Service", "service", p.service, "namespace", s.c.kubernetes.namespace)
	} else {
		log.Info("serving with peers", "peers", len(p.directory))
	}
	return nil
}
