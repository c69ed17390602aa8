//go:build linux

package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// A command of the same ordinary user can read nothing of trouped, the runner or an init, not even
// of an init that is just starting.
func TestSameUserAttack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	sealed := filepath.Join(filepath.Dir(runnerBinary), "sealed-runner")
	if err := copyFile(sealed, runnerBinary); err != nil {
		t.Fatal(err)
	}
	os.Chmod(sealed, 0o111)
	for name, binary := range map[string]string{"readable binary": runnerBinary, "binary of mode 0111": sealed} {
		t.Run(name, func(t *testing.T) {
			cmd := helper("trouped", nobody, "PROC_TEST_ROLE=attack exec "+testBinary)
			cmd.Env = append(cmd.Env, "PROC_TEST_RUNNER="+binary)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(testTimeout, func() { cmd.Process.Kill() })
			defer timer.Stop()
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v", err)
			}
			s := out.String()
			if strings.Contains(s, "BREACH") || !strings.Contains(s, "attack done") || strings.Contains(s, "newborn 0\n") {
				t.Error(s)
			} else {
				t.Log(line(s, "newborn "), "new inits attacked")
			}
		})
	}
}

// The runner starts with no environment and nothing in its argv.
func TestRunnerStartsBare(t *testing.T) {
	t.Setenv("SECRET", "hunter2")
	r := open(t)
	for _, s := range append(below(r.Status().PID), proctree.Stat{PID: r.Status().PID}) {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.PID)) // root may
		if err != nil {
			t.Skip(err)
		}
		if bytes.Contains(env, []byte("SECRET")) || bytes.Contains(env, []byte("PATH=")) {
			t.Errorf("environment of %d: %q", s.PID, env)
		}
	}
}
