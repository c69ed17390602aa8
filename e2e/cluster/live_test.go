package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// liveTimeout bounds each wait of these tests. The longest of them is Up: 30 s
// on two idle cores.
const liveTimeout = 5 * time.Minute

// live opens a cluster with state of its own but the programs and images of
// the usual one, so that a developer's cluster is not touched.
func live(t *testing.T, nodes int) *Cluster {
	t.Helper()
	if os.Getenv("E2E") == "" {
		t.Skip("starting a cluster takes 30 s: set E2E=1")
	}
	usual, err := Open(Config{Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour) // programs, if there are none
	defer cancel()
	if err := errors.Join(usual.Build(ctx), usual.Images(ctx)); err != nil {
		t.Fatal(err)
	}
	c, err := Open(Config{Dir: t.TempDir(), Nodes: nodes, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(usual.Program(""), filepath.Join(c.dir, "bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(c.dir, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	// Those of the system only: others are large, and nothing here runs them.
	for _, i := range systemImages {
		for _, ext := range []string{"", ".key"} {
			if err := os.Symlink(usual.image(i.file)+ext, c.image(i.file)+ext); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink(usual.image("base"), c.image("base")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// web is a server behind the ingress, one pod on each node: it answers with
// the name of its pod. It says so in Perl, since Debian's minimal image has no
// other server.
const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: web
        image: ` + ImageDebian + `
        command: [/usr/bin/perl, -e]
        args:
        - |
          use IO::Socket::INET;
          my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 50, ReuseAddr => 1) or die $!;
          while (my $client = $server->accept) {
            while (<$client>) { last if /^\r?\n$/ }
            print $client "HTTP/1.1 200 OK\r\nContent-Length: ", length $ENV{HOSTNAME}, "\r\nConnection: close\r\n\r\n", $ENV{HOSTNAME};
            close $client;
          }
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}
        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  rules:
  - host: web.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
`

// TestCluster is the life of one cluster: it comes up, serves through its
// ingress, survives the loss of a node, and leaves nothing.
func TestCluster(t *testing.T) {
	c := live(t, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 2*liveTimeout)
	defer cancel()
	before := machineState(t)
	if err := c.Up(ctx); err != nil {
		t.Fatal(err)
	}
	if !c.Running() || len(c.Nodes()) != 2 {
		t.Fatalf("running: %t, %d nodes", c.Running(), len(c.Nodes()))
	}
	kubectl(ctx, t, c, web, "apply", "-f", "-")
	kubectl(ctx, t, c, "", "rollout", "status", "deployment/web", "--timeout=60s")

	t.Run("the ingress reaches pods on both nodes", func(t *testing.T) {
		seen := map[string]bool{}
		eventually(ctx, t, func() error {
			pod, err := get(ctx, c)
			if err != nil {
				return err
			}
			seen[pod] = true
			if len(seen) < 2 {
				return fmt.Errorf("only %v has answered", seen)
			}
			return nil
		})
	})
	t.Run("pods reach a server in the clients' network, and nothing beyond", func(t *testing.T) { testRoutes(ctx, t, c) })
	t.Run("pods find services by name", func(t *testing.T) {
		out := kubectl(ctx, t, c, "", "exec", "deployment/web", "--", "getent", "hosts", "web.default.svc.cluster.local",
			"web")
		if n := strings.Count(out, "web.default.svc.cluster.local"); n != 2 {
			t.Errorf("%d of 2 names: %q", n, out)
		}
	})
	t.Run("pod security is enforced", func(t *testing.T) {
		kubectl(ctx, t, c, "", "create", "namespace", "strict")
		kubectl(ctx, t, c, "", "label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
		cmd := command(ctx, t, c, "kubectl", "run", "-n", "strict", "x", "--image="+ImageDebian)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "violates PodSecurity") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("a node may not read what it has no pod for", func(t *testing.T) {
		cmd := command(ctx, t, c, "kubectl", "--kubeconfig", c.run("shared", "node2.conf"), "get", "secrets", "-A")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "Forbidden") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("what a service account asks is in the audit log", func(t *testing.T) { testAudit(ctx, t, c) })
	t.Run("a node has its own processes and files", func(t *testing.T) { testNode(ctx, t, c) })
	t.Run("a program in the network sees the cluster's names", func(t *testing.T) {
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), helperEnv+"=enter", "TROUPE_CLUSTER="+c.dir)
		out, err := cmd.CombinedOutput()
		if want := "10.99.0.2"; err != nil || !strings.Contains(string(out), want) ||
			!strings.Contains(string(out), c.Kubeconfig()) {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("a node loses its power and comes back", func(t *testing.T) { testPower(ctx, t, c) })

	processes := processesOf(t, c)
	if len(processes) < 20 {
		t.Fatalf("%d processes: the test does not see the cluster", len(processes))
	}
	if err := c.Down(ctx); err != nil {
		t.Fatal(err)
	}
	mustLeaveNothing(t, c, processes)
	if after := machineState(t); after != before {
		t.Errorf("the machine was\n%s\nand is\n%s", before, after)
	}
	if err := c.Down(ctx); err != nil {
		t.Errorf("the second Down: %v", err)
	}
}

func testRoutes(ctx context.Context, t *testing.T, c *Cluster) {
	l, err := c.Listen(ctx, "tcp", ClientAddress+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		got <- line
	}()
	_, port, _ := strings.Cut(l.Addr().String(), ":")
	kubectl(ctx, t, c, "", "exec", "deployment/web", "--", "bash", "-c", "echo hello > /dev/tcp/"+ClientAddress+"/"+port)
	if line := <-got; line != "hello\n" {
		t.Errorf("got %q", line)
	}
	// An answer, and not silence until some timeout.
	cmd := command(ctx, t, c, "kubectl", "exec", "deployment/web", "--", "bash", "-c",
		"echo hello > /dev/tcp/192.0.2.1/80")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "No route to host") {
		t.Errorf("%v: %s", err, out)
	}
}

func testAudit(ctx context.Context, t *testing.T, c *Cluster) {
	token := strings.TrimSpace(kubectl(ctx, t, c, "", "create", "token", "default"))
	cmd := command(ctx, t, c, "kubectl", "--kubeconfig=/dev/null", "--server=https://"+APIServer,
		"--certificate-authority="+c.run("shared", "ca.crt"), "--token="+token, "get", "--raw",
		"/api/v1/namespaces/kube-system/secrets/none")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "Forbidden") {
		t.Errorf("%v: %s", err, out)
	}
	log, err := os.ReadFile(c.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), `"username":"system:serviceaccount:default:default"`) ||
		!strings.Contains(string(log), "secrets/none") {
		t.Errorf("the log says\n%s", log)
	}
}

func testNode(ctx context.Context, t *testing.T, c *Cluster) {
	n, err := c.Node("node2")
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := n.Command(ctx, "cat", "/etc/hostname", "/proc/1/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	out, err := output(cmd)
	if err != nil || !strings.HasPrefix(string(out), "node2\n"+initName) {
		t.Errorf("%v: %q", err, out)
	}
	all, err := n.Processes()
	if err != nil {
		t.Fatal(err)
	}
	find := func(program string) Process {
		for _, p := range all {
			if len(p.Args) > 0 && p.Args[0] == program {
				return p
			}
		}
		t.Errorf("no %s on %s", program, n.Name())
		return Process{}
	}
	uid := strings.TrimSpace(kubectl(ctx, t, c, "", "get", "pods", "-l", "app=web", "--field-selector=spec.nodeName=node2",
		"-o", "jsonpath={.items[0].metadata.uid}"))
	if p := find("/usr/bin/perl"); !strings.Contains(p.Cgroup, "pod"+uid) {
		t.Errorf("%+v is not of pod %s", p, uid)
	}
	// A service that dies comes back.
	kubelet := find("kubelet")
	if cmd, err = n.Command(ctx, "kill", "-KILL", strconv.Itoa(kubelet.PID)); err != nil {
		t.Fatal(err)
	}
	if _, err := output(cmd); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, func() error {
		now, err := n.Processes()
		if err != nil {
			return err
		}
		for _, p := range now {
			if len(p.Args) > 0 && p.Args[0] == "kubelet" && p.PID != kubelet.PID {
				return nil
			}
		}
		return errors.New("no new kubelet")
	})
}

func testPower(ctx context.Context, t *testing.T, c *Cluster) {
	n, err := c.Node("node2")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := n.PID()
	if err != nil {
		t.Fatal(err)
	}
	// A connection into the node, to see whether it dies in silence.
	var conn net.Conn
	eventually(ctx, t, func() error { // its kubelet was just killed
		conn, err = c.DialContext(ctx, "tcp", n.Address()+":10250")
		return err
	})
	defer conn.Close()
	if err := n.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	// Whatever the node has sent would be here, since it is dead by now.
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the node said goodbye: %v", err)
	}
	if _, err := n.PID(); !errors.Is(err, ErrOff) {
		t.Errorf("PID of a node that is off: %v", err)
	}
	kubectl(ctx, t, c, "", "wait", "--for=condition=Ready=Unknown", "node/node2", "--timeout=120s")
	// The ingress learns a little later than we do which pod is gone.
	eventually(ctx, t, func() error { _, err := get(ctx, c); return err })
	if err := n.PowerOn(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.PowerOn(ctx); err == nil {
		t.Error("a node that is on was powered on")
	}
	if now, err := n.PID(); err != nil || now == pid {
		t.Errorf("first process %d after %d: %v", now, pid, err)
	}
	kubectl(ctx, t, c, "", "wait", "--for=condition=Ready", "node/node2", "--timeout=120s")
	kubectl(ctx, t, c, "", "rollout", "status", "deployment/web", "--timeout=120s")
}

// The starter dies where it hurts most: while a node boots.
func TestDownAfterTheStarterWasKilled(t *testing.T) {
	c := live(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), liveTimeout)
	defer cancel()
	starter := exec.CommandContext(ctx, os.Args[0])
	starter.Env = append(os.Environ(), helperEnv+"=up", "TROUPE_CLUSTER="+c.dir)
	starter.Stdout, starter.Stderr = t.Output(), t.Output()
	if err := starter.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- starter.Wait() }()
	node1 := &Node{c, 1}
	eventually(ctx, t, func() error {
		select {
		case err := <-ended:
			t.Fatalf("the starter has ended: %v", err)
		default:
		}
		all, err := node1.Processes()
		if err == nil && !slices.ContainsFunc(all,
			func(p Process) bool { return len(p.Args) > 0 && p.Args[0] == "containerd" }) {
			err = errors.New("containerd has not started")
		}
		return err
	})
	if err := starter.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	processes := processesOf(t, c)
	if len(processes) < 3 {
		t.Fatalf("the starter took the cluster with it: %+v", processes)
	}
	if err := c.Down(ctx); err != nil {
		t.Fatal(err)
	}
	mustLeaveNothing(t, c, processes)
}

// helperEnv lets this test binary do one thing in a process of its own.
const helperEnv = "TROUPE_CLUSTER_TEST_HELPER"

func helperMain() {
	task := os.Getenv(helperEnv)
	if task == "" {
		return
	}
	c, err := Open(Config{Log: os.Stderr})
	if err == nil && task == "up" {
		err = c.Up(context.Background())
	}
	if err == nil && task == "enter" {
		err = c.Enter("sh", "-c", "getent hosts node2; echo $KUBECONFIG")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
