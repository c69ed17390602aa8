package cluster

import (
	"fmt"
	"os"
	"strings"
)

// lanAddress is the address of a node.
func lanAddress(number int) string { return fmt.Sprintf("10.99.0.%d", number) }

// podRange is the range of the addresses of a node's pods.
func podRange(number int) string { return fmt.Sprintf("10.244.%d.0/24", number) }

const (
	podRanges      = "10.244.0.0/16"
	serviceRange   = "10.96.0.0/16"
	apiServiceIP   = "10.96.0.1" // the first of serviceRange, by Kubernetes' rule
	dnsServiceIP   = "10.96.0.10"
	clientBridge   = "lan0"
	nodeInterface  = "eth0"
	clusterDomain  = "cluster.local"
	clientHostname = "client"
)

// clientLinks are the commands of ip(8) for the namespace of clients. A bridge
// joins the nodes. No link leads out: packets without a route are answered with "no
// route to host" at once, so that nothing waits for a timeout.
func clientLinks() []string {
	links := []string{
		"link set lo up",
		// With an address of its own: it would take the lowest of its ports', and change it when that
		// node loses its power.
		"link add dev " + clientBridge + " address 02:00:00:00:00:fe type bridge",
		"link set " + clientBridge + " up",
		"addr add " + ClientAddress + "/24 dev " + clientBridge,
		"route add unreachable default",
		// The first node is the load balancer.
		"route add " + IngressAddress + "/32 via " + lanAddress(1),
		"route add " + serviceRange + " via " + lanAddress(1),
	}
	for m := 1; m <= maxNodes; m++ {
		links = append(links, fmt.Sprintf("route add %s via %s", podRange(m), lanAddress(m)))
	}
	return links
}

// nodeLinks are the commands of ip(8) for a node's namespace, in which the
// starter has put an interface.
func nodeLinks(number int) []string {
	links := []string{
		"link set lo up",
		"link set " + nodeInterface + " up",
		fmt.Sprintf("addr add %s/24 dev %s", lanAddress(number), nodeInterface),
		"route add default via " + ClientAddress,
	}
	for m := 1; m <= maxNodes; m++ {
		if m != number {
			links = append(links, fmt.Sprintf("route add %s via %s", podRange(m), lanAddress(m)))
		}
	}
	return links
}

// plugLinks are the commands of ip(8) that connect the init with this id to
// the bridge, as a cable would. They run in the clients' namespace.
func plugLinks(number, pid int) []string {
	return []string{
		fmt.Sprintf("link add %s type veth peer name %s netns %d", nodeName(number), nodeInterface, pid),
		fmt.Sprintf("link set %s master %s up", nodeName(number), clientBridge),
	}
}

func (n *initProcess) setUpClientNetwork() error {
	if err := n.ip(clientLinks()); err != nil {
		return err
	}
	// Forwarding makes the namespace the nodes' router, which answers what has no
	// route.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	resolv := fmt.Sprintf("nameserver %s\nsearch default.svc.%s svc.%[2]s %[2]s\n", DNSAddress, clusterDomain)
	if err := os.WriteFile(n.own("resolv.conf"), []byte(resolv), 0o644); err != nil {
		return err
	}
	return os.WriteFile(n.own("hosts"), []byte(hosts(clientHostname)), 0o644)
}

func (n *initProcess) setUpNodeNetwork() error {
	if err := n.ip(nodeLinks(n.Number)); err != nil {
		return err
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}

// hosts is the content of /etc/hosts.
func hosts(self string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1 localhost %s\n", self)
	fmt.Fprintf(&b, "%s %s\n", ClientAddress, clientHostname)
	for m := 1; m <= maxNodes; m++ {
		fmt.Fprintf(&b, "%s %s\n", lanAddress(m), nodeName(m))
	}
	return b.String()
}

// ip runs commands of ip(8) in the init's own network.
func (n *initProcess) ip(links []string) error {
	batch := n.own("links")
	if err := os.WriteFile(batch, []byte(strings.Join(links, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	return n.command(n.own("log", "init.log"), "ip", "-batch", batch)
}
