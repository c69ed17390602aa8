package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/e2e/cluster"
)

// silence is after how long the client of the power cut takes a server that says
// nothing for dead. A program that cannot wait for the default of 45 s sets it.
const silence = 6 * time.Second

// TestPowerCutTellsItsClients cuts the power of the pod's node: no process has
// a last word and no packet says that a connection has ended. Then the operator
// tells Kubernetes that the node will not come back. Protects from: a client
// that waits forever for a server that is gone.
func TestPowerCutTellsItsClients(t *testing.T) {
	needNodes(t)
	if len(suite.nodes) < 2 {
		t.Skip("needs a second node to cut the power of")
	}
	dark := suite.nodes[1] // the first has the control plane and the ingress
	r := newRelease("dark")
	t.Cleanup(func() { r.cleanUp(t) })
	if err := r.create(t.Context(), fmt.Sprintf(`
affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [
  {weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]}}]}}
`, dark.Name())); err != nil {
		t.Fatal(err)
	}
	before := r.pod(t)
	if before.Spec.NodeName != dark.Name() {
		t.Fatalf("the pod is on %s, not on %s", before.Spec.NodeName, dark.Name())
	}
	var seen notices
	opt := r.options()
	opt.OnNotice, opt.KeepaliveTimeout, opt.HandshakeTimeout = seen.note, silence, silence
	c := r.dialWith(t, opt)
	e := start(t, c, wire.ExecuteParams{Command: "echo ready; sleep 86400"})

	t.Cleanup(func() { lightUp(t, dark) })
	cut := time.Now()
	if err := dark.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*silence, "the client notices", func(context.Context) error {
		if _, lost := seen.first(troupe.NoticeLost); !lost {
			return errors.New("it does not")
		}
		return nil
	})
	lost, _ := seen.first(troupe.NoticeLost)
	if lost.Sub(cut) < silence/2 {
		t.Errorf("the loss was noticed after %s: the power was not cut, or the connection was ended before", lost.Sub(cut))
	}
	kubectl(t, "taint", "node", dark.Name(), "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute", "--overwrite")

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	done, err := e.Wait(ctx)
	if !errors.Is(err, troupe.ErrNoSession) {
		t.Errorf("the end of the execution is %s, %v: not explained\n%s", compact(done), err, seen.String())
	}
	t.Logf("loss noticed after %s, explained after %s",
		lost.Sub(cut).Round(100*time.Millisecond), time.Since(cut).Round(100*time.Millisecond))
	r.works(t)
}

// lightUp boots the node again and waits until it takes pods.
func lightUp(t *testing.T, n *cluster.Node) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := n.PowerOn(ctx); err != nil {
		t.Error(err)
		return
	}
	for _, args := range [][]string{
		{"taint", "node", n.Name(), "node.kubernetes.io/out-of-service-"},
		{"wait", "node/" + n.Name(), "--for=condition=Ready", "--timeout=90s"},
	} {
		if _, err := suite.output(ctx, "", suite.kubectl, args...); err != nil {
			t.Logf("%v", err) // the taint may never have been there
		}
	}
}
