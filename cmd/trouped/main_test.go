package main

import (
	"os"
	"strings"
	"testing"
)

// TestMain lets the test binary stand in for trouped, so that exit codes and
// signals are tested on a real process, under the race detector too.
func TestMain(m *testing.M) {
	if os.Getenv("TROUPED_TEST_MAIN") != "" {
		os.Exit(run(os.Args[1:]))
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
