package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"sync"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/e2e-framework/pkg/env"
	"sigs.k8s.io/e2e-framework/pkg/envconf"

	"github.com/troupe-dev/troupe/e2e/cluster"
)

// suite is the environment of all tests, complete before the first one runs.
var suite = &environment{}

// finishBound is how long the end may take: artifacts of a failed run, then the cluster.
const finishBound = 2 * time.Minute

// parallelTests is how many tests run together once those that run alone are
// done. They wait for Kubernetes far more than they compute, so it is more than
// there are cores.
const parallelTests = "8"

// TestMain starts or finds what the tests need, and leaves nothing
// running that it started.
func TestMain(m *testing.M) {
	cluster.Main() // does not return in a process that is a node of the cluster
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	began := time.Now()
	if why := suite.enter(); why != nil {
		if suite.wanted {
			fmt.Fprintln(os.Stderr, "e2e:", why)
			return 1
		}
		fmt.Println("e2e: skipped:", why)
		return 0
	}
	testenv, err := env.NewWithContext(context.Background(), envconf.New())
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	if !given("test.parallel") {
		_ = flag.Set("test.parallel", parallelTests) // the flag exists: testing has defined it
	}
	finish := sync.OnceValue(suite.finish)
	go interrupted(finish)
	testenv.Setup(step("connect", suite.connect), step("remove what an earlier run left", suite.clear),
		step("install the shared release", suite.installShared))
	code := testenv.Run(m)
	if code != 0 {
		suite.failed.Store(true)
	}
	if err := finish(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: at the end:", err)
		code = 1
	}
	fmt.Printf("e2e: %s from the cluster's start or use to its end\n",
		time.Since(suite.began(began)).Round(100*time.Millisecond))
	return code
}

// step makes a step of the environment's set-up that says how long it took.
func step(what string, do func(context.Context) error) env.Func {
	return func(ctx context.Context, _ *envconf.Config) (context.Context, error) {
		began := time.Now()
		if err := do(ctx); err != nil {
			suite.failed.Store(true)
			return ctx, fmt.Errorf("%s: %w", what, err)
		}
		fmt.Printf("e2e: %6.1f s  %s\n", time.Since(began).Seconds(), what)
		return ctx, nil
	}
}

// given reports whether a flag was set on the command line.
func given(name string) bool {
	found := false
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// interrupted ends the run early, but in order: at a signal, and before the
// test binary's own timeout, which would end this process at once and leave
// the cluster running.
func interrupted(finish func() error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	var timeout <-chan time.Time
	if limit := flag.Lookup("test.timeout"); limit != nil {
		if d, err := time.ParseDuration(limit.Value.String()); err == nil && d > finishBound {
			timeout = time.After(d - finishBound)
		}
	}
	select {
	case s := <-signals:
		fmt.Fprintln(os.Stderr, "e2e: ended by", s)
	case <-timeout:
		fmt.Fprintln(os.Stderr, "e2e: the time is up; what runs:")
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1) // for people; the exit code says it too
	}
	suite.failed.Store(true)
	if err := finish(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: at the end:", err)
	}
	os.Exit(1)
}
