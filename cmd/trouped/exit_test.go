package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// trouped returns a command that runs trouped in a process of its own: the test
// binary, which TestMain turns into it.
func trouped(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), own, args...)
	// Without GORACE a binary under the race detector sleeps for a second before it exits.
	cmd.Env = append(os.Environ(), "TROUPED_TEST_MAIN=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// marker writes a program that leaves a file behind when it is started.
func marker(t *testing.T) (program, left string) {
	t.Helper()
	dir := t.TempDir()
	program, left = filepath.Join(dir, "troupe-runner"), filepath.Join(dir, "started")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n: >"+left+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return program, left
}

// TestExitCodes: what cannot work ends with one line that names what to change,
// and leaves nothing behind: no data directory, no process.
func TestExitCodes(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	program, started := marker(t)
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	config := writeFile(t, "max-sesions: 3\n")

	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"unknown flag", []string{"--colour"}, exitUsage, "--colour"},
		{"wrong value", []string{"--max-output", "lots"}, exitUsage, "--max-output"},
		{"unknown command", []string{"serve"}, exitUsage, `"serve"`},
		{"unknown key", []string{"--config", config}, exitUsage, config + `:1: unknown key "max-sesions"`},
		{"no config file", []string{"--config", dir + "/none.yaml"}, exitUsage, dir + "/none.yaml"},
		{"refused combination", []string{"--listen", ":0"}, exitUsage, "--auth none-insecure"},
		{"port taken", []string{"--listen", taken.Addr().String()}, exitFailure, "--listen " + taken.Addr().String()},
		{
			"admin port taken",
			[]string{"--admin-listen", taken.Addr().String()},
			exitFailure,
			"--admin-listen " + taken.Addr().String(),
		},
		{
			"address of another machine",
			[]string{"--listen", "192.0.2.1:80", "--auth", "none-insecure"},
			exitFailure,
			"--listen",
		},
		{"data dir below a file", []string{"--data-dir", program + "/data"}, exitFailure, "--data-dir"},
		{"data dir is a file", []string{"--data-dir", program}, exitFailure, program},
		{"data dir without a parent", []string{"--data-dir", dir + "/a/b"}, exitFailure, "--data-dir"},
		{"no runner", []string{"--runner-binary", dir + "/none"}, exitFailure, "--runner-binary"},
		{"no token file", []string{"--auth", "token", "--token-file", dir + "/none"}, exitFailure, dir + "/none"},
		{"no workdir", []string{"--workdir", dir + "/none"}, exitFailure, "--workdir"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Defaults that would work, which the case's own flags override.
			args := append([]string{
				"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
				"--data-dir", data, "--runner-binary", program,
			}, c.args...)
			cmd := trouped(t, args...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != c.code {
				t.Errorf("ended with %v, want exit status %d", err, c.code)
			}
			line := strings.TrimSuffix(stderr.String(), "\n")
			if !strings.HasPrefix(line, "trouped: ") || !strings.Contains(line, c.want) || strings.Contains(line, "\n") {
				t.Errorf("stderr is %q, want one line with %q", stderr.String(), c.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout is %q", stdout.String())
			}
			for _, path := range []string{data, started} {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%s was left behind", path)
				}
			}
		})
	}
}

func TestVersionAndCompletion(t *testing.T) {
	out, err := trouped(t, "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "trouped "+version+" go1.") {
		t.Errorf("version: %q, %v", out, err)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		out, err := trouped(t, "completion", shell).Output()
		if err != nil || !bytes.Contains(out, []byte("trouped")) {
			t.Errorf("completion %s: %d bytes, %v", shell, len(out), err)
		}
	}
}

// TestMemoryIsShielded: commands run as the same user. Undumpable means that they
// can neither trace trouped nor read its environment and memory under /proc.
func TestMemoryIsShielded(t *testing.T) {
	cmd := trouped(t, "version")
	cmd.Env = append(cmd.Env, "TROUPED_TEST_MAIN=dumpable")
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "\ndumpable 0 <nil>\n") {
		t.Errorf("got %q, %v", out, err)
	}
}
