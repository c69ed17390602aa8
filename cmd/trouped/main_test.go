package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

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
		code := run(os.Args[1:])
		dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		fmt.Println("dumpable", dumpable, err)
		os.Exit(code)
	case "attack":
		os.Exit(attack())
	default:
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
