//go:build linux

package proc

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// runAs starts a shell script for an owner.
func runAs(t *testing.T, r *Runner, owner, script string) *command {
	t.Helper()
	marker := newMarker()
	return runOwned(t, r, owner, marker, Spec{
		Argv: []string{"/bin/bash", "-c", strings.ReplaceAll(script, "MARK", marker), marker},
		Env:  environ(),
	})
}

// many is a command that starts so many processes and waits.
func many(n string) string {
	return `perl -e 'for (1..shift) { unless (fork) { sleep 1000 } } $|=1; print "ready\n"; sleep 1000' ` + n + " MARK"
}

// bomb doubles ten times, so that it is 1,024 processes unless something ends it, and then goes on
// to replace those that die, for a minute at most.
const bomb = `perl -e 'for (1..10) { fork } for (1..600) { select undef,undef,undef,0.1; exit if fork }' MARK`

func TestForkBombEndsByTheBoundOfProcesses(t *testing.T) {
	change, _ := withoutBackstop(t)
	r := open(t, change, func(c *Config) { c.Session.Processes = 60 })
	neighbour := runAs(t, r, "neighbour", many("40"))
	neighbour.waitOutput("ready")
	for _, script := range []string{bomb, bomb + " & exit 0", "setsid " + bomb + " & wait"} {
		began := time.Now()
		c := runAs(t, r, "bomber", script)
		if d := c.waitDead(); d.Exceeded != BoundProcesses || d.OutOfMemory {
			t.Errorf("%s: %+v", script, d)
		}
		t.Logf("over after %v", time.Since(began))
	}
	if len(find(neighbour.marker)) < 41 {
		t.Error("the neighbour lost processes")
	}
	neighbour.tree.Kill()
	if d := neighbour.waitDead(); d.Exceeded != "" {
		t.Errorf("%+v", d)
	}
}

// The kernel lets nobody read the page tables of a process that forks, and one of hundreds which use
// the CPU takes long to fork. Measuring the memory must not keep the processes from being counted.
func TestForkBombEndsAlthoughItsMemoryIsMeasured(t *testing.T) {
	const bound = 200
	r := open(t, func(c *Config) { c.Session.Processes, c.Session.Memory = bound, 256<<20 })
	began := time.Now()
	// 1,024 processes, each of which writes a dot and uses the CPU for at most 30 s.
	c := runAs(t, r, "bomber", `exec perl -e 'my $end = time + 30; for (1..10) { fork or syswrite STDOUT, "." }
		1 while time < $end' MARK`)
	if d := c.waitDead(); d.Exceeded != BoundProcesses {
		t.Errorf("%+v", d)
	}
	c.read.Wait()
	if n := c.out.Len(); n >= 2*bound {
		t.Errorf("%d processes, with a bound of %d, after %v", n, bound, time.Since(began))
	}
}

// Threads take room like processes.
func TestThreadsCountAsProcesses(t *testing.T) {
	r := open(t, func(c *Config) { c.Session.Processes = 60 })
	c := runAs(t, r, "threads", `PROC_TEST_ROLE=threads exec `+testBinary+` MARK`)
	if d := c.waitDead(); d.Exceeded != BoundProcesses {
		t.Errorf("%+v", d)
	}
}

// Of several executions of a session, the one that holds most ends; another session keeps its own.
func TestProcessesOfASessionAreSummed(t *testing.T) {
	r := open(t, func(c *Config) { c.Session.Processes = 100 })
	other := runAs(t, r, "other", many("60"))
	first := runAs(t, r, "session", many("30"))
	other.waitOutput("ready")
	first.waitOutput("ready")
	second := runAs(t, r, "session", many("62"))
	near := waitEvent[NearBound](second)
	if near.Bound != BoundProcesses || near.Limit != 100 || near.Used <= 90 || near.Used > 100 {
		t.Errorf("%+v", near)
	}
	third := runAs(t, r, "session", many("20"))
	if d := second.waitDead(); d.Exceeded != BoundProcesses {
		t.Errorf("%+v", d)
	}
	for _, c := range []*command{other, first, third} {
		c.waitOutput("ready")
		c.mu.Lock()
		for _, e := range c.events {
			if _, ok := e.(Started); !ok {
				t.Errorf("%+v", e)
			}
		}
		c.mu.Unlock()
	}
}

func TestMemoryOfASessionIsSummed(t *testing.T) {
	r := open(t, func(c *Config) { c.Session.Memory = 100 << 20 })
	other := runAs(t, r, "other", greedy("70"))
	first := runAs(t, r, "session", greedy("30"))
	other.waitOutput("full")
	first.waitOutput("full")
	second := runAs(t, r, "session", greedy("80"))
	if d := second.waitDead(); d.Exceeded != BoundMemory || d.OutOfMemory {
		t.Errorf("%+v", d)
	}
	alone := runAs(t, r, "third", greedy("300"))
	if d := alone.waitDead(); d.Exceeded != BoundMemory || d.OutOfMemory {
		t.Errorf("%+v", d)
	}
	for _, c := range []*command{other, first} {
		if len(find(c.marker)) == 0 {
			t.Errorf("%+v", c.events)
		}
	}
}

// A page that the processes of a tree share counts once, until one of them writes to it.
func TestPagesThatBecomePrivateAreCounted(t *testing.T) {
	r := open(t, func(c *Config) { c.Session.Memory = 200 << 20 })
	c := runAs(t, r, "session", `perl -e '$|=1; my $x = "x" x (60<<20);
		for (1..4) { unless (fork) { sleep 2; substr($x, $_ << 12, 1) = "y" for 0..(60<<8)-1; sleep 1000 } }
		print "ready\n"; sleep 1000' MARK`)
	c.waitOutput("ready")
	select {
	case <-c.tree.Dead():
		t.Fatalf("killed while its pages were shared: %+v", c.events)
	case <-time.After(time.Second):
	}
	if d := c.waitDead(); d.Exceeded != BoundMemory {
		t.Errorf("%+v", d)
	}
}

// A file that grows to the bound, and a workspace of several files beyond it, end the execution.
func TestDiskOfASessionIsBounded(t *testing.T) {
	root := t.TempDir()
	r := open(t, func(c *Config) { c.Session.Disk, c.Isolation.Workspace = 2<<20, root })
	for name, script := range map[string]string{
		"file":       "exec head -c 4000000 /dev/zero > f", // by the kernel, at once
		"files":      "for i in 1 2 3; do head -c 1000000 /dev/zero > $i; done; sleep 20",
		"late files": "sleep 2; for i in 1 2 3; do head -c 1000000 /dev/zero > $i; done; sleep 8; echo too late",
	} {
		marker := newMarker()
		c := runOwned(t, r, name, marker, Spec{
			Argv: []string{"/bin/bash", "-c", "cd $HOME && " + script, marker}, Env: environ(),
			Workspace: workspace(len(name)),
		})
		if d := c.waitDead(); d.Exceeded != BoundDisk {
			t.Errorf("%s: %+v %s", name, d, &c.errOut)
		}
		if c.read.Wait(); c.out.Len() > 0 {
			t.Errorf("%s: ended %s", name, &c.out)
		}
	}
}

// Commands that are over before their workspace is measured fill it for those that come after them,
// which can then remove files but write to none, whatever they do about their limits.
func TestShortCommandsDoNotEvadeTheBoundOfDisk(t *testing.T) {
	root := t.TempDir()
	r := open(t, func(c *Config) { c.Session.Disk, c.Isolation.Workspace = 3<<20, root })
	run := func(script string) Dead {
		t.Helper()
		marker := newMarker()
		c := runOwned(t, r, "session", marker, Spec{
			Argv: []string{"/bin/bash", "-c", "cd $HOME && " + script, marker}, Env: environ(), Workspace: workspace(1),
		})
		return c.waitDead()
	}
	full := func() bool { return r.ledger.full(workspace(1)) }
	for i := range 4 {
		if d := run("exec head -c 1000000 /dev/zero > " + strconv.Itoa(i)); d.Exceeded != "" {
			t.Fatalf("file %d: %+v", i, d)
		}
	}
	eventually(t, "knowledge that the workspace is full", full)
	for _, script := range []string{"echo x > more", "sleep 0.2; ulimit -S -f $(ulimit -H -f); echo x > more"} {
		if d := run(script); d.Exceeded != BoundDisk {
			t.Errorf("%s: %+v", script, d)
		}
	}
	if d := run("ls && rm 0 1 2"); d.Exceeded != "" {
		t.Errorf("%+v", d)
	}
	eventually(t, "knowledge that there is room", func() bool { return !full() })
	if d := run("echo x > more"); d.Exceeded != "" {
		t.Errorf("%+v", d)
	}
}
