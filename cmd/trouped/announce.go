package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// announce logs that the server is ready, and shows a person at a terminal the one line to
// try next.
func (s *server) announce() {
	addr := s.listener.Addr().String()
	attrs := []any{"version", version, "listen", addr, "runner", s.c.runner, "containment", s.runner.Status().Containment}
	if s.admin != nil {
		attrs = append(attrs, "admin", s.admin.Addr().String())
	}
	s.log.Info("ready", attrs...)
	if s.c.logFormat == logText {
		fmt.Printf("trouped is ready on ws://%s/ws. Try in another terminal:\n\n  %s\n\n", addr, s.tryLine(addr))
	}
}

// tryLine returns a command that works when it is pasted into a shell, with a token in
// place of TOKEN if one is needed.
func (s *server) tryLine(addr string) string {
	var words []string
	if s.c.auth != authNone && s.c.auth != authNoneInsecure {
		words = append(words, "TROUPE_TOKEN=TOKEN")
	}
	words = append(words, clientBinary())
	// A listener on every address can be reached on this one.
	if host, port, err := net.SplitHostPort(addr); err == nil && net.ParseIP(host).IsUnspecified() {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	if addr != defaults().listen {
		words = append(words, "--server", "ws://"+addr+"/ws")
	}
	return strings.Join(append(words, "exec -- echo hello"), " ")
}

// clientBinary is how to call troupe from here: beside trouped, as a path
// relative to the current directory when that is shorter, or found in PATH.
func clientBinary() string {
	const name = "troupe"
	own, err := os.Executable()
	if err != nil {
		return name
	}
	beside := filepath.Join(filepath.Dir(own), name)
	if found, err := exec.LookPath(name); err == nil && found == beside {
		return name
	}
	if _, err := exec.LookPath(beside); err != nil {
		return name
	}
	if cwd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(cwd, beside); err == nil && len(rel) < len(beside) {
			return rel
		}
	}
	return beside
}
