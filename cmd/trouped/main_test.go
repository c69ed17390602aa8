package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fixedEnv holds, as JSON, what a test changes of the configuration that is fixed for everyone
// else.
const fixedEnv = "TROUPED_TEST_FIXED"

// fixed is what a test may change in the trouped that it starts.
type fixed struct {
	SurvivorGrace time.Duration
	NoAuthCache   bool
}

// with sets the environment of a trouped that is to be started.
func (f fixed) with(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, fixedEnv+"="+string(b)) }
}

// serveFixed is serve with what fixedEnv says.
func serveFixed(c *config) error {
	var f fixed
	if text, ok := os.LookupEnv(fixedEnv); ok {
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			return err
		}
	}
	if f.SurvivorGrace > 0 {
		c.limits.SurvivorGrace = f.SurvivorGrace
	}
	if f.NoAuthCache {
		c.kubernetes.cache = 0
	}
	return serve(c)
}

// TestMain lets the test binary stand in for trouped, so that exit codes and
// signals are tested on a real process, under the race detector too, and for the
// command that attacks it.
func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv("TROUPED_TEST_ACCOUNT"); ok {
		serviceAccountDir = dir
	}
	switch os.Getenv("TROUPED_TEST_MAIN") {
	case "":
	case "dumpable":
		code := run(os.Args[1:], serve)
		dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		fmt.Println("dumpable", dumpable, err)
		os.Exit(code)
	case "attack":
		os.Exit(attack())
	default:
		os.Exit(run(os.Args[1:], serveFixed))
	}
	for _, pair := range os.Environ() { // what the developer has set is not part of a test
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "TROUPE_") {
			os.Unsetenv(name)
		}
	}
	dir, err := os.MkdirTemp("", "trouped-test-")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}
