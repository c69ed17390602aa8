package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// burst is how many commands run back to back: as many as the default number of warm inits.
const burst = 8

// refill is a pause long enough for a server to start new inits.
const refill = 60 * time.Millisecond

// measureTrue compares execute → process.completed of /bin/true over a WebSocket with os/exec that
// captures both pipes, in alternation. The WebSocket is bare, so that the figure is the server's; a
// second figure shows what the client package adds.
func measureTrue(ctx context.Context, e *env) error {
	s, err := e.start()
	if err != nil {
		return err
	}
	defer s.stop()
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	ws, err := dialBare(ctx, s.ws)
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	rounds := 40
	if e.quick {
		rounds = 3
	}
	for _, m := range []struct {
		name  string
		gap   time.Duration
		limit float64
	}{{"back to back while warm inits last", 0, 1.5}, {"10 ms between calls", 10 * time.Millisecond, 1.75}} {
		var ours, base, packaged samples
		for range rounds {
			if err := timed(&base, m.gap, execTrue); err != nil {
				return err
			}
			time.Sleep(refill)
			if err := timed(&ours, m.gap, func() error { return bareTrue(ctx, ws) }); err != nil {
				return err
			}
			time.Sleep(refill)
			if err := timed(&packaged, m.gap, func() error { return runTrue(ctx, c) }); err != nil {
				return err
			}
			time.Sleep(refill)
		}
		r := ratio(ours.median(), base.median())
		report("os/exec, "+m.name+", median", ms(base.median()), "", true)
		report("troupe, "+m.name+", median", ms(ours.median()), "", true)
		report("troupe through the client package, median", ms(packaged.median()), "", true)
		report("ratio of troupe to os/exec", fmt.Sprintf("%.2f", r), fmt.Sprintf("<= %.2f", m.limit), r <= m.limit)
	}
	return saturate(ctx, e, s)
}

func dialBare(ctx context.Context, url string) (*websocket.Conn, error) {
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	_, hello, err := ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(hello, []byte(`"connected"`)) {
		return nil, fmt.Errorf("not connected: %s", hello)
	}
	return ws, nil
}

// bareTrue sends execute and reads until process.completed.
func bareTrue(ctx context.Context, ws *websocket.Conn) error {
	request := []byte(`{"jsonrpc":"2.0","method":"execute","id":1,"params":{"argv":["/bin/true"]}}`)
	if err := ws.Write(ctx, websocket.MessageText, request); err != nil {
		return err
	}
	for {
		_, msg, err := ws.Read(ctx)
		switch {
		case err != nil:
			return err
		case bytes.Contains(msg, []byte(`"error"`)):
			return fmt.Errorf("/bin/true: %s", msg)
		case bytes.Contains(msg, []byte(`"process.completed"`)):
			return nil
		}
	}
}

func timed(into *samples, gap time.Duration, f func() error) error {
	for range burst {
		time.Sleep(gap)
		began := time.Now()
		if err := f(); err != nil {
			return err
		}
		*into = append(*into, time.Since(began))
	}
	return nil
}

func execTrue() error {
	cmd := exec.Command("/bin/true")
	cmd.Env = []string{}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return cmd.Run()
}

func runTrue(ctx context.Context, c *troupe.Client) error {
	done, err := c.Run(ctx, wire.ExecuteParams{Argv: []string{"/bin/true"}}, nil, nil)
	if err == nil && done.ExitCode != 0 {
		err = fmt.Errorf("/bin/true: %+v", done)
	}
	return err
}

// saturate runs /bin/true in 8 sessions at once, as fast as possible, and the same with os/exec.
func saturate(ctx context.Context, e *env, s *server) error {
	const sessions = 8
	period := 3 * time.Second
	if e.quick {
		period = 300 * time.Millisecond
	}
	var clients []*troupe.Client
	for range sessions {
		c, err := s.dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		clients = append(clients, c)
	}
	var base, ours float64
	for range 2 { // alternating, so that a change of the machine's speed affects both
		b, err := rate(sessions, period/2, func(int) error { return execTrue() })
		if err != nil {
			return err
		}
		o, err := rate(sessions, period/2, func(i int) error { return runTrue(ctx, clients[i]) })
		if err != nil {
			return err
		}
		base, ours = base+b/2, ours+o/2
	}
	report("os/exec, 8 at once", fmt.Sprintf("%.0f /s", base), "", true)
	report("troupe, 8 sessions at once", fmt.Sprintf("%.0f /s", ours), "", true)
	report("share of os/exec's rate", fmt.Sprintf("%.0f %%", 100*ours/base), ">= 40 %", ours >= 0.4*base)
	return nil
}

func rate(n int, period time.Duration, f func(int) error) (float64, error) {
	var all sync.WaitGroup
	var count atomic.Int64
	var failure atomic.Pointer[error]
	began := time.Now()
	for i := range n {
		all.Go(func() {
			for time.Since(began) < period {
				if err := f(i); err != nil {
					failure.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	all.Wait()
	if err := failure.Load(); err != nil {
		return 0, *err
	}
	return float64(count.Load()) / time.Since(began).Seconds(), nil
}
