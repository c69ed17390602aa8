package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// throng is more clients than a service has sessions. Each takes a session through any pod, keeps
// it for a moment and comes again, so that every session that ends is wanted at once by many.
type throng struct {
	t       *testing.T
	where   []atomic.Pointer[instance] // the pods that take clients
	refused atomic.Int64
}

// client comes and goes until ctx ends.
func (c *throng) client(ctx context.Context) {
	for ctx.Err() == nil {
		place := rand.IntN(len(c.where))
		s := c.where[place].Load()
		got, err := troupe.Dial(ctx, s.ws, troupe.Options{})
		switch {
		case err == nil:
			time.Sleep(rand.N(100 * time.Millisecond))
			_ = got.Close()
		case wire.CodeOf(err) == wire.CodeSessionLimit:
			c.refused.Add(1)
			time.Sleep(time.Millisecond)
		case ctx.Err() == nil && c.where[place].Load() == s: // it was not told to go
			c.t.Errorf("no session: %v", err)
			return
		}
	}
}

// watch looks at how many sessions a pod has until it ends, and returns the most that it saw. The
// sessions of the clients would tell less: one whose socket was on a pod that went may have given
// way to another.
func (s *instance) watch() (most func() int64) {
	var seen atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			res, err := http.Get(s.http + "/health")
			if err != nil {
				return // it has ended
			}
			var health struct {
				Active int64 `json:"active_sessions"`
			}
			err = json.NewDecoder(res.Body).Decode(&health)
			_ = res.Body.Close()
			if err != nil {
				return
			}
			seen.Store(max(seen.Load(), health.Active))
			time.Sleep(time.Millisecond)
		}
	}()
	s.t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-done
	})
	return seen.Load
}

// TestPeersCeilingDuringARollout: no pod ever has more sessions than its ceiling while pods go and
// come back, however many clients want them and whatever the pods believe of each other.
func TestPeersCeilingDuringARollout(t *testing.T) {
	const ceiling, clients = 8, 40
	f := launchFleet(t, "--max-sessions", strconv.Itoa(ceiling), "--resume-window", "500ms")
	c := &throng{t: t, where: make([]atomic.Pointer[instance], len(f.pods))}
	var most []func() int64
	enter := func(i int) {
		c.where[i].Store(f.pods[i])
		most = append(most, f.pods[i].watch())
	}
	for i := range f.pods {
		enter(i)
	}
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range clients {
		all.Go(func() { c.client(ctx) })
	}
	full := func() error {
		for i, m := range most {
			if m() < ceiling {
				return fmt.Errorf("process %d had %d sessions at most", i, m())
			}
		}
		return nil
	}
	eventually(t, full)
	for i := range f.pods {
		c.where[i].Store(f.pods[(i+1)%len(f.pods)])
		f.pods[i].signal(syscall.SIGTERM)
		if code := f.pods[i].exit(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		f.pods[i] = launch(t, f.args[i]...)
		enter(i)
		eventually(t, full)
	}
	stop()
	all.Wait()
	for i, m := range most {
		if m() > ceiling {
			t.Errorf("process %d had %d sessions at a time", i, m())
		}
	}
	for _, s := range f.pods {
		s.awaitActive(0)
	}
	if t.Logf("%d were refused", c.refused.Load()); c.refused.Load() == 0 {
		t.Error("no client was refused: the service was never full")
	}
}
