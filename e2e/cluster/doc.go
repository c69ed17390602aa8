// Package cluster runs a real Kubernetes on one Linux machine, for tests: etcd,
// API server, scheduler, controller manager, kubelets, containerd and runc,
// CoreDNS, kube-proxy, Traefik as ingress controller, metrics-server. All of
// it is built from Go modules (e2e/programs) or comes from Debian packages; no
// image registry and no container engine take part. The command e2e/cmd/cluster
// does from a shell what this package does for tests.
//
// # Nodes
//
// A node is one process: PID 1 in mount, network, process, IPC and UTS
// namespaces of its own. It is the program that calls Up, started again; Main
// becomes it. It mounts, configures its network, makes cgroups, starts the
// node's services, starts them again when they die, and reaps orphans.
// (init.go, then init_mounts.go, init_network.go, cgroups.go, configure.go,
// services.go, init_children.go.)
//
// SIGKILL to it is a power cut: the kernel ends every process in its
// namespaces and drops the mounts, interfaces and rules. That is what PowerOff
// and Down do. PowerOn boots the node with the disk it had.
//
// A node sees the machine's files, but has its own /run, /var/log, /proc and
// /sys, and an overlay on /etc and /var/lib: what it writes is below
// Dir/run/NODE. Machine-wide settings that a kubelet insists on are files
// mounted over the real ones, so the machine keeps its own.
//
// # Network
//
//	bridge lan0, 10.99.0.254: the namespace of clients
//	      │                     │
//	 eth0 10.99.0.1        eth0 10.99.0.2
//	 node1                 node2            … node9
//	 pods 10.244.1.0/24    pods 10.244.2.0/24
//
// The clients' namespace belongs to a process of its own ("net"), so that a
// test's connections survive the loss of any node. It has no link to the
// machine: nothing gets out, and what tries is told "no route to host". In it
// 10.99.0.100, the ingress's load balancer, is routed to node1, where
// kube-proxy takes it; pods and services are reached by their addresses too.
//
// Enter replaces a process by one in there; a test binary enters itself, or is
// run with go test -exec 'bin/cluster in net'. Command prepares single
// programs. DialContext and Listen open sockets there from outside: on a
// thread that enters the namespace and is thrown away afterwards, because a
// socket belongs to the namespace of the thread that makes it.
//
// # What a test can rely on
//
// As with kubeadm: Node and RBAC authorisation, NodeRestriction, PodSecurity
// admission, audience-bound tokens, aggregated APIs, one certificate authority.
// Faster than the defaults, so that tests wait less: a lost node is NotReady
// after 20 s (40 s), the autoscaler looks every 5 s (15 s), metrics are 10 s
// old at most (60 s). Requests of service accounts are in AuditLog when they
// are answered.
//
// # State
//
// Everything is below Config.Dir: bin, images, and, while the cluster exists,
// run. The identity of each first process (id, start time, boot) is in
// run/NAME/process.json before that process does anything; a first process
// whose starter dies before giving it an order exits. So Down finds all of a
// cluster whose starter was killed, and never kills a process that was given
// an old id. Down removes run, and keeps the last logs in Dir/logs.
//
// # What cannot be done in it
//
//   - NetworkPolicy is accepted and not enforced: the CNI plugin (ptp) does not
//     know it.
//   - There is no storage class. emptyDir, ConfigMap, Secret, projected and
//     hostPath volumes work.
//   - Services of type LoadBalancer other than the ingress get no address.
//   - Images cannot be pulled: Load them, or put them into Dir/images before a
//     node starts, and use imagePullPolicy IfNotPresent.
//   - On a machine whose controllers are on cgroup v1, pods have no cgroup v2.
//     With v2 alone, pods have v2.
//   - Nodes share the machine's memory and CPUs, and each claims all of them.
//     Eviction on pressure is off.
//   - Traefik reads Ingress only, not the Gateway API.
package cluster
