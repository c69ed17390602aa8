package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// helloWorld is a minimal Go program. Its start-up time is the floor for every program written in
// Go.
const helloWorld = `package main

import "os"

func main() { os.Stdout.WriteString("hello, world\n") }
`

// measureStart compares the start-up of the command-line client with two programs built in this run
// with the flags of `make build`: hello world, and the floor. The floor also runs /bin/true on a
// bare server, which is close to the minimum for a command over a WebSocket when client and server
// are written in Go.
func measureStart(ctx context.Context, e *env) error {
	dir, err := os.MkdirTemp("", "troupe-load-start-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := e.start()
	if err != nil {
		return err
	}
	defer s.stop()
	bare, stopBare, err := startHelper(bareServerArg)
	if err != nil {
		return err
	}
	defer stopBare()
	hello, floor, troupe, err := startPrograms(ctx, e, dir)
	if err != nil {
		return err
	}
	rounds := 200
	if e.quick {
		rounds = 10
	}
	runs := []struct {
		name  string
		limit float64 // for the ratio to the first program; 0: none
		argv  []string
		took  samples
	}{
		{name: "hello world in Go", argv: []string{hello}},
		{name: "a program that links net/http and WebSocket", argv: []string{floor}},
		{name: "troupe version", limit: 1.5, argv: []string{troupe, "version"}},
		{name: "that program, running /bin/true on a bare server", argv: []string{floor, bare}},
		{name: "that program, running /bin/true on trouped", argv: []string{floor, s.ws}},
		{name: "troupe exec -- true", limit: 2.5, argv: []string{troupe, "--server", s.ws, "exec", "--", "true"}},
	}
	for range rounds { // alternating, so that a change of the machine's speed affects all
		for i := range runs {
			took, err := runOnce(ctx, dir, runs[i].argv)
			if err != nil {
				return err
			}
			runs[i].took = append(runs[i].took, took)
		}
	}
	for i, m := range runs {
		report(m.name+", median", ms(m.took.median()), "", true)
		if i == 0 {
			continue
		}
		r, target := ratio(m.took.median(), runs[0].took.median()), ""
		if m.limit > 0 {
			target = fmt.Sprintf("<= %.2f", m.limit)
		}
		report("ratio to hello world", fmt.Sprintf("%.2f", r), target, r <= m.limit)
	}
	return measureRoundTrips(ctx, e)
}

// startPrograms builds hello world and the floor, and copies all three programs to dir as an
// installation would. At each page fault the kernel maps more of a file that was written in one go
// than of one that a linker wrote: troupe version takes 1.4 ms in the first case and 2.0 ms in the
// second (Linux 6.18).
func startPrograms(ctx context.Context, e *env, dir string) (hello, floor, troupe string, err error) {
	source := filepath.Join(dir, "hello.go")
	if err := os.WriteFile(source, []byte(helloWorld), 0o600); err != nil {
		return "", "", "", err
	}
	built := []string{filepath.Join(dir, "hello.built"), filepath.Join(dir, "floor.built"), e.troupe}
	for i, pkg := range []string{source, "github.com/troupe-dev/troupe/cmd/troupe-load/floor"} {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", built[i], pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if said, err := build.CombinedOutput(); err != nil {
			return "", "", "", fmt.Errorf("go build %s: %w: %s", pkg, err, said)
		}
	}
	installed := []string{filepath.Join(dir, "hello"), filepath.Join(dir, "floor"), filepath.Join(dir, "troupe")}
	for i, path := range built {
		program, err := os.ReadFile(path)
		if err != nil {
			return "", "", "", err
		}
		if err := os.WriteFile(installed[i], program, 0o700); err != nil {
			return "", "", "", err
		}
	}
	return installed[0], installed[1], installed[2], nil
}

// runOnce runs a program to its end and returns how long that took. The program's home is dir, so
// that the user's configuration has no effect.
func runOnce(ctx context.Context, dir string, argv []string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir}
	cmd.Stderr = os.Stderr // not a pipe, whose cost would hide part of the difference
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return took, nil
}
