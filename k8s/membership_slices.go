package k8s

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"
)

// What is read of discovery.k8s.io/v1. The types of k8s.io/api come with those of
// core/v1, 3 MB of them, and their decoders.
type (
	endpointSliceList struct {
		Kind     string
		Metadata struct{ ResourceVersion string }
		Items    []*endpointSlice
	}

	endpointSlice struct {
		Kind        string // empty in a list
		Metadata    struct{ Name, ResourceVersion string }
		AddressType string // IPv4, IPv6 or FQDN
		Endpoints   []endpoint
		Ports       []endpointPort
	}

	endpoint struct {
		Addresses  []string // only the first means anything
		Conditions struct {
			Terminating *bool
		}
		TargetRef *struct{ Kind, Namespace, Name string }
	}

	endpointPort struct {
		Name     string
		Protocol string // empty: TCP
		Port     int
	}
)

// candidate is one of the endpoints of a pod, which may have several: while it
// moves from one slice to another, when it came back under another address, and
// for each of two address families.
type candidate struct {
	addr        string
	ipv4        bool
	terminating bool
	version     uint64 // of the slice
}

// compare orders by what is to be preferred: the pod that lives over its
// predecessor of the same name, IPv4 over IPv6 so that every pod takes the same of
// two, and what was written later. The address decides when nothing else does, so
// that the order of slices does not.
func (c candidate) compare(d candidate) int {
	return cmp.Or(
		-compareBool(c.terminating, d.terminating),
		compareBool(c.ipv4, d.ipv4),
		cmp.Compare(c.version, d.version),
		cmp.Compare(c.addr, d.addr),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// membersOf returns the addresses of pods by their names. What is no pod of the
// namespace, or has no IP address or no such port, is left out. noPort says that no
// slice with endpoints has the port.
//
// Conditions do not matter but for the choice: a pod that is not ready or terminates has sessions.
func membersOf(all map[string]*endpointSlice, namespace, portName string) (members map[string]string, noPort bool) {
	best := make(map[string]candidate)
	endpoints, withPort := false, false
	for _, s := range all {
		endpoints = endpoints || len(s.Endpoints) > 0
		port := s.port(portName)
		if port == "" {
			continue
		}
		withPort = true
		// Numbers that grow, since Kubernetes 1.35 by contract (KEP-5504). What is none comes last.
		version, _ := strconv.ParseUint(s.Metadata.ResourceVersion, 10, 64)
		for _, e := range s.Endpoints {
			pod, ip := e.pod(namespace), s.ip(&e)
			if pod == "" || !ip.IsValid() {
				continue
			}
			c := candidate{
				addr: net.JoinHostPort(ip.String(), port), ipv4: ip.Is4(), version: version,
				terminating: e.Conditions.Terminating != nil && *e.Conditions.Terminating,
			}
			if before, ok := best[pod]; !ok || c.compare(before) > 0 {
				best[pod] = c
			}
		}
	}
	members = make(map[string]string, len(best))
	for pod, c := range best {
		members[pod] = c.addr
	}
	return members, endpoints && !withPort
}

// port returns the number of the TCP port of a name, or "".
func (s *endpointSlice) port(name string) string {
	for _, p := range s.Ports {
		if p.Name == name && (p.Protocol == "" || p.Protocol == "TCP") && p.Port > 0 && p.Port <= 0xffff {
			return strconv.Itoa(p.Port)
		}
	}
	return ""
}

// ip returns an endpoint's address; invalid: it has none of the slice's type.
func (s *endpointSlice) ip(e *endpoint) netip.Addr {
	if len(e.Addresses) == 0 {
		return netip.Addr{}
	}
	ip, err := netip.ParseAddr(e.Addresses[0])
	if err != nil || ip.Zone() != "" || ip.IsUnspecified() ||
		!(ip.Is4() && s.AddressType == "IPv4" || ip.Is6() && s.AddressType == "IPv6") {
		return netip.Addr{}
	}
	return ip
}

// pod returns the name of an endpoint's pod, or "".
func (e *endpoint) pod(namespace string) string {
	if r := e.TargetRef; r != nil && r.Kind == "Pod" && (r.Namespace == "" || r.Namespace == namespace) {
		return r.Name
	}
	return ""
}
