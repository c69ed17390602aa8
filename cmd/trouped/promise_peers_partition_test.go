package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// cable carries connections to one address until it is cut. From then on nothing arrives, and
// neither end gets an error.
type cable struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	whole *sync.Cond
	isCut bool
	ended bool
	conns []net.Conn
}

func layCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: l, to: to}
	c.whole = sync.NewCond(&c.mu)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", c.to)
			if err != nil {
				_ = near.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, near, far)
			c.mu.Unlock()
			all.Go(func() { c.carry(far, near) })
			all.Go(func() { c.carry(near, far) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		c.mu.Lock()
		c.ended = true
		c.whole.Broadcast()
		for _, conn := range c.conns {
			_ = conn.Close()
		}
		c.mu.Unlock()
		all.Wait()
	})
	return c
}

func (c *cable) carry(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		for c.isCut && !c.ended {
			c.whole.Wait()
		}
		c.mu.Unlock()
		if _, failed := to.Write(buf[:n]); failed != nil || err != nil {
			return
		}
	}
}

func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = cut
	c.whole.Broadcast()
}

// TestPeersPartition: two live pods do not reach each other. A client that follows a session of one
// through the other learns it within 5 s. A pod that reaches both serves the session, and once the
// cable is whole again, so does the other pod.
func TestPeersPartition(t *testing.T) {
	var cables []*cable
	f := launchFleetThrough(t, func(from, to int, addr string) string {
		if from+to != 1 {
			return addr
		}
		c := layCable(t, addr)
		cables = append(cables, c)
		return c.listener.Addr().String()
	})
	cut := func(yes bool) {
		for _, c := range cables {
			c.set(yes)
		}
	}
	c := f.pods[0].dial()
	e := execute(t, c, "i=0; while sleep 0.05; do i=$((i+1)); echo $i; done")
	all := map[string]int64{e.ID(): 0}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	// counts reads the numbers from 1 to n.
	counts := func(x *troupe.Execution, n int) error {
		var want, got strings.Builder
		for i := range n {
			fmt.Fprintf(&want, "%d\n", i+1)
		}
		for got.Len() < want.Len() {
			event, err := x.Next(ctx)
			if err != nil {
				return err
			}
			if o, ok := event.(*troupe.Output); ok {
				got.Write(o.Data)
			}
		}
		if !strings.HasPrefix(got.String(), want.String()) {
			t.Errorf("%q", got.String())
		}
		return nil
	}
	far := elsewhere(t, f.pods[1], c.Connected(), all).Executions()[e.ID()]
	if err := counts(far, 10); err != nil {
		t.Fatal(err)
	}
	cut(true)
	began := time.Now()
	_, err := far.Copy(ctx, io.Discard, io.Discard)
	if took := time.Since(began); !errors.Is(err, troupe.ErrSessionLost) || took > 5*time.Second {
		t.Errorf("after %v the client was told %v", took, err)
	} else {
		t.Logf("the client was told after %v", took)
	}
	began = time.Now()
	to := c.Connected()
	_, err = troupe.Attach(ctx, f.pods[1].ws, to.SessionID, to.ResumeToken, all, troupe.Options{})
	if took := time.Since(began); !errors.Is(err, troupe.ErrSessionLost) || took > time.Second {
		t.Errorf("a client that came during the cut was told %v after %v", err, took)
	}
	if err := counts(elsewhere(t, f.pods[2], to, all).Executions()[e.ID()], 30); err != nil {
		t.Errorf("through the pod that reaches the owner: %v", err)
	}
	cut(false)
	f.meet()
	if err := counts(elsewhere(t, f.pods[1], to, all).Executions()[e.ID()], 60); err != nil {
		t.Errorf("after the cut: %v", err)
	}
}
