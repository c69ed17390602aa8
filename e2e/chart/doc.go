// Package chart tests charts/troupe: what it renders, what it refuses, and that
// trouped and a Kubernetes API server accept the result. It also generates the
// chart's README.
//
//	go test ./chart             in e2e/
//	go generate ./chart         write README.md and testdata/golden again; read the diff
//
// Each file in testdata/values is one way to use the chart. Every check of a
// rendering runs over all of them: a new option needs a file there, and no
// more. testdata/golden has the rendering of the defaults, and for every other
// file what it changes in that.
//
// Tests that need an API server start one (etcd and kube-apiserver, without a
// cluster around them) from $KUBEBUILDER_ASSETS or the directory of the test
// cluster's programs, or use the cluster that E2E_KUBECONFIG names. Where there
// is none they are skipped, or fail if E2E=1.
package chart

//go:generate env UPDATE_GOLDEN=1 go test -count=1 -run TestReadmeIsCurrent|TestGolden .
