package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/peers/peerca"
	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// peerAddrs returns addresses that no other process gets, even while a pod is away: each has a
// loopback address of its own. A free port of 127.0.0.1 could be given to some connection before
// trouped listens there.
func peerAddrs(n int) []string {
	addrs := make([]string, n)
	for i := range addrs {
		addrs[i] = fmt.Sprintf("127.%d.%d.%d:9400", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	}
	return addrs
}

// fleet is three trouped that are peers, with TLS.
type fleet struct {
	t    *testing.T
	args [][]string // of each
	pods []*instance
}

func launchFleet(t *testing.T, args ...string) *fleet {
	t.Helper()
	return launchFleetThrough(t, func(_, _ int, addr string) string { return addr }, args...)
}

// launchFleetThrough has pods reach each other's addresses through others.
func launchFleetThrough(t *testing.T, through func(from, to int, addr string) string, args ...string) *fleet {
	t.Helper()
	const n = 3
	addrs := peerAddrs(n)
	ca := newAuthority(t)
	f := &fleet{t: t}
	for i, addr := range addrs {
		var list []string
		for to, addr := range addrs {
			list = append(list, fmt.Sprintf("pod-%d=%s", to, through(i, to, addr)))
		}
		files := sign(t, ca, t.TempDir(), peers.CertName)
		f.args = append(f.args, append([]string{
			"--pod", fmt.Sprintf("pod-%d", i), "--peers", strings.Join(list, ","), "--peer-listen", addr,
			"--peer-cert", files.Cert, "--peer-key", files.Key, "--peer-ca", files.CA,
		}, args...))
		f.pods = append(f.pods, launch(t, f.args[i]...))
	}
	f.meet()
	return f
}

// meet waits until every pod knows every other.
func (f *fleet) meet() {
	f.t.Helper()
	for _, s := range f.pods {
		eventually(f.t, func() error {
			if n := s.metric(`troupe_peers{state="alive"}`); int(n) != len(f.pods)-1 {
				return fmt.Errorf("%v peers are alive", n)
			}
			return nil
		})
	}
}

// metric reads one series.
func (s *instance) metric(series string) float64 {
	s.t.Helper()
	_, body := s.get(s.admin + "/metrics")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			var v float64
			if _, err := fmt.Sscan(rest, &v); err != nil {
				s.t.Fatal(err)
			}
			return v
		}
	}
	s.t.Fatalf("there is no %s", series)
	return 0
}

// roundRobin is the address of one pod after the other.
func (f *fleet) roundRobin() func() string {
	turn := new(atomic.Int64)
	return func() string { return f.pods[int(turn.Add(1))%len(f.pods)].addr() }
}

// TestPeersResumeAnywhere: a reader of 10 MiB that is cut 50 times, and comes back to another
// pod each time, has every byte once, in order.
func TestPeersResumeAnywhere(t *testing.T) {
	f := launchFleet(t)
	data := make([]byte, outputLimit-1<<20)
	for i := range data {
		data[i] = byte(rand.IntN(256))
	}
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	cutting := newProxyTo(t, f.roundRobin(), 50, 100<<10)
	c, err := troupe.Dial(t.Context(), cutting.ws(), troupe.Options{Backoff: troupe.Backoff{
		Initial: time.Millisecond,
		Max:     20 * time.Millisecond,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Detach() })
	e, err := c.Execute(t.Context(), wire.ExecuteParams{
		Command: fmt.Sprintf("head -c 1000000 /dev/zero >&2 & cat %s; wait; exit 5", file),
		Framing: wire.FramingRaw, Encoding: wire.EncodingBase64,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	done, err := e.Copy(ctx, &out, &errs)
	if err != nil || done.ExitCode != 5 || done.OutputBytes != int64(len(data))+1000000 {
		t.Fatalf("%+v, %v", done, err)
	}
	if sha256.Sum256(out.Bytes()) != sha256.Sum256(data) || !bytes.Equal(errs.Bytes(), make([]byte, 1000000)) {
		t.Errorf("%d and %d bytes came, or others than were written", out.Len(), errs.Len())
	}
	if n := cutting.cuts.Load(); n != 50 {
		t.Errorf("%d cuts", n)
	}
	// The session works from wherever it is now: a second execution, input and control.
	second, err := c.Execute(ctx, wire.ExecuteParams{Command: "cat; sleep 1000", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Input(ctx, []byte("hello\n")); err != nil {
		t.Error(err)
	}
	for said := false; !said; {
		event, err := second.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if o, ok := event.(*troupe.Output); ok {
			if said = true; string(o.Data) != "hello\n" {
				t.Errorf("%q", o.Data)
			}
		}
	}
	if err := second.Cancel(ctx); err != nil {
		t.Error(err)
	}
	if done, err := second.Copy(ctx, io.Discard, io.Discard); err != nil || done.Reason != wire.ReasonCanceled {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestPeersPlacement: 300 sessions on three pods though all clients come to one, and -32001
// for the 301st; the same from all pods at once.
func TestPeersPlacement(t *testing.T) {
	f := launchFleet(t, "--resume-window", "50ms")
	for round, pods := range [][]*instance{{f.pods[0]}, f.pods} {
		all := make([]*socket, 301)
		began := time.Now()
		for i := range all {
			all[i] = knock(t, pods[i%len(pods)], "/ws", nil)
		}
		in := lucky(t, all)
		t.Logf("round %d: %d sessions in %v", round, len(in), time.Since(began))
		if len(in) != 300 {
			t.Fatalf("round %d: %d of 301 have a session", round, len(in))
		}
		for i, s := range f.pods {
			if n := s.active(); n != 100 {
				t.Errorf("round %d: pod-%d has %d sessions", round, i, n)
			}
		}
		var leaving sync.WaitGroup
		for i, c := range in {
			leaving.Go(func() { leave(c, i) })
		}
		leaving.Wait()
		for _, s := range f.pods {
			s.awaitActive(0)
		}
	}
}

// elsewhere re-attaches through another pod.
func elsewhere(t *testing.T, s *instance, to wire.Connected, after map[string]int64) *troupe.Client {
	t.Helper()
	c, err := troupe.Attach(t.Context(), s.ws, to.SessionID, to.ResumeToken, after, troupe.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Detach() })
	return c
}

// TestPeersOwnerKilled: SIGKILL of a pod, and its clients on the others know within 5 s. A
// pod that stands still for 2 s is not dead.
func TestPeersOwnerKilled(t *testing.T) {
	f := launchFleet(t)
	c := f.pods[0].dial()
	e := execute(t, c, "while sleep 0.1; do echo tick; done")
	far := elsewhere(t, f.pods[1], c.Connected(), map[string]int64{e.ID(): 0})
	reader := far.Executions()[e.ID()]
	next := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := reader.Next(ctx)
		return err
	}
	if err := next(); err != nil {
		t.Fatal(err)
	}
	f.pods[0].signal(syscall.SIGSTOP)
	time.AfterFunc(2*time.Second, func() { f.pods[0].signal(syscall.SIGCONT) })
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); {
		if err := next(); err != nil {
			t.Fatalf("after a pod stood still for 2 s: %v", err)
		}
	}
	if n := f.pods[1].metric(`troupe_peers{state="dead"}`); n != 0 {
		t.Errorf("%v peers are dead", n)
	}

	killed := time.Now()
	f.pods[0].signal(syscall.SIGKILL)
	var err error
	for err == nil {
		err = next()
	}
	if took := time.Since(killed); !errors.Is(err, troupe.ErrSessionLost) || took > 5*time.Second {
		t.Errorf("after %v the client was told %v", took, err)
	} else {
		t.Logf("the client was told after %v", took)
	}
	asked := time.Now()
	_, err = troupe.Attach(t.Context(), f.pods[2].ws, c.Connected().SessionID, c.Connected().ResumeToken, nil,
		troupe.Options{})
	if took := time.Since(asked); !errors.Is(err, troupe.ErrSessionLost) || took > time.Second {
		t.Errorf("a client that came later was told %v after %v", err, took)
	}
	<-f.pods[0].ended

	// It comes back under its name: what it had is lost, what it never had is not known.
	f.pods[0] = launch(t, f.args[0]...)
	f.meet()
	for i, s := range f.pods {
		if _, err := troupe.Attach(t.Context(), s.ws, c.Connected().SessionID, c.Connected().ResumeToken, nil,
			troupe.Options{}); !errors.Is(err, troupe.ErrSessionLost) {
			t.Errorf("pod-%d says of a session of pod-0's earlier life: %v", i, err)
		}
	}
}

// TestPeersDrain: a pod that drains serves what runs to clients on other pods, to the last byte,
// and ends.
func TestPeersDrain(t *testing.T) {
	f := launchFleet(t)
	c := f.pods[0].dial()
	e := execute(t, c, "echo begun; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; echo $i; done; exit 7")
	connected := c.Connected()
	c.Detach()
	f.pods[0].signal(syscall.SIGTERM)
	f.pods[0].await(f.pods[0].admin+"/readyz", 503)
	// A newcomer that is still sent here gets a session elsewhere.
	late, err := troupe.Dial(t.Context(), f.pods[0].ws, troupe.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if pod := late.Connected().Pod; pod == "pod-0" {
		t.Errorf("a new session on a draining pod: %s", pod)
	}
	far := elsewhere(t, f.pods[1], connected, map[string]int64{e.ID(): 0})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	done, err := far.Executions()[e.ID()].Copy(ctx, &out, io.Discard)
	if err != nil || done.ExitCode != 7 || out.String() != "begun\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n" {
		t.Errorf("%q, %+v, %v", out.String(), done, err)
	}
	if code := f.pods[0].exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	f.pods[0].leftNothing()
	// The newcomer's socket was on the pod that has gone: it comes back elsewhere. Its
	// client does so by itself, but knows the address of one pod only.
	again := elsewhere(t, f.pods[2], late.Connected(), nil)
	if r, err := again.Execute(ctx, wire.ExecuteParams{Command: "exit 3"}); err != nil {
		t.Error(err)
	} else if done := completed(t, r); done.ExitCode != 3 {
		t.Errorf("%+v", done)
	}
	late.Detach()
}

// TestPeersRelayMemory: a pod that only carries the output of 100 sessions of other pods stays
// small.
func TestPeersRelayMemory(t *testing.T) {
	f := launchFleet(t)
	var all sync.WaitGroup
	for i := range 100 {
		c := f.pods[1+i%2].dial()
		e, err := c.Execute(t.Context(), wire.ExecuteParams{
			Command: "head -c 1000000 /dev/zero | tr '\\0' x",
			Framing: wire.FramingRaw,
		})
		if err != nil {
			t.Fatal(err)
		}
		far := elsewhere(t, f.pods[0], c.Connected(), map[string]int64{e.ID(): 0})
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			if done, err := far.Executions()[e.ID()].Copy(ctx, io.Discard, io.Discard); err != nil ||
				done.OutputBytes != 1000000 {
				t.Errorf("%+v, %v", done, err)
			}
		})
	}
	all.Wait()
	// What the kernel cannot drop. The program's own pages come to it: 23 MiB of a test binary.
	anonymous, peak := f.pods[0].memory("RssAnon"), f.pods[0].memory("VmHWM")
	t.Logf("the pod that relays has %d MiB of memory of its own, and had %d MiB in all at most", anonymous>>20, peak>>20)
	if anonymous > 64<<20 && !raceDetector {
		t.Errorf("%d MiB", anonymous>>20)
	}
}

func newAuthority(t testing.TB) *peerca.Authority {
	t.Helper()
	a, err := peerca.New()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func sign(t testing.TB, a *peerca.Authority, dir, name string, trusted ...*peerca.Authority) peerca.Files {
	t.Helper()
	f, err := a.Sign(dir, name, trusted...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
