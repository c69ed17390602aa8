// Command mutants shows that the tests can fail. It breaks the code one line at a time and
// expects a test to notice. The tree stays as it is: `go test` gets each mutation as an overlay.
//
// The mutants are listed in *.txt beside this file, one list for each package. Records are
// separated by empty lines:
//
//	# a shell string passes the allow-list
//	actors/plan.go
//	@ func (e *Engine) argv(p *wire.ExecuteParams) ([]string, *wire.Error) {
//	- if e.allow != nil {
//	+ if false {
//	go test ./actors -run 'TestPlan'
//
// The first line names the defect, not the change; more such lines are comments. The "-" lines
// quote consecutive lines of the file without their indentation; they must occur exactly once.
// Where they occur more than once, an "@" line, which must itself be unique, says after which line
// of the same function to look. The "+" lines replace them; none deletes them. A record without a
// file or without a command has those of the record before it. Variables may precede the command
// (TROUPE_SEEDS=9 go test ...).
//
// A line "timeout: red" or "timeout: red 5s" says that the tests notice by hanging, and
// for how long to wait. Any other mutant that runs into -timeout is reported as TIMEOUT.
//
// A mutant that behaves like the original is not listed: no test can notice it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag" //nolint:depguard // this is a command too
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// verdict is what the tests said of a mutant.
type verdict string

const (
	red      verdict = "RED"      // a test failed
	survived verdict = "SURVIVED" // every test passed
	broken   verdict = "BROKEN"   // it does not compile, or the tests could not run
	timedOut verdict = "TIMEOUT"  // the tests hung, and the record does not expect that
)

func main() {
	check := flag.Bool("check", false, "only check that every quoted line exists exactly once")
	run := flag.String("run", "", "only the mutants whose `list: name` matches this regular expression")
	parallel := flag.Int("parallel", runtime.NumCPU(), "mutants at a time")
	timeout := flag.Duration("timeout", 2*time.Minute, "for the tests of one mutant, without the compiling")
	verbose := flag.Bool("v", false, "show what the tests print")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := runner{timeout: *timeout, parallel: max(1, *parallel), verbose: *verbose, out: os.Stdout}
	if err := r.main(ctx, *run, *check); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		stop()
		os.Exit(1)
	}
}

type runner struct {
	root     string // of the repository
	timeout  time.Duration
	parallel int
	verbose  bool

	mu  sync.Mutex
	out io.Writer
}

func (r *runner) main(ctx context.Context, pattern string, check bool) error {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	if r.root, err = repository(ctx); err != nil {
		return err
	}
	mutants, err := readLists(filepath.Join(r.root, ".ci", "mutants"))
	if err != nil {
		return err
	}
	mutants = slices.DeleteFunc(mutants, func(m *mutant) bool { return !wanted.MatchString(m.String()) })
	if len(mutants) == 0 {
		return errors.New("no mutant matches")
	}
	var errs []error
	for _, m := range mutants {
		if m.source, err = m.apply(r.root); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if check {
		fmt.Fprintf(r.out, "mutants: every line that %d mutants quote exists once\n", len(mutants))
		return nil
	}
	if err := r.originals(ctx, mutants); err != nil {
		return err
	}
	r.each(len(mutants), func(i int) { r.try(ctx, mutants[i]) })
	if err := ctx.Err(); err != nil {
		return errors.New("interrupted")
	}
	return r.summary(mutants)
}

// originals runs each command on the code as it is. A test that fails anyway proves nothing.
func (r *runner) originals(ctx context.Context, mutants []*mutant) error {
	var commands []string
	for _, m := range mutants {
		if !slices.Contains(commands, m.command) {
			commands = append(commands, m.command)
		}
	}
	errs := make([]error, len(commands))
	r.each(len(commands), func(i int) {
		out, err := r.test(ctx, commands[i], "", r.timeout)
		if err != nil {
			errs[i] = fmt.Errorf("%s fails without any mutation:\n%s", commands[i], out)
		} else if strings.Contains(out, "[no tests to run]") || strings.Contains(out, "[no test files]") {
			errs[i] = fmt.Errorf("%s runs no test", commands[i])
		}
	})
	return errors.Join(errs...)
}

// each calls f with every number below n, as many at a time as may run.
func (r *runner) each(n int, f func(int)) {
	slots := make(chan struct{}, r.parallel)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wg.Wait()
}

// try runs the tests on one mutant and prints what they said.
func (r *runner) try(ctx context.Context, m *mutant) {
	if ctx.Err() != nil {
		return
	}
	dir, err := os.MkdirTemp("", "mutant-")
	if err != nil {
		m.verdict = broken
		return
	}
	defer os.RemoveAll(dir)
	file, overlay := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	replace, _ := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(r.root, m.file): file}})
	if err := errors.Join(os.WriteFile(file, m.source, 0o600), os.WriteFile(overlay, replace, 0o600)); err != nil {
		m.verdict = broken
		return
	}
	timeout := r.timeout
	if m.hangs > 0 {
		timeout = m.hangs
	}
	started := time.Now()
	out, err := r.test(ctx, m.command, overlay, timeout)
	m.verdict = judge(out, err, m.hangs > 0)

	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "%-8s  %s (%.1f s)\n", m.verdict, m, time.Since(started).Seconds())
	if line := firstFailure(out); m.verdict == red && line != "" {
		fmt.Fprintf(r.out, "          %s\n", line)
	}
	if m.verdict == broken || r.verbose {
		fmt.Fprintln(r.out, strings.TrimSpace(out))
	}
}

// test runs a command and returns what it printed. The overlay travels in GOFLAGS, so that
// programs that a test builds have the mutation too.
func (r *runner) test(ctx context.Context, command, overlay string, timeout time.Duration) (string, error) {
	words, err := split(command)
	if err != nil {
		return err.Error(), err
	}
	env := os.Environ()
	for strings.Contains(words[0], "=") {
		env, words = append(env, words[0]), words[1:]
	}
	if overlay != "" {
		env = append(env, "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	// Without the tables for debuggers, a test binary is linked in half the time.
	args := append([]string{"test", "-vet=off", "-ldflags=-s -w", "-failfast", "-timeout", timeout.String()}, words[2:]...)
	// The tests end at their timeout; this one is for the compiler and for tests that ignore theirs.
	ctx, cancel := context.WithTimeout(ctx, timeout+15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = r.root, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second // a process that left the group may hold the pipe
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// judge reads a verdict from what `go test` printed.
func judge(out string, err error, hangs bool) verdict {
	switch {
	case err == nil:
		return survived
	case strings.Contains(out, "panic: test timed out after"):
		if hangs {
			return red
		}
		return timedOut
	case strings.Contains(out, "[build failed]"), strings.Contains(out, "[setup failed]"):
		return broken
	case strings.HasPrefix(out, "FAIL\t"), strings.Contains(out, "\nFAIL\t"):
		return red
	}
	return broken
}

var failure = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: .+|^panic: .+|^fatal error: .+|^--- FAIL: .+`)

// firstFailure returns the line that says what was wrong.
func firstFailure(out string) string {
	const longest = 160
	line := strings.TrimSpace(failure.FindString(out))
	if len(line) > longest {
		line = strings.ToValidUTF8(line[:longest], "") + "..."
	}
	return line
}

// summary prints a line for each list, and fails unless every mutant is red.
func (r *runner) summary(mutants []*mutant) error {
	type count struct{ red, all int }
	counts, lists, total := map[string]*count{}, []string{}, count{}
	for _, m := range mutants {
		c := counts[m.list]
		if c == nil {
			c = &count{}
			counts[m.list], lists = c, append(lists, m.list)
		}
		c.all++
		total.all++
		if m.verdict == red {
			c.red++
			total.red++
		}
	}
	fmt.Fprintln(r.out)
	for _, list := range lists {
		fmt.Fprintf(r.out, "%-24s %d of %d red\n", list, counts[list].red, counts[list].all)
	}
	if total.red < total.all {
		for _, m := range mutants {
			if m.verdict != red {
				fmt.Fprintf(r.out, "%-8s  %s\n", m.verdict, m)
			}
		}
		return fmt.Errorf("%d of %d red", total.red, total.all)
	}
	fmt.Fprintf(r.out, "mutants: %d of %d red\n", total.red, total.all)
	return nil
}

// repository returns the directory of the module that we run in.
func repository(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if filepath.Base(mod) != "go.mod" {
		return "", errors.New("not in a module")
	}
	return filepath.Dir(mod), nil
}
