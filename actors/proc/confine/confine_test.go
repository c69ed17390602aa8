//go:build linux

package confine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "probe" {
		if err := Probe(&Rules{Read: HostDirs()}, os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// confined runs f on a thread of its own, which ends with it.
func confined(t *testing.T, r *Rules, dirs []string, f func()) {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	on(t, func() error {
		set, err := Prepare(r)
		if err != nil {
			return err
		}
		return set.Enter(dirs...)
	}, f)
}

func on(t *testing.T, enter func() error, f func()) {
	t.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = enter(); err == nil {
			f()
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
}

func TestDomainHasItsFilesOnly(t *testing.T) {
	mine, other, cache := t.TempDir(), t.TempDir(), t.TempDir()
	secret := filepath.Join(other, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(what string, err error, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	read := func(path string) error { _, err := os.ReadFile(path); return err }
	readDir := func(path string) error { _, err := os.ReadDir(path); return err }
	confined(
		t,
		&Rules{Read: HostDirs(), Write: []string{cache, filepath.Join(mine, "not-there")}},
		[]string{mine},
		func() {
			check("write mine", os.WriteFile(filepath.Join(mine, "f"), nil, 0o600), nil)
			check("make a directory in mine", os.Mkdir(filepath.Join(mine, "d"), 0o700), nil)
			check("move in mine", os.Rename(filepath.Join(mine, "f"), filepath.Join(mine, "d/f")), nil)
			check("write the cache", os.WriteFile(filepath.Join(cache, "f"), nil, 0o600), nil)
			check("read /etc/passwd", read("/etc/passwd"), nil)
			check("write /etc", os.WriteFile("/etc/troupe-test", nil, 0o600), os.ErrPermission)
			check("read a secret", read(secret), os.ErrPermission)
			check("link a secret", os.Link(secret, filepath.Join(mine, "s")), unix.EXDEV)
			check("list /tmp", readDir("/tmp"), os.ErrPermission)
			check("list /", readDir("/"), os.ErrPermission)
			check("write /dev/null", os.WriteFile("/dev/null", []byte("x"), 0), nil)
			check("read /proc", read("/proc/self/stat"), nil)
			check("write /proc", os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0), os.ErrPermission)
		},
	)
	check("another thread afterwards", read(secret), nil)
}

func TestDomainHidesProc(t *testing.T) {
	confined(t, &Rules{Read: HostDirs(), HideProc: true}, nil, func() {
		if _, err := os.ReadFile("/proc/1/cmdline"); !errors.Is(err, os.ErrPermission) {
			t.Error(err)
		}
	})
}

// sleeper starts a process that is not in any domain.
func sleeper(t *testing.T) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

// start starts a sleep from the calling thread.
func start(t *testing.T) int {
	t.Helper()
	pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "60"}, &syscall.ProcAttr{})
	if err != nil {
		t.Error(err)
		return 0
	}
	t.Cleanup(func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	})
	return pid
}

func TestDomainsDoNotSignalEachOther(t *testing.T) {
	free := sleeper(t)
	var first int
	rules := &Rules{Read: HostDirs()}
	confined(t, rules, nil, func() { first = start(t) })
	confined(t, rules, nil, func() {
		own := start(t)
		if err := unix.Kill(own, 0); err != nil {
			t.Error("a process of the domain:", err)
		}
		for what, pid := range map[string]int{"another domain": first, "no domain": free} {
			if err := unix.Kill(pid, 0); err != unix.EPERM {
				t.Errorf("signal to a process in %s: %v", what, err)
			}
			if err := unix.PtraceSeize(pid); err != unix.EPERM {
				t.Errorf("ptrace of a process in %s: %v", what, err)
			}
			if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); !errors.Is(err, os.ErrPermission) {
				t.Errorf("environment of a process in %s: %v", what, err)
			}
		}
	})
	if err := unix.Kill(first, 0); err != nil {
		t.Error("from outside:", err)
	}
}

// TestFilterDeniesCallsOnOthers: each call on another process fails, and the same on oneself works.
func TestFilterDeniesCallsOnOthers(t *testing.T) {
	if len(tables) == 0 {
		t.Skip("no filter for this architecture")
	}
	other := sleeper(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		t.Fatal(err)
	}
	errno := func(nr uintptr, args ...uintptr) error {
		var a [3]uintptr
		copy(a[:], args)
		if _, _, e := unix.RawSyscall(nr, a[0], a[1], a[2]); e != 0 {
			return e
		}
		return nil
	}
	calls := map[string]func(pid int) error{
		"prlimit":           func(pid int) error { return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil) },
		"setpriority":       func(pid int) error { return unix.Setpriority(unix.PRIO_PROCESS, pid, 1) },
		"sched_setaffinity": func(pid int) error { return unix.SchedSetaffinity(pid, &cpus) },
		"sched_setattr": func(pid int) error {
			return unix.SchedSetAttr(pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr}, 0)
		},
		"ioprio_set":         func(pid int) error { return errno(unix.SYS_IOPRIO_SET, 1, uintptr(pid), 2<<13|7) },
		"sched_setscheduler": setscheduler,
	}
	all := map[string]func() error{
		"setpriority of the user": func() error { return unix.Setpriority(unix.PRIO_USER, 0, 1) },
		"setpriority of a group":  func() error { return unix.Setpriority(unix.PRIO_PGRP, 0, 1) },
		"ioprio_set of the user":  func() error { return errno(unix.SYS_IOPRIO_SET, 3, 0, 2<<13|7) },
		"typing into a terminal":  func() error { return errno(unix.SYS_IOCTL, ^uintptr(0), unix.TIOCSTI, 0) },
		"keyctl":                  func() error { return errno(unix.SYS_KEYCTL, 0, ^uintptr(2), 0) },
		"shmget":                  func() error { _, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600); return err },
	}
	for name, f := range calls {
		on(t, func() error { return f(other) }, func() {}) // allowed without the filter
		on(t, func() error { return enter(false) }, func() {
			if err := f(other); err != unix.EPERM {
				t.Errorf("%s on another process: %v", name, err)
			}
			if err := f(os.Getpid()); err != unix.EPERM {
				t.Errorf("%s that names its own process: %v", name, err)
			}
			if err := f(0); err != nil {
				t.Errorf("%s on itself: %v", name, err)
			}
		})
	}
	on(t, func() error { return enter(false) }, func() {
		for name, f := range all {
			if err := f(); err != unix.EPERM {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	on(t, func() error { return enter(false) }, func() {
		if err := errno(unix.SYS_IOCTL, ^uintptr(0), unix.TIOCGWINSZ, 0); err != unix.EBADF {
			t.Errorf("another ioctl: %v", err)
		}
	})
	on(t, func() error { return enter(true) }, func() {
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
		if err != nil {
			t.Error("shmget where it is allowed:", err)
			return
		}
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	})
}

// setscheduler sets SCHED_OTHER, which every process may.
func setscheduler(pid int) error {
	var param int32
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(pid), 0, uintptr(unsafe.Pointer(&param)))
	if errno != 0 {
		return errno
	}
	return nil
}

func enter(sysVIPC bool) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return Filter(sysVIPC)
}

func TestProbe(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	probe := func(dir, outside string) (string, error) {
		out, err := exec.CommandContext(t.Context(), self, "probe", dir, outside).CombinedOutput()
		return string(out), err
	}
	if out, err := probe(t.TempDir(), t.TempDir()); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	// What every session may read is not outside.
	if out, err := probe(
		t.TempDir(),
		"/usr",
	); err == nil ||
		!strings.Contains(out, "a domain does not hold: to read a directory outside gives <nil>") {
		t.Errorf("%v: %q", err, out)
	}
}

func TestRulesCheck(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	spaces := filepath.Join(dir, "spaces")
	for _, tc := range []struct {
		rules Rules
		want  string // empty: no error
	}{
		{Rules{Read: []string{"/usr"}, Never: []string{spaces}}, ""},
		{Rules{Read: []string{dir + "x"}, Never: []string{spaces}}, ""},
		{Rules{Read: []string{spaces + "/inner"}, Never: []string{spaces}}, ""},
		{Rules{Read: []string{filepath.Join(dir, "space")}, Never: []string{spaces}}, ""},
		{Rules{Read: []string{spaces}, Never: []string{spaces}}, "would open " + spaces},
		{Rules{Read: []string{dir}, Never: []string{spaces}}, "would open " + spaces},
		{Rules{Write: []string{filepath.Join(dir, "link")}, Never: []string{spaces}}, "would open " + spaces},
		{Rules{Read: []string{"/"}, Never: []string{spaces}}, "would open " + spaces},
		{Rules{SharedTmp: true, Never: []string{"/tmp/none"}}, "/tmp would open /tmp/none"},
		{Rules{Read: []string{"usr"}}, "usr: the path must be absolute"},
	} {
		err := tc.rules.Check()
		if tc.want == "" && err != nil || tc.want != "" && !strings.Contains(fmt.Sprint(err), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.rules, err, tc.want)
		}
	}
}

func BenchmarkEnter(b *testing.B) {
	if err := Available(); err != nil {
		b.Skip(err)
	}
	dir := b.TempDir()
	for _, bench := range []struct {
		name  string
		enter func() error
	}{
		{"thread only", func() error { return nil }},
		{"domain", func() error {
			set, err := Prepare(&Rules{Read: HostDirs()})
			if err != nil {
				return err
			}
			return set.Enter(dir)
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				done := make(chan error)
				go func() {
					runtime.LockOSThread()
					done <- bench.enter()
				}()
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
