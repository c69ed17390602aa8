// Package e2e holds the end-to-end tests: troupe, installed by its chart on a
// real Kubernetes and used through the ingress, as people use it. There is no
// other code in this package.
//
//	make e2e                       build, start a cluster, test, stop the cluster
//	make cluster-up                keep a cluster, then in e2e/, as often as wanted:
//	go test -run TestRollout .     test on the cluster that is up; skip without one
//	E2E_KUBECONFIG=~/.kube/config go test .    test on a cluster of your own
//
// Each test file says in a comment of each test which failure it protects from.
//
// # Environment
//
//	E2E=1                the cluster is wanted: start one, and fail where tests would be skipped for lack of it
//	E2E_KUBECONFIG       a cluster of your own. Tests that look at a node, or cut its power, are skipped
//	E2E_SERVER_IMAGE     image of trouped, repository:tag (own cluster: required)
//	E2E_RUNNER_IMAGE     image for commands, repository:tag (own cluster: required)
//	E2E_INGRESS          host:port at which the ingress controller is reached (own cluster: required)
//	E2E_INGRESS_CLASS    ingress class (default: the cluster's default class)
//	E2E_INGRESS_POD      namespace/label=value of the ingress controller's pods; unset on an own cluster: they are not restarted
//	E2E_DOMAIN           the releases are reached as NAME.E2E_DOMAIN (default e2e.troupe.test); need not resolve
//	E2E_ARTIFACTS        where logs, events and objects are kept when a test fails (default: under the cluster's directory)
//	E2E_KEEP=1           leave releases, namespaces and the cluster as they are at the end
//
// helm, kubectl and troupe are taken from the cluster's directory and bin/, or else from PATH.
//
// # The framework
//
// sigs.k8s.io/e2e-framework gives the environment around the tests (env, with
// its set-up and finish steps) and the waiting (klient/wait). Its features,
// chains of closures that hand each other values in a context, are left out:
// these are plain functions, so that a helper can have a type, a failure a line,
// and a test the name of the behaviour.
//
// # Order
//
// Tests without t.Parallel run first and one after the other: those that share
// the release of TestMain, and those that disturb everybody (the ingress
// controller restarts, a node is drained). The others install a release in a
// namespace of their own and run together.
package e2e
