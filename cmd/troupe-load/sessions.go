package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// measureOpen opens 100 sessions at once, several times, and reads the server's own histogram.
func measureOpen(ctx context.Context, e *env) error {
	s, err := e.start()
	if err != nil {
		return err
	}
	defer s.stop()
	rounds := 20
	if e.quick {
		rounds = 2
	}
	for range rounds {
		if err := openAtOnce(ctx, s, 100); err != nil {
			return err
		}
	}
	p99, err := s.histogramP99(ctx, "troupe_session_open_seconds")
	if err != nil {
		return err
	}
	// Clients and server share the cores here, so the figure includes the scheduler's time slice.
	// actors.BenchmarkOpenHundredSessions measures without it.
	report("session open inside the server, 100 sockets at once, p99 at most", fmt.Sprintf("%.2f ms", p99*1e3), "", true)
	return nil
}

// openAtOnce opens n sessions at once and closes them. It uses bare sockets, because this process
// shares the cores with the server being measured.
func openAtOnce(ctx context.Context, s *server, n int) error {
	var all sync.WaitGroup
	failures := make(chan error, n)
	conns := make(chan net.Conn, n)
	for range n {
		all.Go(func() {
			c, err := openOne(ctx, s.ws)
			if err != nil {
				failures <- err
				return
			}
			conns <- c
		})
	}
	all.Wait()
	close(conns)
	for c := range conns {
		// A close frame with code 1000, masked with zeros: the session ends with it.
		_, _ = c.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8})
		_ = c.Close()
	}
	time.Sleep(100 * time.Millisecond) // until the server has freed the slots
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

// openMany opens n sessions, parallel of them at a time.
func openMany(ctx context.Context, s *server, n, parallel int) ([]*troupe.Client, error) {
	var mu sync.Mutex
	var clients []*troupe.Client
	var failure error
	var all sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			c, err := s.dial(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failure = err
				return
			}
			clients = append(clients, c)
		})
	}
	all.Wait()
	if failure != nil {
		closeAll(clients)
		return nil, failure
	}
	return clients, nil
}

func closeAll(clients []*troupe.Client) {
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() { _ = c.Close() })
	}
	all.Wait()
}

// measureCancel measures the time from CANCEL to process.completed, sent once the tree is dead.
func measureCancel(ctx context.Context, e *env) error {
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
	rounds := 300
	if e.quick {
		rounds = 5
	}
	var dead samples
	for range rounds {
		x, err := c.Execute(ctx, wire.ExecuteParams{Command: "sleep 100 & sleep 100"})
		if err != nil {
			return err
		}
		x.Discard()
		time.Sleep(5 * time.Millisecond) // let the shell start its children
		began := time.Now()
		if err := x.Cancel(ctx); err != nil {
			return err
		}
		if _, err := x.Wait(ctx); err != nil {
			return err
		}
		dead = append(dead, time.Since(began))
	}
	report("CANCEL to dead tree, co-operative shell with two children, median", ms(dead.median()), "", true)
	p99 := dead.quantile(0.99)
	report("the same, p99", ms(p99), "<= 20 ms", p99 <= 20*time.Millisecond)
	return nil
}

// measureYes runs yes in 100 sessions, cancels them one after the other, and reads the server's
// memory.
func measureYes(ctx context.Context, e *env) error {
	s, err := e.start()
	if err != nil {
		return err
	}
	defer s.stop()
	var clients []*troupe.Client
	var running []*troupe.Execution
	defer func() { closeAll(clients) }()
	for range 100 {
		c, x, err := s.started(ctx, wire.ExecuteParams{Argv: []string{"/usr/bin/yes"}})
		if c != nil {
			clients = append(clients, c)
		}
		if err != nil {
			return err
		}
		x.Discard()
		running = append(running, x)
	}
	rounds, settle := 100, 5*time.Second
	if e.quick {
		rounds, settle = 5, time.Second
	}
	time.Sleep(settle)
	var answered samples
	for range rounds {
		i := rand.IntN(len(running))
		began := time.Now()
		if err := running[i].Cancel(ctx); err != nil {
			return err
		}
		answered = append(answered, time.Since(began))
		if _, err := running[i].Wait(ctx); err != nil {
			return err
		}
		if running[i], err = clients[i].Execute(ctx, wire.ExecuteParams{Argv: []string{"/usr/bin/yes"}}); err != nil {
			return err
		}
		running[i].Discard()
	}
	peak, err := s.memory("VmHWM")
	if err != nil {
		return err
	}
	report("100 sessions running yes: peak resident memory of trouped", mib(peak), "<= 64 MiB", peak <= 64<<20)
	report("CANCEL of one of them answered, median", ms(answered.median()), "", true)
	p99 := answered.quantile(0.99)
	report("the same, p99", ms(p99), "<= 150 ms", p99 <= 150*time.Millisecond)
	return nil
}

// measureIdle opens 10,000 sessions that do nothing.
func measureIdle(ctx context.Context, e *env) error { return idleMemory(ctx, e, "") }

func idleMemory(ctx context.Context, e *env, what string, args ...string) error {
	s, err := e.start(append(args, "--max-sessions", "10000")...)
	if err != nil {
		return err
	}
	defer s.stop()
	n := 10000
	if e.quick {
		n = 500
	}
	warm, err := openMany(ctx, s, 100, 20)
	if err != nil {
		return err
	}
	closeAll(warm)
	before, err := s.memory("VmRSS")
	if err != nil {
		return err
	}
	conns, err := openRaw(ctx, s.ws, n)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	if err != nil {
		return err
	}
	after, err := s.memory("VmRSS")
	if err != nil {
		return err
	}
	each := (after - before) / int64(n)
	report(fmt.Sprintf("%s%d idle sessions: resident memory of trouped, each", what, n),
		fmt.Sprintf("%.1f KiB", float64(each)/1024),
		"<= 32 KiB", each <= 32<<10)
	return nil
}
