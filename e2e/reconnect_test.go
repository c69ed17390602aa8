package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// streamed is about 10 MiB in pieces that come one after the other, so that
// most of it is still to come whenever a connection is cut on the way.
const (
	streamPieces   = 80
	streamPerPiece = 16_000 // lines of 8 bytes
	streamLoop     = `i=0; while [ $i -lt %d ]; do seq -f %%07.0f $((i*%[2]d)) $((i*%[2]d+%[2]d-1)); i=$((i+1)); sleep 0.05; done`
)

func streamCommand() string { return fmt.Sprintf(streamLoop, streamPieces, streamPerPiece) }

// streamBytes is the size and the SHA-256 of what streamCommand prints.
func streamBytes() (sum []byte, size int64) {
	h := sha256.New()
	for i := range streamPieces * streamPerPiece {
		n, _ := fmt.Fprintf(h, "%07d\n", i)
		size += int64(n)
	}
	return h.Sum(nil), size
}

// cutter dials through the ingress and can reset the connections that it made.
type cutter struct {
	mu    sync.Mutex
	conns []*net.TCPConn
}

func (c *cutter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := throughIngress(ctx, network, addr)
	if tcp, ok := conn.(*net.TCPConn); ok {
		c.mu.Lock()
		c.conns = append(c.conns, tcp)
		c.mu.Unlock()
	}
	return conn, err
}

// reset ends all connections so far with a TCP reset, as a broken path does.
func (c *cutter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.SetLinger(0) // Close then sends RST and forgets what is queued
		_ = conn.Close()
	}
	c.conns = nil
}

// counter hashes its input and runs an action after a number of bytes.
type counter struct {
	hash.Hash
	n       int64
	actions []action
}

type action struct {
	at int64
	do func()
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	if len(c.actions) > 0 && c.n >= c.actions[0].at {
		do := c.actions[0].do
		c.actions = c.actions[1:]
		do()
	}
	return c.Hash.Write(p)
}

// TestLostConnectionsLoseNoByte: in the midst of 10 MiB the connection is reset,
// then the ingress controller is killed. Protects from: bytes that are lost or
// come twice when a proxy is replaced.
func TestLostConnectionsLoseNoByte(t *testing.T) {
	want, size := streamBytes()
	var cut cutter
	var seen notices
	opt := suite.shared.options()
	opt.HTTPClient, opt.OnNotice = httpClient(cut.dial), seen.note
	c := suite.shared.dialWith(t, opt)

	got := &counter{Hash: sha256.New(), actions: []action{{size / 5, cut.reset}}}
	losses := 1
	if suite.ingressPods != "" {
		losses = 2
		got.actions = append(got.actions, action{size / 2, func() { killIngress(t) }})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	done, err := c.Run(ctx, wire.ExecuteParams{Command: streamCommand()}, got, nil)
	if err != nil {
		t.Fatalf("after %d of %d bytes: %v\n%s", got.n, size, err, seen.String())
	}
	if done.Reason != wire.ReasonExited || done.ExitCode != 0 || done.OutputBytes != size {
		t.Errorf("the end is %s", compact(done))
	}
	if got.n != size || string(got.Sum(nil)) != string(want) {
		t.Errorf("%d bytes came, want %d; the hash is right: %t", got.n, size, string(got.Sum(nil)) == string(want))
	}
	if resumed := seen.count(troupe.NoticeResumed); resumed < losses {
		t.Errorf("the connection was resumed %d times, want %d: nothing was proved\n%s", resumed, losses, seen.String())
	}
	t.Logf("%s", seen.String())
}

// killIngress kills the ingress controller's pods, as a node that dies does. Its
// replacement is waited for by the client's own attempts.
func killIngress(t *testing.T) {
	namespace, selector, _ := strings.Cut(suite.ingressPods, "/")
	now := int64(0)
	err := suite.kube.CoreV1().Pods(namespace).DeleteCollection(t.Context(),
		metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Errorf("killing the ingress controller: %v", err)
	}
}
