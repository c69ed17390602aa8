package image

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// waitTimeout bounds every wait for something that must happen.
const waitTimeout = 30 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(waitTimeout); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, waitTimeout)
		}
	}
}

// pod is what the kubelet makes of the chart's pod, as far as runc can do it:
// containers of the two images, without privileges and with read-only root file
// systems, that share a network with nothing but a loopback device, and volumes.
type pod struct {
	t              *testing.T
	dir            string
	netns          string
	server, runner string // root file systems
}

func newPod(t *testing.T) *pod {
	t.Helper()
	images := built(t)
	if _, err := exec.LookPath("runc"); err != nil {
		if os.Getenv("E2E") != "" {
			t.Fatal(err)
		}
		t.Skip("needs runc")
	}
	dir, err := os.MkdirTemp("", "troupe-pod-") //nolint:usetesting // t.TempDir is for its owner only
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{t: t, dir: dir, server: filepath.Join(dir, "server-root"), runner: filepath.Join(dir, "runner-root")}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	unpack(t, images.Server, p.server)
	unpack(t, images.Runner, p.runner)
	for _, volume := range []string{"bin", "run", "data", "workspace", "tmp"} {
		path := filepath.Join(dir, volume)
		if err := errors.Join(os.Mkdir(path, 0o777), os.Chmod(path, 0o777)); err != nil { // as an emptyDir
			t.Fatal(err)
		}
	}
	// A network that lives as long as this process, as the pause container's.
	pause := exec.Command("unshare", "--net", "--kill-child", "--fork", "/bin/sh", "-c",
		"ip link set lo up && echo ready && exec sleep infinity")
	out, err := pause.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := pause.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pause.Process.Kill(); _ = pause.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("no network namespace: %q, %v", line, err)
	}
	p.netns = fmt.Sprintf("/proc/%d/ns/net", pause.Process.Pid)
	return p
}

func unpack(t *testing.T, i Image, dir string) {
	t.Helper()
	img, err := tarball.ImageFromPath(i.Archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	stream := mutate.Extract(img)
	defer stream.Close()
	cmd := exec.CommandContext(t.Context(), "tar", "-x", "--numeric-owner", "-C", dir)
	cmd.Stdin = stream
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v %s", err, out)
	}
	// Where volumes are mounted; the container's manager makes these.
	for _, mount := range []string{
		"proc", "dev", "sys", "tmp", "troupe/bin", "troupe/run", "var/lib/troupe",
		"workspace",
	} {
		if err := os.MkdirAll(filepath.Join(dir, mount), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// spec is a container of the pod.
type spec struct {
	root    string
	uid     int
	args    []string
	env     []string
	cwd     string
	volumes []string // NAME:PATH[:ro]
	memory  int64    // limit in bytes; 0: none
}

// container is a running one.
type container struct {
	t    *testing.T
	id   string
	cmd  *exec.Cmd
	end  chan struct{}
	mu   sync.Mutex
	said bytes.Buffer
}

func (c *container) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.Write(b)
}

func (c *container) log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}

// run starts a container under runc, in the foreground of a child of this test.
func (p *pod) run(name string, s spec) *container {
	p.t.Helper()
	bundle := filepath.Join(p.dir, fmt.Sprintf("%s-%d", name, time.Now().UnixNano()))
	if err := os.Mkdir(bundle, 0o755); err != nil {
		p.t.Fatal(err)
	}
	config, err := json.Marshal(p.oci(s))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600); err != nil {
		p.t.Fatal(err)
	}
	c := &container{t: p.t, id: filepath.Base(p.dir) + "-" + filepath.Base(bundle), end: make(chan struct{})}
	c.cmd = exec.Command("runc", "run", "--bundle", bundle, c.id)
	c.cmd.Stdout, c.cmd.Stderr = c, c
	if err := c.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() { _ = c.cmd.Wait(); close(c.end) }()
	p.t.Cleanup(func() {
		_ = exec.CommandContext(context.Background(), "runc", "delete", "--force", c.id).Run()
		<-c.end
		if p.t.Failed() {
			p.t.Logf("%s said:\n%s", name, c.log())
		}
	})
	return c
}

// oci is the runtime's configuration, after the restricted profile of the pod
// security standards. Seccomp is left out: runc has no default profile.
func (p *pod) oci(s spec) map[string]any {
	type m = map[string]any
	mounts := []m{
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755"}},
		{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"nosuid", "noexec", "nodev", "ro"}},
		{
			"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
			"options": []string{"nosuid", "noexec", "nodev", "ro"},
		},
	}
	for _, v := range s.volumes {
		name, path, _ := strings.Cut(v, ":")
		path, mode, ro := strings.Cut(path, ":")
		if !ro {
			mode = "rw"
		}
		mounts = append(mounts, m{
			"destination": path, "type": "bind", "source": filepath.Join(p.dir, name),
			"options": []string{"bind", mode, "nosuid"},
		})
	}
	resources := m{"devices": []m{{"allow": false, "access": "rwm"}}}
	if s.memory > 0 {
		resources["memory"] = m{"limit": s.memory}
	}
	return m{
		"ociVersion": "1.0.2",
		"root":       m{"path": s.root, "readonly": true},
		"mounts":     mounts,
		"process": m{
			"user": m{"uid": s.uid, "gid": s.uid}, "args": s.args, "env": s.env, "cwd": s.cwd,
			"capabilities": m{}, "noNewPrivileges": true,
		},
		"linux": m{
			"namespaces": []m{
				{"type": "pid"},
				{"type": "mount"},
				{"type": "ipc"},
				{"type": "uts"},
				{"type": "network", "path": p.netns},
			},
			"resources": resources, "maskedPaths": []string{"/proc/kcore"}, "readonlyPaths": []string{"/proc/sys"},
		},
	}
}

func (c *container) await(what string) int {
	c.t.Helper()
	select {
	case <-c.end:
	case <-time.After(waitTimeout):
		c.t.Fatalf("%s: not within %v", what, waitTimeout)
	}
	return c.cmd.ProcessState.ExitCode()
}

// kill signals the container's first process, as the kubelet does.
func (c *container) kill(signal string) {
	c.t.Helper()
	if out, err := exec.CommandContext(c.t.Context(), "runc", "kill", c.id, signal).CombinedOutput(); err != nil {
		c.t.Fatalf("runc kill: %v %s", err, out)
	}
}

// exec runs a program in the container, as "kubectl exec" does.
func (c *container) exec(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*waitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "runc", append([]string{"exec", c.id}, args...)...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	_ = cmd.Run()
	if cmd.ProcessState == nil {
		c.t.Fatal("runc exec did not start")
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

func (p *pod) startServer() *container {
	return p.run("server", spec{
		root: p.server, uid: 65532, cwd: "/",
		args: []string{
			"/trouped", "--runner", "/troupe/run/runner.sock", "--data-dir",
			"/var/lib/troupe/transcripts", "--log-format", "json",
		},
		env:     []string{"PATH=/usr/bin:/bin", "KUBERNETES_SERVICE_HOST=10.0.0.1"},
		volumes: []string{"run:/troupe/run", "data:/var/lib/troupe"},
	})
}

func (p *pod) startRunner() *container {
	return p.run("runner", spec{
		root: p.runner, uid: 1000, cwd: "/workspace", memory: 256 << 20,
		args: []string{"/troupe/bin/troupe-runner", "--connect", "/troupe/run/runner.sock", "--workspace", "/workspace"},
		env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/workspace",
			"LANG=C.UTF-8", "KUBERNETES_SERVICE_HOST=10.0.0.1", "SECRET=hunter2",
		},
		volumes: []string{"bin:/troupe/bin:ro", "run:/troupe/run:ro", "workspace:/workspace", "tmp:/tmp"},
	})
}

// install is the init container.
func (p *pod) install() {
	p.t.Helper()
	c := p.run("install", spec{
		root: p.server, uid: 65532, cwd: "/",
		args: []string{"/troupe-runner", "--install", "/troupe/bin/troupe-runner"}, volumes: []string{"bin:/troupe/bin"},
	})
	if code := c.await("installing the runner"); code != 0 {
		p.t.Fatalf("the init container ended with %d: %s", code, c.log())
	}
}
