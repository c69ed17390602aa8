package actors

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// Directory says which pods make up the service. Its methods do not block and
// are safe for concurrent use. An address comes from here only, never from a client.
type Directory interface {
	// Lookup finds a pod by its name.
	Lookup(pod string) (Peer, PeerKnowledge)
	// Peers lists all pods that are known. The pod that asks may be among them.
	Peers() []Peer
	// Subscribe calls changed after every change, from any goroutine, until stop is
	// called. changed calls Peers, so it must be called without a lock that Peers takes.
	Subscribe(changed func()) (stop func())
}

// Peer is a pod of the service.
type Peer struct {
	Pod  string // its name, which its session ids begin with
	Addr string // host:port of its peer listener
}

// PeerKnowledge is what a Directory knows of a pod.
type PeerKnowledge int

const (
	// PeerUnknown: there is no such pod, so its sessions are lost.
	PeerUnknown PeerKnowledge = iota
	// PeerKnown: the pod exists, as far as is known. Whether it answers is for heartbeats to say.
	PeerKnown
	// PeerUndecided: the Directory has not been filled yet, or has just lost sight of the pod.
	PeerUndecided
)

// StaticDirectory is a Directory that never changes.
type StaticDirectory []Peer

// ParsePeers reads a list of name=host:port. A name or an address that is there twice is refused.
func ParsePeers(list []string) (StaticDirectory, error) {
	var d StaticDirectory
	for _, item := range list {
		name, addr, ok := strings.Cut(item, "=")
		host, port, err := net.SplitHostPort(addr)
		if !ok || name == "" || err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("a peer is written name=host:port, got %q", item)
		}
		for _, p := range d {
			if p.Pod == name || p.Addr == addr {
				return nil, fmt.Errorf("the peers %s=%s and %s are the same pod or the same address", p.Pod, p.Addr, item)
			}
		}
		d = append(d, Peer{Pod: name, Addr: addr})
	}
	return d, nil
}

// Lookup implements Directory.
func (d StaticDirectory) Lookup(pod string) (Peer, PeerKnowledge) {
	for _, p := range d {
		if p.Pod == pod {
			return p, PeerKnown
		}
	}
	return Peer{}, PeerUnknown
}

// Peers implements Directory.
func (d StaticDirectory) Peers() []Peer { return slices.Clone(d) }

// Subscribe implements Directory: there is nothing to tell.
func (d StaticDirectory) Subscribe(func()) func() { return func() {} }
