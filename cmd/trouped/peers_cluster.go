package main

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/k8s"
)

// peerPort is the name of the port in the Service of --peer-service.
const peerPort = "peer"

// serviceName matches a DNS label that begins with a letter (RFC 1035), as a Service's name must.
var serviceName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (p *peersConfig) validateService() error {
	switch {
	case p.service == "":
		return nil
	case len(p.list) > 0:
		return errors.New("--peer-service contradicts --peers: use one of them to list the pods")
	case !serviceName.MatchString(p.service):
		return fmt.Errorf("--peer-service must be the name of a Service, got %q", p.service)
	case p.insecure:
		return errors.New("--peer-service contradicts --peer-insecure: no pod of a Service has a loopback address")
	}
	return nil
}

// openDirectory returns the directory of peers. With --peer-service it is empty at first:
// trouped does not wait for the API server.
func (s *server) openDirectory() (peers.Directory, error) {
	p := &s.c.peers
	if p.service == "" {
		return p.directory, nil
	}
	membership, err := k8s.NewMembership(k8s.MembershipConfig{
		Client: s.cluster, Namespace: s.c.kubernetes.namespace, Service: p.service, Port: peerPort,
	})
	if err != nil {
		return nil, err
	}
	s.onClose("membership", func() error { membership.Close(); return nil })
	return serviceDirectory{membership}, nil
}

// serviceDirectory turns EndpointSlices into the engine's peers.
type serviceDirectory struct{ *k8s.Membership }

func (d serviceDirectory) Lookup(pod string) (peers.Peer, peers.Knowledge) {
	addr, known := d.Membership.Lookup(pod)
	switch known {
	case k8s.Known:
		return peers.Peer{Pod: pod, Addr: addr}, peers.Known
	case k8s.Unresolved:
		return peers.Peer{}, peers.Unresolved
	}
	return peers.Peer{}, peers.Unknown
}

func (d serviceDirectory) Peers() []peers.Peer {
	members := d.Members()
	all := make([]peers.Peer, len(members))
	for i, m := range members {
		all[i] = peers.Peer(m)
	}
	return all
}
