// Package k8s tests what trouped asks and tells the Kubernetes API against a real
// kube-apiserver with real service accounts, tokens and RBAC. It needs etcd and
// kube-apiserver, which the test cluster's programs have, and no node: what a
// pod and a kubelet add is tested one directory up.
//
// The tests in ../../k8s are about time and faults, with an API server in memory.
package k8s
