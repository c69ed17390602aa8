package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// sshServer is an OpenSSH server on loopback that accepts one key.
type sshServer struct {
	cmd  *exec.Cmd
	dir  string
	port string
}

// sshdConfig accepts a key from anywhere in the file system, and reads nothing else of the system's
// configuration.
const sshdConfig = `ListenAddress 127.0.0.1:%s
HostKey %[2]s/host
PidFile none
AuthorizedKeysFile %[2]s/user.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
`

// startSSH starts sshd on a free port, with keys in a directory of dir.
func startSSH(ctx context.Context, dir string) (*sshServer, error) {
	binary, err := findSSHD()
	if err != nil {
		return nil, err
	}
	s := &sshServer{dir: filepath.Join(dir, "ssh")}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return nil, err
	}
	for _, key := range []string{"host", "user"} {
		argv := []string{"-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(s.dir, key)}
		if said, err := exec.CommandContext(ctx, "ssh-keygen", argv...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ssh-keygen: %w: %s", err, said)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	_ = l.Close() // sshd does not accept port 0
	if _, s.port, err = net.SplitHostPort(addr); err != nil {
		return nil, err
	}
	config := filepath.Join(s.dir, "sshd_config")
	if err := os.WriteFile(config, fmt.Appendf(nil, sshdConfig, s.port, s.dir), 0o600); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 {
		_ = os.Mkdir("/run/sshd", 0o755) // where its unprivileged half lives; systemd makes it
	}
	s.cmd = exec.CommandContext(ctx, binary, "-D", "-e", "-f", config)
	var said strings.Builder
	s.cmd.Stderr = &said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 250 {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return s, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.stop()
	return nil, fmt.Errorf("sshd does not listen on %s: %s", addr, said.String())
}

// findSSHD finds the binary, which must be started by its absolute path.
func findSSHD() (string, error) {
	for _, path := range []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no sshd: install openssh-server")
}

// command returns the argv that runs a command on the server.
func (s *sshServer) command(command string) []string { return s.argv("-T", command) }

// terminal is command for one in a terminal.
func (s *sshServer) terminal(command string) []string { return s.argv("-tt", command) }

func (s *sshServer) argv(terminal, command string) []string {
	return []string{
		"ssh", "-F", "none", "-q", "-i", filepath.Join(s.dir, "user"), "-p", s.port, "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", terminal, "127.0.0.1", command,
	}
}

func (s *sshServer) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}
