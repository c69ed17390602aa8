package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// What runs as whom, and where, in the chart's pod.
const (
	podServerUID = 65532
	podRunnerUID = 41000
	podSocket    = "/troupe/run/runner.sock"
	podTokens    = "/etc/troupe/tokens"
	podData      = "/var/lib/troupe/transcripts"
	podServer    = "127.0.0.1:8003"
	podAdmin     = "127.0.0.1:9090"
	podPath      = "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" // of commands
)

// pod is the chart's pod as runc can make it: trouped and troupe-runner in containers of their own,
// without privileges, under containerd's default seccomp profile, with read-only roots, and with a
// network and System V IPC that they share. Programs are this machine's.
type pod struct {
	t        *testing.T
	dir      string
	cache    string // of Go's compiler, which commands may read
	ns       string // the directory of the namespaces that both containers share
	profile  json.RawMessage
	subjects []string
}

// newPod starts a pod and waits until it takes commands, or skips the test where that takes more
// than there is. The runner gets the arguments. tools are programs for commands, in /opt.
func newPod(t *testing.T, tools []string, runnerArgs ...string) *pod {
	t.Helper()
	needsPods(t)
	runner, err := runnerBinary()
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{t: t, subjects: []string{"alice", "bob"}}
	if p.profile, err = os.ReadFile("testdata/seccomp.json"); err != nil {
		t.Fatal(err)
	}
	p.volumes()
	p.user()
	p.copy("bin/troupe-runner", runner)
	p.copy("server-bin/trouped", own)
	for _, tool := range tools {
		p.copy("tools/"+filepath.Base(tool), tool)
	}
	p.tokens()
	p.share()
	p.run(container{
		name: "server", uid: podServerUID, cwd: "/", system: []string{"/bin", "/lib", "/lib64", "/usr"},
		args: []string{
			"/opt/trouped", "--listen", podServer, "--admin-listen", podAdmin, "--auth", "token", "--token-file",
			podTokens, "--env", "PATH=" + podPath, "--runner", podSocket, "--data-dir", podData, "--pod", "troupe-0",
			"--log-format", "json",
		},
		env:     []string{"TROUPED_TEST_MAIN=1", "GORACE=atexit_sleep_ms=0"},
		volumes: []string{"server-bin:/opt:ro", "run:/troupe/run", "etc:/etc/troupe:ro", "data:/var/lib/troupe"},
	})
	p.run(container{
		name: "runner", uid: podRunnerUID, cwd: "/workspace",
		system: []string{"/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr"},
		args: append([]string{
			"/troupe/bin/troupe-runner", "--connect", podSocket, "--workspace", "/workspace",
		}, runnerArgs...),
		env: []string{"PATH=" + podPath, "LANG=C.UTF-8"},
		volumes: []string{
			"passwd:/etc/passwd:ro", "tools:/opt:ro", "cache:/cache:ro", "shared:/shared",
			"bin:/troupe/bin:ro", "run:/troupe/run:ro", "workspace:/workspace", "tmp:/tmp",
		},
	})
	p.ready()
	return p
}

// needsPods skips the test where runc cannot make pods. With CI set, that is a failure.
func needsPods(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to make a pod")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("testdata/seccomp.json is the profile for amd64")
	}
	_, err := exec.LookPath("runc")
	if err == nil {
		// An outer container may have root and be allowed no namespaces.
		err = exec.CommandContext(t.Context(), "unshare", "--net", "--ipc", "--mount", "true").Run()
	}
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal("no pod can be made here: ", err)
	case err != nil:
		t.Skip("no pod can be made here: ", err)
	}
}

// volumes makes what the kubelet would make: emptyDir volumes of the chart's fsGroup.
func (p *pod) volumes() {
	dir, err := os.MkdirTemp("", "trouped-pod-")
	if err != nil {
		p.t.Fatal(err)
	}
	p.dir = dir
	p.t.Cleanup(func() { os.RemoveAll(dir) })
	cache, err := exec.CommandContext(p.t.Context(), "go", "env", "GOCACHE").Output()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cache = strings.TrimSpace(string(cache))
	errs := []error{os.Chmod(dir, 0o755)}
	for _, name := range []string{"bin", "run", "etc", "data", "workspace", "tmp", "shared", "tools", "server-bin"} {
		path := filepath.Join(dir, name)
		// 2777 is what an emptyDir has: the last of these set the bits that Mkdir leaves out.
		errs = append(errs, os.Mkdir(path, 0o755), os.Chown(path, 0, podServerUID), unix.Chmod(path, 0o2777))
	}
	if err := errors.Join(errs...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pod) copy(to, from string) {
	p.t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(filepath.Join(p.dir, to), b, 0o555)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// user gives the runner's user the name that some programs ask for.
func (p *pod) user() {
	p.t.Helper()
	users := fmt.Sprintf("root:x:0:0::/:/bin/sh\nrunner:x:%[1]d:%[1]d::/workspace:/bin/sh\n", podRunnerUID)
	if err := os.WriteFile(filepath.Join(p.dir, "passwd"), []byte(users), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pod) tokens() {
	p.t.Helper()
	var text strings.Builder
	for _, subject := range p.subjects {
		fmt.Fprintln(&text, subject, tokenOf(subject))
	}
	path := filepath.Join(p.dir, "etc/tokens")
	err := errorsOf(os.WriteFile(path, []byte(text.String()), 0o440), os.Chown(path, podServerUID, podServerUID))
	if err != nil {
		p.t.Fatal(err)
	}
}

// share starts the process that holds what the containers share, as the pause container does.
func (p *pod) share() {
	p.t.Helper()
	pause := exec.CommandContext(p.t.Context(), "unshare", "--net", "--ipc", "--kill-child", "--fork", "/bin/sh", "-c",
		"ip link set lo up && echo ready && exec sleep infinity")
	var complaint bytes.Buffer
	pause.Stderr = &complaint
	out, err := pause.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := pause.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = pause.Process.Kill(); _ = pause.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		p.t.Fatalf("no namespaces: %v %s", err, &complaint)
	}
	p.ns = fmt.Sprintf("/proc/%d/ns", pause.Process.Pid)
}

// container is one of the pod.
type container struct {
	name    string
	uid     int
	args    []string
	env     []string
	cwd     string
	system  []string // directories of this machine
	volumes []string // NAME:PATH[:ro]
}

// log is what a container said.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (p *pod) run(c container) {
	p.t.Helper()
	bundle := filepath.Join(p.dir, c.name)
	config, err := json.Marshal(p.oci(&c, filepath.Join(bundle, "root")))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := errorsOf(os.MkdirAll(filepath.Join(bundle, "root"), 0o755),
		os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600)); err != nil {
		p.t.Fatal(err)
	}
	id := filepath.Base(p.dir) + "-" + c.name
	said := new(log)
	cmd := exec.Command("runc", "run", "--bundle", bundle, id)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = exec.CommandContext(context.Background(), "runc", "delete", "--force", id).Run()
		_ = cmd.Wait()
		if p.t.Failed() {
			p.t.Logf("%s said:\n%s", c.name, said)
		}
	})
}

// oci is the runtime's configuration, after what containerd's CRI makes of a container of the
// restricted Pod Security Standard.
func (p *pod) oci(c *container, root string) map[string]any {
	type m = map[string]any
	mounts := []m{
		{"destination": "/proc", "type": "proc", "source": "proc", "options": []string{"nosuid", "noexec", "nodev"}},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=64m"}},
		{
			"destination": "/dev/pts", "type": "devpts", "source": "devpts",
			"options": []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
		},
		{
			"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs",
			"options": []string{"nosuid", "noexec", "nodev", "mode=1777", "size=64m"},
		},
		{
			"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
			"options": []string{"nosuid", "noexec", "nodev"},
		},
		{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"nosuid", "noexec", "nodev", "ro"}},
		{
			"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
			"options": []string{"nosuid", "noexec", "nodev", "relatime", "ro"},
		},
	}
	bind := func(source, destination, mode string) {
		mounts = append(mounts, m{
			"destination": destination, "type": "bind", "source": source, "options": []string{"rbind", "rprivate", mode},
		})
	}
	for _, dir := range c.system {
		bind(dir, dir, "ro")
	}
	for _, v := range c.volumes {
		name, path, _ := strings.Cut(v, ":")
		path, mode, ro := strings.Cut(path, ":")
		if !ro {
			mode = "rw"
		}
		source := filepath.Join(p.dir, name)
		if name == "cache" {
			source = p.cache
		}
		bind(source, path, mode)
	}
	return m{
		"ociVersion": "1.0.2",
		"root":       m{"path": root, "readonly": true},
		"hostname":   "pod",
		"mounts":     mounts,
		"process": m{
			"user": m{"uid": c.uid, "gid": c.uid, "additionalGids": []int{podServerUID}},
			"args": c.args, "env": c.env, "cwd": c.cwd, "capabilities": m{}, "noNewPrivileges": true,
		},
		"linux": m{
			"namespaces": []m{
				{"type": "pid"},
				{"type": "mount"},
				{"type": "uts"},
				{"type": "ipc", "path": p.ns + "/ipc"},
				{"type": "network", "path": p.ns + "/net"},
			},
			"resources": m{"devices": []m{{"allow": false, "access": "rwm"}}},
			"seccomp":   p.profile,
			"maskedPaths": []string{
				"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware",
			},
			"readonlyPaths": []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// http is a client in the pod's network.
func (p *pod) http() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: p.dial}}
}

// dial connects from within the pod's network, which is that of the thread that makes the socket.
func (p *pod) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var ns *os.File
		if ns, err = os.Open(p.ns + "/net"); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
		}
	}()
	<-done
	return conn, err
}

// ready waits until the pod is.
func (p *pod) ready() {
	p.t.Helper()
	client := p.http()
	defer client.CloseIdleConnections()
	eventually(p.t, func() error {
		request, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+podAdmin+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	})
}

// session opens a session of a subject, which the test's end closes.
func (p *pod) session(subject string) *troupe.Client {
	p.t.Helper()
	opened := time.Now()
	c, err := troupe.Dial(p.t.Context(), "ws://"+podServer+"/ws",
		troupe.Options{Token: tokenOf(subject), HTTPClient: p.http()})
	if err != nil {
		p.t.Fatalf("%v after %v", err, time.Since(opened))
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

// patiently bounds a command that computes, on a machine that is very busy.
func patiently(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
