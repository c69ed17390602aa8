package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// isolated is a trouped with a level of isolation, and a connection to it.
type isolated struct {
	*server
	ws         *websocket.Conn
	workspaces string // the directory in which sessions get theirs
}

// measureIsolation measures what a domain for each session costs: every figure is of two servers that
// differ in --isolation alone, in alternation.
func measureIsolation(ctx context.Context, e *env) error {
	off, err := e.startIsolated(ctx, "none")
	if err != nil {
		return err
	}
	defer off.stop()
	on, err := e.startIsolated(ctx, "session")
	if err != nil {
		return err
	}
	defer on.stop()
	for _, measure := range []func(context.Context, *env, *isolated, *isolated) error{
		isolatedTrue, isolatedFirst, isolatedOneShot, isolatedOpenFile, isolatedWorkspaces,
	} {
		if err := measure(ctx, e, off, on); err != nil {
			return err
		}
	}
	return idleMemory(ctx, e, "with --isolation session, ", "--isolation", "session", "--workdir", ".")
}

func (e *env) startIsolated(ctx context.Context, level string) (*isolated, error) {
	workspaces, err := os.MkdirTemp("", "troupe-load-workspaces-")
	if err != nil {
		return nil, err
	}
	s, err := e.start("--isolation", level, "--workspace", workspaces, "--isolation-read", filepath.Dir(e.self),
		"--workdir", ".") // where the data is not
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(workspaces))
	}
	i := &isolated{server: s, workspaces: workspaces}
	if i.ws, err = dialBare(ctx, s.ws); err != nil {
		i.stop()
		return nil, err
	}
	return i, nil
}

func (i *isolated) stop() {
	if i.ws != nil {
		_ = i.ws.CloseNow()
	}
	i.server.stop()
	_ = os.RemoveAll(i.workspaces)
}

// isolatedTrue compares /bin/true in a session that has run commands before.
func isolatedTrue(ctx context.Context, e *env, off, on *isolated) error {
	rounds := 2000
	if e.quick {
		rounds = 20
	}
	var without, with samples
	for range rounds {
		for _, m := range []struct {
			s    *isolated
			took *samples
		}{{off, &without}, {on, &with}} {
			began := time.Now()
			if err := bareTrue(ctx, m.s.ws); err != nil {
				return err
			}
			*m.took = append(*m.took, time.Since(began))
		}
	}
	report("/bin/true in one session, --isolation none, median", ms(without.median()), "", true)
	report("the same with --isolation session", ms(with.median()), "", true)
	r := ratio(with.median(), without.median())
	report("ratio", fmt.Sprintf("%.3f", r), "<= 1.03", r <= 1.03)
	return nil
}

// isolatedFirst compares the first command of a session, for which its workspace is made and its
// domain entered.
func isolatedFirst(ctx context.Context, e *env, off, on *isolated) error {
	rounds := 400
	if e.quick {
		rounds = 10
	}
	var without, with samples
	for range rounds {
		for _, m := range []struct {
			s    *isolated
			took *samples
		}{{off, &without}, {on, &with}} {
			ws, err := dialBare(ctx, m.s.server.ws)
			if err != nil {
				return err
			}
			began := time.Now()
			err = bareTrue(ctx, ws)
			*m.took = append(*m.took, time.Since(began))
			if err := errors.Join(err, ws.Close(websocket.StatusNormalClosure, "")); err != nil {
				return err
			}
		}
	}
	report("first command of a session, --isolation none, median", ms(without.median()), "", true)
	report("the same with --isolation session", ms(with.median()), "", true)
	more := with.median() - without.median()
	report("difference", ms(more), "<= 0.30 ms", more <= 300*time.Microsecond)
	return nil
}

// isolatedOneShot compares the rate of sessions that run one command and end, as of the command-line
// client.
func isolatedOneShot(ctx context.Context, e *env, off, on *isolated) error {
	const clients, turns = 4, 10
	period := 500 * time.Millisecond
	if e.quick {
		period = 50 * time.Millisecond
	}
	oneShot := func(s *isolated) (float64, error) {
		return rate(clients, period, func(int) error { return s.oneShot(ctx) })
	}
	var without, with float64
	for range turns {
		a, err := oneShot(off)
		if err != nil {
			return err
		}
		b, err := oneShot(on)
		if err != nil {
			return err
		}
		without, with = without+a/turns, with+b/turns
	}
	report("sessions of one command, 4 at once, --isolation none", fmt.Sprintf("%.0f /s", without), "", true)
	report("the same with --isolation session", fmt.Sprintf("%.0f /s", with), "", true)
	report("ratio", fmt.Sprintf("%.2f", with/without), ">= 0.90", with >= 0.9*without)
	return nil
}

// oneShot opens a session, runs a command and ends the session.
func (i *isolated) oneShot(ctx context.Context) error {
	ws, err := dialBare(ctx, i.server.ws)
	if err != nil {
		return err
	}
	return errors.Join(bareTrue(ctx, ws), ws.Close(websocket.StatusNormalClosure, ""))
}

// openFilesArg makes this program open a file again and again and print how long that takes.
const openFilesArg = "open-files"

// openFiles opens path n times in each of a hundred rounds, and prints the nanoseconds of an undisturbed one.
func openFiles(path, n string) error {
	times, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	var took samples
	for range 100 {
		began := time.Now()
		for range times {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			_ = f.Close()
		}
		took = append(took, time.Since(began)/time.Duration(times))
	}
	fmt.Println(took.quantile(0.1).Nanoseconds())
	return nil
}

// isolatedOpenFile compares open(2), with the close(2) that must follow, of a file in the session's
// home and of one of the system.
func isolatedOpenFile(ctx context.Context, e *env, off, on *isolated) error {
	n, turns := "500", 10
	if e.quick {
		n, turns = "20", 2
	}
	for _, file := range []struct{ name, path string }{
		{"the session's home", `"$HOME/file"`}, {"/usr/bin", "/usr/bin/env"},
	} {
		script := fmt.Sprintf(`: > "$HOME/file"; exec %s %s %s %s`, e.self, openFilesArg, file.path, n)
		var without, with samples
		for range turns {
			for _, m := range []struct {
				s    *isolated
				took *samples
			}{{off, &without}, {on, &with}} {
				each, err := m.s.number(ctx, script)
				if err != nil {
					return err
				}
				*m.took = append(*m.took, time.Duration(each))
			}
		}
		r := ratio(with.median(), without.median())
		report("open and close of a file in "+file.name+", --isolation none",
			fmt.Sprintf("%.2f µs", float64(without.median())/1e3), "", true)
		report("ratio with --isolation session", fmt.Sprintf("%.2f", r), "<= 1.15", r <= 1.15)
	}
	return nil
}

// number runs a script in a session of its own, and returns the number that it prints.
func (i *isolated) number(ctx context.Context, script string) (int64, error) {
	c, err := i.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var said, failed strings.Builder
	done, err := c.Run(ctx, wire.ExecuteParams{Command: script}, &said, &failed)
	if err != nil {
		return 0, err
	}
	if done.ExitCode != 0 {
		return 0, fmt.Errorf("%s: exit code %d: %s", script, done.ExitCode, &failed)
	}
	return strconv.ParseInt(strings.TrimSpace(said.String()), 10, 64)
}

// isolatedWorkspaces runs a command in each of 100 sessions, 8 at a time, ends them, and waits until
// nothing is left of their workspaces.
func isolatedWorkspaces(ctx context.Context, _ *env, _, on *isolated) error {
	if err := on.awaitDirs(1); err != nil { // that of the session which is open all the time
		return err
	}
	began := time.Now()
	slots := make(chan struct{}, 8)
	ends := make(chan error, 100)
	for range 100 {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			ends <- on.oneShot(ctx)
		}()
	}
	var err error
	for range 100 {
		err = errors.Join(err, <-ends)
	}
	if err := errors.Join(err, on.awaitDirs(1)); err != nil {
		return err
	}
	took := time.Since(began)
	report("100 sessions with a command each, until their workspaces are gone", ms(took), "<= 1000 ms", took <= time.Second)
	return nil
}

// awaitDirs waits until n directories of sessions are left, those that are being removed included.
func (i *isolated) awaitDirs(n int) error {
	began := time.Now()
	for {
		kept, err := filepath.Glob(filepath.Join(i.workspaces, "s-*/home"))
		if err != nil {
			return err
		}
		removing, err := filepath.Glob(filepath.Join(i.workspaces, "r-*/.trash/*"))
		if err != nil {
			return err
		}
		left := len(kept) + len(removing)
		if left == n {
			return nil
		}
		if time.Since(began) > 10*time.Second {
			return fmt.Errorf("%d workspaces are left instead of %d", left, n)
		}
		time.Sleep(time.Millisecond)
	}
}
