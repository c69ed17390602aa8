package k8s

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// candidate is one endpoint of a pod. A pod may have several: while it moves from one slice to
// another, after it restarted with another address, and if the Service has two address families.
type candidate struct {
	addr        string
	ipv4        bool
	terminating bool
	version     uint64 // of the slice
}

// compare orders candidates by preference. A running pod wins over its terminating predecessor of
// the same name; IPv4 wins over IPv6, so that every pod picks the same of two; a later slice wins
// over an earlier one. The address breaks ties, so that the result does not depend on the order of
// slices.
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

// membersOf returns the addresses of the namespace's pods by name. It skips endpoints that are not
// pods or have no IP address, and slices without the port. noPort reports that there are endpoints,
// but no slice has the port.
//
// A pod that is not ready or is terminating still has sessions, so conditions only decide which of
// a pod's endpoints counts.
func membersOf(
	all map[string]*discoveryv1.EndpointSlice, namespace, portName string,
) (members map[string]string, noPort bool) {
	best := make(map[string]candidate)
	endpoints, withPort := false, false
	for _, s := range all {
		endpoints = endpoints || len(s.Endpoints) > 0
		port := portOf(s, portName)
		if port == "" {
			continue
		}
		withPort = true
		// Resource versions are comparable numbers by contract since Kubernetes 1.35, and were in
		// practice before that: https://kep.k8s.io/5504. One that is not a number counts as the oldest.
		version, _ := strconv.ParseUint(s.ResourceVersion, 10, 64)
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			pod, ip := podOf(e, namespace), ipOf(e, s.AddressType)
			if pod == "" || !ip.IsValid() {
				continue
			}
			c := candidate{
				addr: net.JoinHostPort(ip.String(), port), ipv4: ip.Is4(), version: version,
				terminating: ptr.Deref(e.Conditions.Terminating, false),
			}
			if other, ok := best[pod]; !ok || c.compare(other) > 0 {
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

// portOf returns the number of a slice's TCP port by name, or "".
func portOf(s *discoveryv1.EndpointSlice, name string) string {
	for _, p := range s.Ports {
		number := ptr.Deref(p.Port, 0)
		if ptr.Deref(p.Name, "") == name && ptr.Deref(p.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP &&
			number > 0 && number <= 0xffff {
			return strconv.Itoa(int(number))
		}
	}
	return ""
}

// ipOf returns an endpoint's address. It is invalid if the endpoint has none of the slice's type.
// Only the first address counts: the API defines no meaning for others, and the EndpointSlice
// controller writes exactly one (Endpoint.Addresses in k8s.io/api/discovery/v1 v0.37).
func ipOf(e *discoveryv1.Endpoint, family discoveryv1.AddressType) netip.Addr {
	if len(e.Addresses) == 0 {
		return netip.Addr{}
	}
	ip, err := netip.ParseAddr(e.Addresses[0])
	if err != nil || ip.Zone() != "" || ip.IsUnspecified() {
		return netip.Addr{}
	}
	if family == discoveryv1.AddressTypeIPv4 && ip.Is4() || family == discoveryv1.AddressTypeIPv6 && ip.Is6() {
		return ip
	}
	return netip.Addr{}
}

// podOf returns the name of an endpoint's pod, or "".
func podOf(e *discoveryv1.Endpoint, namespace string) string {
	if r := e.TargetRef; r != nil && r.Kind == "Pod" && (r.Namespace == "" || r.Namespace == namespace) {
		return r.Name
	}
	return ""
}
