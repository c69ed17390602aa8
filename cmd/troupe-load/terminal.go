package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// terminals are the ways to a terminal that measureTerminal compares.
type terminals struct {
	e    *env
	s    *server
	sshd *sshServer // nil: there is none
}

// measureTerminal compares terminals of trouped, through the client package and through troupe exec
// -it, with a bare pseudo-terminal, and with the terminals of an sshd.
func measureTerminal(ctx context.Context, e *env) error {
	s, err := e.start("--max-sessions", "200", "--pprof")
	if err != nil {
		return err
	}
	defer s.stop()
	t := &terminals{e: e, s: s}
	if t.sshd, err = startSSH(ctx, s.dir); err != nil {
		fmt.Printf("  skipped: ssh -tt (%v)\n", err)
	} else {
		defer t.sshd.stop()
	}
	for _, measure := range []func(context.Context) error{t.shells, t.echo, t.interrupt, t.flood} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// open runs a line of the shell in a terminal of each kind, of which the first is the bare one.
func (t *terminals) open(ctx context.Context, line string) (views []*view, closeAll func(), err error) {
	closeAll = func() {
		for _, v := range views {
			v.close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	commands := []struct {
		name string
		argv []string
	}{
		{"a bare pty", []string{"/bin/sh", "-c", line}},
		{"troupe exec -it", []string{t.e.troupe, "--server", t.s.ws, "exec", "-it", "-c", line}},
	}
	if t.sshd != nil {
		commands = append(commands, struct {
			name string
			argv []string
		}{"ssh -tt", t.sshd.terminal(line)})
	}
	for _, c := range commands {
		v, err := openPty(ctx, c.name, t.s.dir, c.argv)
		if err != nil {
			return views, closeAll, fmt.Errorf("%s: %w", c.name, err)
		}
		views = append(views, v)
	}
	v, err := t.openClient(ctx, line)
	if err != nil {
		return views, closeAll, err
	}
	views = append(views, v)
	return views, closeAll, nil
}

// openClient opens a terminal of trouped with the window that troupe has.
func (t *terminals) openClient(ctx context.Context, line string) (*view, error) {
	c, err := troupe.Dial(ctx, t.s.ws, troupe.Options{Window: 128 << 10})
	if err != nil {
		return nil, err
	}
	x, err := c.Execute(ctx, wire.ExecuteParams{Command: line, Terminal: &wire.Terminal{Cols: 80, Rows: 24}})
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return &view{
		name: "the client package", terminal: &clientTerminal{ctx: ctx, x: x}, close: func() { _ = c.Close() },
	}, nil
}

// echo measures how long a key takes to a program that answers each with the same byte, and back.
func (t *terminals) echo(ctx context.Context) error {
	views, done, err := t.open(ctx, "stty raw -echo; echo up; exec cat")
	if err != nil {
		return err
	}
	defer done()
	rounds := 1000
	if t.e.quick {
		rounds = 20
	}
	took := make([]samples, len(views))
	for i, v := range views {
		if err := v.until("up"); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond) // the shell becomes cat
		for range 10 {
			if err := v.types("k", "k"); err != nil {
				return fmt.Errorf("%s: %w", views[i].name, err)
			}
		}
	}
	for range rounds {
		for i, v := range views {
			time.Sleep(5 * time.Millisecond) // nobody types faster, and nothing of the key before is under way
			if err := v.timed(&took[i], "k", "k"); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
	}
	bare := took[0]
	report("key to echo in a bare pty, median, p99", ms(bare.median())+", "+ms(bare.quantile(0.99)), "", true)
	for i, v := range views[1:] {
		more, more99 := took[i+1].median()-bare.median(), took[i+1].quantile(0.99)-bare.quantile(0.99)
		target, target99 := "<= 1 ms", "<= 5 ms"
		if v.name == "ssh -tt" {
			target, target99 = "", ""
		}
		report("the same through "+v.name+", more than that, median", ms(more), target, more <= time.Millisecond)
		report("the same, p99", ms(more99), target99, more99 <= 5*time.Millisecond)
	}
	return nil
}

// interrupt measures how long Ctrl-C takes to end `yes` and show a prompt.
func (t *terminals) interrupt(ctx context.Context) error {
	const prompt = "ready> "
	views, done, err := t.open(ctx, "PS1='"+prompt+"' exec bash --norc --noediting -i")
	if err != nil {
		return err
	}
	defer done()
	rounds := 100
	if t.e.quick {
		rounds = 3
	}
	for _, v := range views {
		if err := v.until(prompt); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		var took samples
		for range rounds {
			if err := v.types("yes\r", "y\r\ny\r\n"); err != nil {
				return err
			}
			if err := v.skip(1 << 20); err != nil {
				return err
			}
			if err := v.timed(&took, "\x03", prompt); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
		p99, target := took.quantile(0.99), "<= 100 ms"
		if v == views[0] || v.name == "ssh -tt" {
			target = ""
		}
		report("Ctrl-C under yes to the prompt, "+v.name+", median, p99", ms(took.median())+", "+ms(p99), target,
			p99 <= 100*time.Millisecond)
	}
	return nil
}

// flood measures the rate of a large output.
func (t *terminals) flood(ctx context.Context) error {
	size, rounds := int64(100<<20), 3
	if t.e.quick {
		size, rounds = 8<<20, 1
	}
	file := filepath.Join(t.s.dir, "lines")
	if err := writeLines(file, size); err != nil {
		return err
	}
	var names []string
	took := map[string]*samples{}
	for range rounds {
		views, done, err := t.open(ctx, "stty raw -echo; echo up; head -c 1 >/dev/null; cat "+file+"; echo over")
		if err != nil {
			return err
		}
		for _, v := range views {
			if took[v.name] == nil {
				took[v.name], names = new(samples), append(names, v.name)
			}
			err = errors.Join(v.until("up"), v.timed(took[v.name], "k", "over"))
			if err == nil && v.passed < size {
				err = fmt.Errorf("%d bytes of %d are missing", size-v.passed, size)
			}
			if err != nil {
				done()
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
		done()
	}
	for _, name := range names {
		rate := float64(size) / took[name].median().Seconds() / 1e6
		report(fmt.Sprintf("cat of %d MiB of lines, %s, median", size>>20, name), fmt.Sprintf("%.0f MB/s", rate), "", true)
	}
	if peer := took["ssh -tt"]; peer != nil {
		r := ratio(peer.median(), took["troupe exec -it"].median())
		report("troupe's rate against that of ssh -tt", fmt.Sprintf("%.2f", r), "", true)
	}
	return nil
}

// shells measures what idle shells take of trouped's memory.
func (t *terminals) shells(ctx context.Context) error {
	n := 100
	if t.e.quick {
		n = 20
	}
	var clients []*troupe.Client
	defer func() { closeAll(clients) }()
	open := func(n int) error {
		for range n {
			c, x, err := t.s.started(ctx, wire.ExecuteParams{
				Argv: []string{"bash", "--norc", "-i"}, Terminal: &wire.Terminal{Cols: 80, Rows: 24},
			})
			if c != nil {
				clients = append(clients, c)
			}
			if err != nil {
				return err
			}
			if err := (&view{terminal: &clientTerminal{ctx: ctx, x: x}}).until("$ ", "# "); err != nil {
				return err
			}
		}
		return nil
	}
	if err := open(10); err != nil { // the first warm what is made once
		return err
	}
	before, err := t.memory(ctx)
	if err != nil {
		return err
	}
	if err := open(n); err != nil {
		return err
	}
	after, err := t.memory(ctx)
	if err != nil {
		return err
	}
	live, resident := (after.live-before.live)/int64(n), (after.resident-before.resident)/int64(n)
	report(fmt.Sprintf("%d idle shells: heap and stacks of trouped in use, each", n),
		fmt.Sprintf("%.1f KiB", float64(live)/1024), "<= 40 KiB", live <= 40<<10)
	report("the same, resident memory with garbage", fmt.Sprintf("%.1f KiB", float64(resident)/1024), "", true)
	return nil
}

// serverMemory is what trouped has, in bytes.
type serverMemory struct{ live, resident int64 }

// memory measures trouped: resident as it is, and what is in use once garbage is collected.
func (t *terminals) memory(ctx context.Context) (m serverMemory, err error) {
	if m.resident, err = t.s.memory("VmRSS"); err != nil {
		return m, err
	}
	for range 5 { // what is in a sync.Pool survives one, and each shrinks stacks by half (Go 1.26)
		if _, err := t.s.ask(ctx, "/debug/pprof/heap?gc=1"); err != nil {
			return m, err
		}
	}
	metrics, err := t.s.ask(ctx, "/metrics")
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(metrics) {
		for _, name := range []string{"go_memstats_heap_alloc_bytes ", "go_memstats_stack_inuse_bytes "} {
			if value, ok := strings.CutPrefix(line, name); ok {
				n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				if err != nil {
					return m, err
				}
				m.live += int64(n)
			}
		}
	}
	return m, nil
}
