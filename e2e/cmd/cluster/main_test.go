package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/troupe-dev/troupe/e2e/cluster"
)

func TestMain(m *testing.M) {
	cluster.Main()
	goleak.VerifyTestMain(m)
}

// The command reports a mistake of the user in one line, before it changes anything.
func TestWrongCommandLines(t *testing.T) {
	t.Setenv("TROUPE_CLUSTER", t.TempDir())
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"", exitUsage, "a command is missing"},
		{"start", exitUsage, `"start" is no command`},
		{"up --nodes x", exitUsage, "invalid value"},
		{"up --node 2", exitUsage, "flag provided but not defined"},
		{"up 2", exitUsage, "usage: cluster up [--nodes N]"},
		{"up --nodes 10", exitFailed, "room for 1 to 9"},
		{"down now", exitUsage, "usage: cluster down"},
		{"in net", exitUsage, "usage: cluster in net|NODE CMD..."},
		{"exec node1", exitUsage, "usage: cluster exec NODE CMD..."},
		{"exec net ls", exitUsage, `"net" is no node`},
		{"power-off", exitUsage, "usage: cluster power-off NODE"},
		{"power-off nodeX", exitUsage, `"nodeX" is no node`},
		{"load", exitUsage, "usage: cluster load TAR..."},
		{"load no-such.tar", exitFailed, "no-such.tar: no such file"},
		{"kubectl get pods", exitFailed, "not running; cluster up starts it"},
		{"helm list", exitFailed, "not running; cluster up starts it"},
		{"exec node1 ls", exitFailed, "not running; cluster up starts it"},
		{"power-on node1", exitFailed, "not running; cluster up starts it"},
	} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), strings.Fields(c.args), &out, &errs); code != c.code {
			t.Errorf("cluster %s: exit code %d, want %d", c.args, code, c.code)
		}
		if !strings.Contains(errs.String(), c.says) {
			t.Errorf("cluster %s: %q, want %q", c.args, errs.String(), c.says)
		}
	}
}

func TestHelpNamesEveryCommand(t *testing.T) {
	for _, args := range []string{"help", "-h", "--help", "up -h"} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), strings.Fields(args), &out, &errs); code != 0 || errs.Len() > 0 {
			t.Errorf("%s: exit code %d, %q", args, code, errs.String())
		}
		for _, c := range commands {
			if !strings.Contains(out.String(), "cluster "+c.name) {
				t.Errorf("%s does not name %s", args, c.name)
			}
		}
	}
}

// Commands that need no cluster work without one.
func TestCommandsWithoutACluster(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TROUPE_CLUSTER", dir)
	for args, says := range map[string]string{
		"status":     "cluster    off",
		"kubeconfig": dir + "/run/kubeconfig",
		"env":        `PATH="` + dir + `/bin"`,
		"down":       "",
	} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), strings.Fields(args), &out, &errs); code != 0 ||
			!strings.Contains(out.String(), says) {
			t.Errorf("%s: exit code %d, %q, %q", args, code, out.String(), errs.String())
		}
	}
}

// An operation that a signal interrupts fails with an error of its own, which is of no use to the
// user who sent the signal. The command reports the interruption instead.
func TestInterruptedCommandSaysSo(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TROUPE_CLUSTER", dir)
	if err := os.Mkdir(dir+"/run", 0o755); err != nil {
		t.Fatal(err)
	}
	// Another command has the cluster, so that this one waits.
	lock, err := os.Create(dir + "/lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"down"}, &out, &errs); code != exitFailed ||
		!strings.Contains(errs.String(), "cluster: interrupted") {
		t.Errorf("exit code %d, %q", code, errs.String())
	}
}
