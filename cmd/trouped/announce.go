package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// announce logs that the server is ready. At a terminal it also prints a command to try next.
func (s *server) announce() {
	addr := s.listener.Addr().String()
	attrs := []any{"version", version, "listen", addr, "runner", s.c.runner, "containment", s.runner.Status().Containment}
	if s.admin != nil {
		attrs = append(attrs, "admin", s.admin.Addr().String())
	}
	s.log.Info("ready", attrs...)
	if s.c.logFormat == logText {
		console := ""
		if s.c.servesConsole() {
			console = fmt.Sprintf("\n\nor open http://%s/ in a browser.", reachable(addr))
		}
		fmt.Printf("trouped is ready on ws://%s/ws. Try in another terminal:\n\n  %s%s\n\n", addr, s.tryLine(addr), console)
	}
}

// tryLine returns a command to paste into a shell. If the server requires a token, the user
// replaces TOKEN with it.
func (s *server) tryLine(addr string) string {
	var words []string
	if s.c.auth != authNone && s.c.auth != authNoneInsecure {
		words = append(words, "TROUPE_TOKEN=TOKEN")
	}
	words = append(words, clientBinary())
	addr = reachable(addr)
	if addr != defaults().listen {
		words = append(words, "--server", "ws://"+addr+"/ws")
	}
	return strings.Join(append(words, "exec -- echo hello"), " ")
}

// reachable returns an address at which this machine reaches a listener: one on every address, for example, on this.
func reachable(addr string) string {
	if host, port, err := net.SplitHostPort(addr); err == nil && net.ParseIP(host).IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// clientBinary returns the command that runs troupe: the path of the binary beside trouped,
// relative to the current directory if that is shorter, or the name of the one in PATH.
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
