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

// helloWorld is the least that a Go program can do. What it takes to start is
// the floor for every program written in Go.
const helloWorld = `package main

import "os"

func main() { os.Stdout.WriteString("hello, world\n") }
`

// measureStart compares the start-up of the command-line client with that of a
// hello-world program built in this run with the flags of `make build`.
func measureStart(ctx context.Context, e *env) error {
	dir, err := os.MkdirTemp("", "troupe-load-hello-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	hello, err := buildHello(ctx, dir)
	if err != nil {
		return err
	}
	s, err := e.start()
	if err != nil {
		return err
	}
	defer s.stop()
	rounds := 200
	if e.quick {
		rounds = 10
	}
	var base, version, run samples
	for range rounds { // in turns, so that a change of the machine's speed hits all three
		for _, m := range []struct {
			to   *samples
			argv []string
		}{
			{&base, []string{hello}},
			{&version, []string{e.troupe, "version"}},
			{&run, []string{e.troupe, "--server", s.ws, "exec", "--", "true"}},
		} {
			took, err := runOnce(ctx, dir, m.argv)
			if err != nil {
				return err
			}
			*m.to = append(*m.to, took)
		}
	}
	v, x := ratio(version.median(), base.median()), ratio(run.median(), base.median())
	report("hello world in Go, started and ended, median", ms(base.median()), "", true)
	report("troupe version, median", ms(version.median()), "", true)
	report("ratio to hello world", fmt.Sprintf("%.2f", v), "<= 1.50", v <= 1.5)
	report("troupe exec -- true, median", ms(run.median()), "", true)
	report("ratio to hello world", fmt.Sprintf("%.2f", x), "<= 2.50", x <= 2.5)
	return measureRoundTrips(ctx, e)
}

// buildHello builds the hello-world program as `make build` builds troupe.
func buildHello(ctx context.Context, dir string) (string, error) {
	source, binary := filepath.Join(dir, "hello.go"), filepath.Join(dir, "hello")
	if err := os.WriteFile(source, []byte(helloWorld), 0o600); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build hello.go: %w: %s", err, said)
	}
	return binary, nil
}

// runOnce starts a program, waits for its end and returns how long both took.
// The program's home is dir, so that no configuration of the user counts.
func runOnce(ctx context.Context, dir string, argv []string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir}
	began := time.Now()
	said, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, said)
	}
	return took, nil
}
