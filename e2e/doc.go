// Package e2e holds the end-to-end tests: troupe, installed by its chart on a
// real Kubernetes and used through the ingress, as people use it. There is no
// other code in this package.
//
//	make e2e                       build, start a cluster, test, stop the cluster
//	make cluster-up                keep a cluster, then in e2e/, as root, as often as wanted:
//	go test -v -run TestRollout .  test on the cluster that is up; skipped without one (-v shows the line that says so)
//	E2E_KUBECONFIG=~/.kube/config go test .    test on a cluster of your own
//
// Before anything else the images are built from the tree as it is, if it has
// changed, and brought to the cluster. The tests run in the cluster's network.
//
// The comment of each test says which failure it protects from.
//
// # Environment
//
//	E2E=1                the cluster is wanted: start one, and fail where tests would be skipped for lack of it
//	E2E_KUBECONFIG       a cluster of your own. Tests that look at a node, or cut its power, are skipped
//	E2E_SERVER_IMAGE     image of trouped, repository:tag (own cluster: required)
//	E2E_RUNNER_IMAGE     image for commands, repository:tag (own cluster: required)
//	E2E_INGRESS          host:port at which the ingress controller is reached (own cluster: required)
//	E2E_INGRESS_CLASS    ingress class (default: the cluster's default class)
//	E2E_INGRESS_POD      namespace/label=value of the ingress controller's pods; unset on an own cluster: not restarted
//	E2E_DOMAIN           the releases are reached as NAME.E2E_DOMAIN (default e2e.troupe.test); need not resolve
//	E2E_ARTIFACTS        directory for logs, events and objects of failed tests (default: under the cluster's)
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
// # What is not proved
//
// The cluster's network does not enforce NetworkPolicies: they are looked at, not
// tried. Its nodes have cgroup v1, so the kernel ends the greedy process and not
// the container around it. The ingress controller is Traefik, which never cuts an
// idle WebSocket: a proxy in front of it does, in the test of the pings.
// The autoscaler and the HTTPRoute are checked by the API server (e2e/chart), but
// nothing scales by them and no gateway routes by them here; TLS at the ingress is
// not tried either. Images are built with buildah; docker build and skaffold are
// not run.
//
// # Order
//
// Tests without t.Parallel run first and one after the other: those that share
// the release of TestMain, and those that disturb everybody (the ingress
// controller is killed, a node is drained or loses its power). The others install
// a release in a namespace of their own and run together.
package e2e
