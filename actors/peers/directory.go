package peers

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// Directory says which pods make up the service. Its methods do not block and are safe for
// concurrent use. Addresses come only from here, never from a client.
type Directory interface {
	// Lookup finds a pod by name.
	Lookup(pod string) (Peer, Knowledge)
	// Peers lists all known pods. The pod that asks may be among them.
	Peers() []Peer
	// Subscribe calls changed after every change, from any goroutine, until stop is called. changed
	// calls Peers, so the Directory must not call it with a lock held that Peers takes.
	Subscribe(changed func()) (stop func())
}

// Peer is a pod of the service.
type Peer struct {
	Pod  string // its name, which its session ids begin with
	Addr string // host:port of its peer listener
}

// Knowledge is what a Directory knows of a pod.
type Knowledge int

const (
	// Unknown: there is no such pod, so its sessions are lost.
	Unknown Knowledge = iota
	// Known: the pod exists, as far as the Directory can tell. Heartbeats decide whether it answers.
	Known
	// Unresolved: the Directory has not been filled yet, or has just lost sight of the pod.
	Unresolved
)

// Static is a Directory that never changes.
type Static []Peer

// Parse reads a list of name=host:port. It refuses a name or an address that occurs twice.
func Parse(list []string) (Static, error) {
	var d Static
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
func (d Static) Lookup(pod string) (Peer, Knowledge) {
	for _, p := range d {
		if p.Pod == pod {
			return p, Known
		}
	}
	return Peer{}, Unknown
}

// Peers implements Directory.
func (d Static) Peers() []Peer { return slices.Clone(d) }

// Subscribe implements Directory. A Static never changes, so it calls nothing.
func (d Static) Subscribe(func()) func() { return func() {} }
