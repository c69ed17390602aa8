package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// commandPath is the PATH of commands. The runner also looks up their programs in it, in its own
// image if it has one. Debian's images set the same PATH.
const commandPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// commandEnv returns the environment of every command. It contains nothing of trouped's
// own environment except what --pass-env names, so that no secret of the server reaches a
// command by accident. --env wins over --pass-env, and both win over PATH and LANG.
func (c *config) commandEnv() []string {
	var names []string
	values := map[string]string{}
	set := func(name, value string) {
		if _, there := values[name]; !there {
			names = append(names, name)
		}
		values[name] = value
	}
	set("PATH", commandPath)
	// HOME and TMPDIR are the session's: the init sets them.
	set("LANG", "C.UTF-8")
	for _, name := range c.passEnv {
		if value, ok := os.LookupEnv(name); ok {
			set(name, value)
		}
	}
	for _, pair := range c.env {
		name, value, _ := strings.Cut(pair, "=")
		set(name, value)
	}
	env := make([]string, len(names))
	for i, name := range names {
		env[i] = name + "=" + values[name]
	}
	return env
}

// commandDir returns the absolute working directory of commands. If the runner has its own
// container, the directory is there, and only the form of the path can be checked here; every
// command fails to start if the directory is missing.
func (c *config) commandDir() (string, error) {
	if c.workdir == "." && (c.runner != runnerInside || c.runnerIsolation().Level != isolationNone) {
		return "", nil // the session's home
	}
	if c.runner != runnerInside {
		if !filepath.IsAbs(c.workdir) {
			return "", fmt.Errorf(
				"--workdir must be absolute, such as /workspace, when the runner is elsewhere (--runner %s), got %q",
				c.runner, c.workdir)
		}
		return filepath.Clean(c.workdir), nil
	}
	dir, err := filepath.Abs(c.workdir)
	if err != nil {
		return "", fmt.Errorf("--workdir %s: %w", c.workdir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("--workdir: %w", err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("--workdir %s is not a directory", dir)
	}
	return dir, nil
}

// findRunner returns the embedded runner's binary: the one that --runner-binary names, or
// else troupe-runner beside trouped, or else in PATH.
func (c *config) findRunner() (string, error) {
	const name = "troupe-runner"
	if c.runnerBinary != "" {
		path, err := exec.LookPath(c.runnerBinary)
		if err != nil {
			return "", fmt.Errorf("--runner-binary: %w", err)
		}
		return filepath.Abs(path)
	}
	own, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(own), name)
		if path, err := exec.LookPath(beside); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	return "", fmt.Errorf(
		"no %s beside %s and none in PATH: build it with `make build`, or say where it is with --runner-binary",
		name, own)
}

// prepareDataDir creates the parents of the default data directory, which a new user does
// not have yet. The parent of a directory that --data-dir names must exist: a mistyped
// mount point must not become a directory on the root disk.
func (c *config) prepareDataDir() error {
	if c.dataDir != defaultDataDir() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.dataDir), 0o700); err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	return nil
}
