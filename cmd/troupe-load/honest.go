package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// honestSessions is the number of sessions that run commands while the server is attacked.
const honestSessions = 10

// honest are clients that use the server as they should. Each is a subject of its own.
type honest struct {
	v        *victim
	sessions []*troupe.Client
	patience time.Duration // how long a probe may take

	mu       sync.Mutex
	took     samples // of /bin/true, since the last call of since
	commands int
	failures []string // in the order in which they happened
	failed   int
}

// honestSubject returns the name of an honest client. Beyond the sessions, there are two more: see
// newcomer and reader.
func honestSubject(i int) string { return fmt.Sprintf("honest-%d", i) }

func (h *honest) dial(ctx context.Context, subject string) (*troupe.Client, error) {
	return troupe.Dial(ctx, h.v.ws, troupe.Options{
		Token: tokenOf(subject), OnNotice: func(n troupe.Notice) {
			if n.Kind == troupe.NoticeLost && ctx.Err() == nil {
				h.fail("the connection of %s was lost: %v", subject, n.Err)
			}
		},
	})
}

// open opens the sessions.
func (h *honest) open(ctx context.Context) error {
	for i := range honestSessions {
		c, err := h.dial(ctx, honestSubject(i))
		if err != nil {
			return err
		}
		h.sessions = append(h.sessions, c)
	}
	return nil
}

func (h *honest) fail(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed++
	if len(h.failures) < 10 {
		h.failures = append(h.failures, fmt.Sprintf(format, args...))
	}
}

// since returns the times of /bin/true since its last call.
func (h *honest) since() samples {
	h.mu.Lock()
	defer h.mu.Unlock()
	took := h.took
	h.took = nil
	return took
}

// run has every session run commands until ctx ends.
func (h *honest) run(ctx context.Context) {
	var all sync.WaitGroup
	for i, c := range h.sessions {
		all.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				pause(ctx, 100*time.Millisecond+rand.N(200*time.Millisecond))
				if err := h.command(ctx, c, n); err != nil && ctx.Err() == nil {
					h.fail("session %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
}

// command runs /bin/true, and now and then a command whose output is compared.
func (h *honest) command(ctx context.Context, c *troupe.Client, n int) error {
	h.mu.Lock()
	h.commands++
	h.mu.Unlock()
	if n%10 == 0 {
		const last = 20_000
		var out bytes.Buffer
		seq := wire.ExecuteParams{Argv: []string{"/usr/bin/seq", strconv.Itoa(last)}}
		if _, err := c.Run(ctx, seq, &out, io.Discard); err != nil {
			return err
		}
		return counts(&out, last)
	}
	began := time.Now()
	err := runTrue(ctx, c)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.took = append(h.took, time.Since(began))
	return err
}

// counts reports whether r has the numbers from 1 to last, one in each line. last 0: to any number.
func counts(r io.Reader, last int) error {
	lines, n := bufio.NewScanner(r), 0
	for lines.Scan() {
		n++
		if lines.Text() != strconv.Itoa(n) {
			return fmt.Errorf("line %d of the output is %q", n, lines.Text())
		}
	}
	if last > 0 && n != last {
		return fmt.Errorf("%d lines of output, want %d: %w", n, last, errors.Join(lines.Err(), io.ErrUnexpectedEOF))
	}
	return lines.Err()
}

// ticks follows a command that prints a line ten times a second, until ctx ends.
func (h *honest) ticks(ctx context.Context, c *troupe.Client) {
	r, w := io.Pipe()
	counted := make(chan error, 1)
	go func() { counted <- counts(r, 0) }()
	script := "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
	_, err := c.Run(ctx, wire.ExecuteParams{Command: script}, w, io.Discard)
	_ = w.Close() // never fails
	if err != nil && ctx.Err() == nil {
		h.fail("a command that prints all the time: %v", err)
	}
	if err := <-counted; err != nil {
		h.fail("a command that prints all the time: %v", err)
	}
}

// newcomer opens a session again and again, as `troupe exec` does.
func (h *honest) newcomer(ctx context.Context) {
	for ctx.Err() == nil {
		err := h.come(ctx)
		if err != nil && ctx.Err() == nil {
			h.fail("a client that comes anew: %v", err)
		}
		pause(ctx, 300*time.Millisecond)
	}
}

func (h *honest) come(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := h.dial(ctx, honestSubject(honestSessions))
	if err != nil {
		return err
	}
	defer c.Close()
	return runTrue(ctx, c)
}

// reader runs a command that ends at once, and reads its output during the whole attack.
func (h *honest) reader(ctx context.Context, period time.Duration) {
	const last = 1_200_000 // 8.3 MB
	const size = 8_288_896
	err := func() error {
		c, err := h.dial(ctx, honestSubject(honestSessions+1))
		if err != nil {
			return err
		}
		defer c.Close()
		r, w := io.Pipe()
		counted := make(chan error, 1)
		go func() { counted <- counts(&slowReader{r: r, rate: size / period.Seconds()}, last) }()
		_, err = c.Run(ctx, wire.ExecuteParams{Argv: []string{"/usr/bin/seq", strconv.Itoa(last)}}, w, io.Discard)
		_ = w.Close() // never fails
		return errors.Join(err, <-counted)
	}()
	if err != nil && ctx.Err() == nil {
		h.fail("a client that reads slowly: %v", err)
	}
}

// slowReader reads at so many bytes per second.
type slowReader struct {
	r    io.Reader
	rate float64
}

func (s *slowReader) Read(b []byte) (int, error) {
	n, err := s.r.Read(b[:min(len(b), 4096)])
	time.Sleep(time.Duration(float64(n) / s.rate * float64(time.Second)))
	return n, err
}

// probes asks for the server's health as the kubelet does.
func (h *honest) probes(ctx context.Context) {
	for ctx.Err() == nil {
		for _, path := range []string{"/healthz", "/readyz"} {
			if err := h.v.probe(ctx, path, h.patience); err != nil && ctx.Err() == nil {
				h.fail("a probe: %v", err)
			}
		}
		pause(ctx, time.Second)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
