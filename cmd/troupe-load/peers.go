package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/peers/peerca"
	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// startPeers starts three troupeds as one service, with TLS between them, and waits until the first
// can place a session on the others.
func (e *env) startPeers(ctx context.Context) (pods []*server, stop func(), err error) {
	dir, err := os.MkdirTemp("", "troupe-load-ca-")
	if err != nil {
		return nil, nil, err
	}
	stop = func() {
		var all sync.WaitGroup
		for _, s := range pods {
			all.Go(s.stop)
		}
		all.Wait()
		_ = os.RemoveAll(dir)
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	ca, err := peerca.New()
	if err != nil {
		return nil, nil, err
	}
	files, err := ca.Sign(dir, peers.CertName)
	if err != nil {
		return nil, nil, err
	}
	var addrs, list []string
	for i := range 3 {
		// Each has its own loopback address: a free port of 127.0.0.1 could be taken by another
		// connection first.
		addr := fmt.Sprintf("127.%d.%d.%d:9400", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
		addrs = append(addrs, addr)
		list = append(list, fmt.Sprintf("pod-%d=%s", i, addr))
	}
	for i, addr := range addrs {
		s, err := e.start("--pod", fmt.Sprintf("pod-%d", i), "--peers", strings.Join(list, ","), "--peer-listen", addr,
			"--peer-cert", files.Cert, "--peer-key", files.Key, "--peer-ca", files.CA)
		if err != nil {
			return nil, stop, err
		}
		pods = append(pods, s)
	}
	select {
	case <-time.After(2 * time.Second): // two heartbeats
		return pods, stop, nil
	case <-ctx.Done():
		return nil, stop, ctx.Err()
	}
}

// measurePeers measures the cost of a session on another pod than its client's socket.
func measurePeers(ctx context.Context, e *env) error {
	pods, stop, err := e.startPeers(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := measurePlacement(ctx, pods); err != nil {
		return err
	}
	time.Sleep(time.Second) // the sessions end
	local, err := pods[0].dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = local.Close() }()
	to := local.Connected()
	far, err := troupe.Attach(ctx, pods[1].ws, to.SessionID, to.ResumeToken, map[string]int64{}, troupe.Options{})
	if err != nil {
		return err
	}
	defer far.Detach()
	if err := measureForeignRate(ctx, e, pods[0].dir, local, far); err != nil {
		return err
	}
	if err := measureForeignDelay(ctx, e, local, far); err != nil {
		return err
	}
	return measureRelayMemory(ctx, pods)
}

// measureForeignRate compares 10 MiB of 80-byte lines through the owner and through another pod.
func measureForeignRate(ctx context.Context, e *env, dir string, local, far *troupe.Client) error {
	file := filepath.Join(dir, "lines")
	if err := os.WriteFile(file, bytes.Repeat([]byte(strings.Repeat("x", 79)+"\n"), size/80), 0o600); err != nil {
		return err
	}
	rounds := 15
	if e.quick {
		rounds = 2
	}
	var here, there samples
	for range rounds {
		for _, m := range []struct {
			c  *troupe.Client
			to *samples
		}{{local, &here}, {far, &there}} {
			n := &counter{}
			began := time.Now()
			done, err := m.c.Run(ctx, wire.ExecuteParams{Argv: []string{"/bin/cat", file}}, n, io.Discard)
			if err != nil {
				return err
			}
			*m.to = append(*m.to, time.Since(began))
			if n.n != done.OutputBytes || n.n != size {
				return fmt.Errorf("received %d bytes of %d: %+v", n.n, size, done)
			}
		}
	}
	rate := func(d time.Duration) string { return fmt.Sprintf("%.0f MB/s", size/d.Seconds()/1e6) }
	r := ratio(here.median(), there.median())
	report("10 MiB of 80-byte lines at the owner's pod, median", rate(here.median()), "", true)
	report("the same through another pod, median", rate(there.median()), "", true)
	report("share of the local rate", fmt.Sprintf("%.0f %%", 100*r), ">= 70 %", r >= 0.7)
	return nil
}

// measureForeignDelay compares the time from execute to the first output.
func measureForeignDelay(ctx context.Context, e *env, local, far *troupe.Client) error {
	rounds := 300
	if e.quick {
		rounds = 20
	}
	var here, there samples
	for range rounds {
		for _, m := range []struct {
			c  *troupe.Client
			to *samples
		}{{local, &here}, {far, &there}} {
			began := time.Now()
			x, err := m.c.Execute(ctx, wire.ExecuteParams{Argv: []string{"/bin/echo", "hello"}})
			if err != nil {
				return err
			}
			for {
				event, err := x.Next(ctx)
				if err != nil {
					return err
				}
				if _, ok := event.(*troupe.Output); ok {
					break
				}
			}
			*m.to = append(*m.to, time.Since(began))
			if _, err := x.Copy(ctx, io.Discard, io.Discard); err != nil {
				return err
			}
		}
	}
	added := there.median() - here.median()
	report("first output of echo at the owner's pod, median", ms(here.median()), "", true)
	report("added through another pod, median", ms(added), "< 2 ms", added < 2*time.Millisecond)
	return nil
}

// measurePlacement opens 300 sessions, as many as three pods have, through two of these: a pod has
// sockets for twice its sessions.
func measurePlacement(ctx context.Context, pods []*server) error {
	var mu sync.Mutex
	var all sync.WaitGroup
	var opened []*troupe.Client
	var failed error
	began := time.Now()
	for i := range 300 {
		all.Go(func() {
			c, err := pods[i%2].dial(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			opened = append(opened, c)
		})
	}
	all.Wait()
	took := time.Since(began)
	owners := map[string]int{}
	for _, c := range opened {
		owners[c.Connected().Pod]++
		all.Go(func() { _ = c.Close() })
	}
	all.Wait()
	if failed != nil {
		return failed
	}
	if len(owners) != 3 {
		return fmt.Errorf("the sessions are on %v", owners)
	}
	report("300 sessions on 3 pods through two of them", took.Round(time.Millisecond).String(),
		"< 2 s", took < 2*time.Second)
	return nil
}

// measureRelayMemory has the third pod carry 100 streams of the others.
func measureRelayMemory(ctx context.Context, pods []*server) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for i := range 98 {
		c, x, err := pods[i%2].started(ctx, wire.ExecuteParams{
			Argv: []string{
				"/bin/sh",
				"-c",
				"for i in 1 2 3 4 5 6 7 8 9 10; do head -c 200000 /dev/zero | tr '\\0' x; sleep 0.1; done",
			},
			Framing: wire.FramingRaw,
		})
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		to := c.Connected()
		x.Discard()
		far, err := troupe.Attach(
			ctx,
			pods[2].ws,
			to.SessionID,
			to.ResumeToken,
			map[string]int64{x.ID(): 0},
			troupe.Options{},
		)
		if err != nil {
			return err
		}
		defer far.Detach()
		all.Go(func() {
			if _, err := far.Executions()[x.ID()].Copy(ctx, io.Discard, io.Discard); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = err
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	own, err := pods[2].peakUntil(done, "RssAnon")
	if err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	peak, err := pods[2].memory("VmHWM")
	if err != nil {
		return err
	}
	report("a pod that relays 98 streams, memory of its own, peak", mib(own), "< 64 MiB", own < 64<<20)
	report("the same with the pages of the program itself", mib(peak), "", true)
	return nil
}

// peakUntil polls a field of /proc/PID/status until done and returns its maximum.
func (s *server) peakUntil(done <-chan struct{}, field string) (peak int64, err error) {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		n, err := s.memory(field)
		if err != nil {
			return 0, err
		}
		peak = max(peak, n)
		select {
		case <-done:
			return peak, nil
		case <-look.C:
		}
	}
}
