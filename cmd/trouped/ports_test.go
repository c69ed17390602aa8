package main

import (
	"bytes"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// A command of a runner with a user of its own, as in the chart, reaches neither metrics nor probes.
// Everybody else does.
func TestCommandsReachNoAdminPort(t *testing.T) {
	dir, _, runner := shared(t)
	sock := filepath.Join(dir, "runner.sock")
	s := launch(t, "--data-dir", filepath.Join(dir, "data"), "--workdir", dir, "--runner", "unix://"+sock)
	startRunner(t, sock, func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args[0] = runner, runner
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	})
	healthy(t, s)
	c := s.dial()
	host, port, _ := strings.Cut(strings.TrimPrefix(s.admin, "http://"), ":")
	for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
		var out bytes.Buffer
		done, err := c.Run(
			bounded(t),
			wire.ExecuteParams{Argv: []string{"bash", "-c", "exec 3<>/dev/tcp/" + host + "/" + port +
				" && printf 'GET " + path + " HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"}},
			&out,
			io.Discard,
		)
		if err != nil || out.Len() > 0 {
			t.Errorf("%s: %+v, %v: %.100q", path, done, err, &out)
		}
	}
	const refused = `troupe_command_connections_refused_total{listener="admin"} 3`
	if status, metrics := s.get(s.admin + "/metrics"); status != 200 || !strings.Contains(metrics, refused) {
		t.Errorf("%d, without %s", status, refused)
	}
}
