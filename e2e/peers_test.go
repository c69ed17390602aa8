package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// replicas is how many pods the service of the tests has, and ceiling what each takes.
const replicas, ceiling = 3, 100

// TestManyPodsAreOneService installs three pods once, for tests that leave the
// release as they found it, and last for those that do not.
func TestManyPodsAreOneService(t *testing.T) {
	needNodes(t) // clients that choose their pod reach it by its address
	r := install(t, "peers", fmt.Sprintf("replicaCount: %d", replicas))
	for _, test := range []struct {
		name string
		run  func(*testing.T, *release)
	}{
		{"a session can be resumed through every pod", sessionGoesOnThroughEveryPod},
		{"50 cuts lose no byte", cutsLoseNoByte},
		{"commands are not peers", commandsAreNotPeers},
		{"all sockets on one pod", allSocketsOnOnePod},
		{"new sessions through all pods at once", sessionsEverywhere},
		{"the autoscaler sees each pod", autoscalerSeesEachPod},
		{"a slow pod is not a dead one", slowPodIsNotDead},
		{"a killed server is told of", killedServerIsToldOf},
		{"a deleted pod is told of", deletedPodIsToldOf},
		{"a node without power is told of", darkNodeIsToldOf},
		{"a rollout loses nothing", rolloutOfManyLosesNothing},
		{"scale-in takes the idlest", scaleInTakesTheIdlest},
	} {
		if !t.Run(test.name, func(t *testing.T) { test.run(t, r) }) {
			t.Log("the release is as the failed test left it")
		}
	}
}

// readyPods waits until the release has n pods which are all ready, of which none is terminating,
// and each of which knows all others.
func (r *release) readyPods(t *testing.T, n int) []corev1.Pod {
	t.Helper()
	var found []corev1.Pod
	eventually(t, 2*time.Minute, fmt.Sprintf("%d pods that are peers", n), func(ctx context.Context) error {
		pods, err := r.pods(ctx)
		if err != nil {
			return err
		}
		if len(pods) != n {
			return fmt.Errorf("%d pods", len(pods))
		}
		for i := range pods {
			if pods[i].DeletionTimestamp != nil || !ready(&pods[i]) {
				return fmt.Errorf("pod %s is not ready, or about to go", pods[i].Name)
			}
			alive, err := metric(ctx, &pods[i], `troupe_peers{state="alive"}`)
			if err == nil && alive != float64(n-1) {
				err = fmt.Errorf("pod %s has %v peers", pods[i].Name, alive)
			}
			if err != nil {
				return err
			}
		}
		found = pods
		return nil
	})
	return found
}

// metric reads one value of a pod's metrics. A series that is not there is 0.
func metric(ctx context.Context, pod *corev1.Pod, series string) (float64, error) {
	page, err := suite.kube.CoreV1().Pods(pod.Namespace).ProxyGet("http", pod.Name, "9090", "/metrics", nil).DoRaw(ctx)
	if err != nil {
		return 0, err
	}
	match := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindSubmatch(page)
	if match == nil {
		return 0, nil
	}
	return strconv.ParseFloat(string(match[1]), 64)
}

// sum adds up what the series of a metric have in all pods.
func sum(t *testing.T, pods []corev1.Pod, series ...string) (total float64) {
	t.Helper()
	for i := range pods {
		for _, s := range series {
			value, err := metric(t.Context(), &pods[i], s)
			if err != nil {
				t.Fatal(err)
			}
			total += value
		}
	}
	return total
}

// to dials a pod itself, past Service and ingress, so that it is known which one has the socket.
func to(pod *corev1.Pod) dialer {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, net.JoinHostPort(pod.Status.PodIP, "8003"))
	}
}

// optionsTo are those of a client that knows no other pod.
func (r *release) optionsTo(pod *corev1.Pod) troupe.Options {
	opt := r.options()
	opt.HTTPClient = httpClient(to(pod))
	return opt
}

// others are the pods without one.
func others(pods []corev1.Pod, without string) (rest []*corev1.Pod) {
	for i := range pods {
		if pods[i].Name != without {
			rest = append(rest, &pods[i])
		}
	}
	return rest
}

// attach takes a session up through a pod.
func (r *release) attach(t *testing.T, s troupe.Session, pod *corev1.Pod, seen *notices) *troupe.Client {
	t.Helper()
	opt := r.optionsTo(pod)
	if seen != nil {
		opt.OnNotice = seen.note
	}
	c, err := troupe.Attach(t.Context(), r.url(), s.ID, s.ResumeToken, s.Offsets, opt)
	if err != nil {
		t.Fatalf("through %s: %v", pod.Name, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// sessionGoesOnThroughEveryPod takes one session from pod to pod. Protects from:
// output, input, control or new commands that work at the owner only.
func sessionGoesOnThroughEveryPod(t *testing.T, r *release) {
	pods := r.readyPods(t, replicas)
	owner := &pods[0]
	c := r.dialWith(t, r.optionsTo(owner))
	if at := c.Connected().Pod; at != owner.Name {
		t.Fatalf("the session is in %s, though %s has room", at, owner.Name)
	}
	e := start(t, c, wire.ExecuteParams{Command: "echo ready; cat", Stdin: true})
	id, hop := e.ID(), 0
	for _, pod := range append(others(pods, owner.Name), owner, &pods[2]) {
		session := c.Detach()
		c = r.attach(t, session, pod, nil)
		if links, err := metric(t.Context(), pod, `troupe_links{role="guest"}`); pod != owner && (err != nil || links != 1) {
			t.Errorf("pod %s has %v links as a guest (%v), want 1", pod.Name, links, err)
		}
		if e = c.Executions()[id]; e == nil {
			t.Fatalf("through %s the execution is not there", pod.Name)
		}
		before := e.Offset()
		hop++
		line := fmt.Sprintf("hop %d\n", hop)
		if _, err := e.Input(t.Context(), []byte(line)); err != nil {
			t.Fatal(err)
		}
		if got := nextOutput(t, e); string(got.Data) != line || got.Offset != before+int64(len(line)) {
			t.Errorf("through %s came %q up to %d, want %q after %d", pod.Name, got.Data, got.Offset, line, before)
		}
		pauseAndResume(t, e)
		if out := shell(t, c, "echo a second one"); out != "a second one\n" {
			t.Errorf("through %s a second command printed %q", pod.Name, out)
		}
	}
	if err := e.CloseInput(t.Context()); err != nil {
		t.Fatal(err)
	}
	if done := completed(t, e, commandBound); done.Reason != wire.ReasonExited || done.ExitCode != 0 {
		t.Errorf("the end is %s", compact(done))
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, 10*time.Second, "no link is left", func(context.Context) error {
		if links := sum(t, pods, `troupe_links{role="guest"}`, `troupe_links{role="host"}`); links != 0 {
			return fmt.Errorf("%v links", links)
		}
		return nil
	})
}

func pauseAndResume(t *testing.T, e *troupe.Execution) {
	t.Helper()
	if err := e.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, e, wire.MethodPaused)
	if err := e.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, e, wire.MethodResumed)
}

// cutsLoseNoByte resets the connection 50 times in 10 MiB; the ingress sends
// each attempt to the next pod. Protects from: bytes that are lost, or come
// twice, when a client comes back through another pod.
func cutsLoseNoByte(t *testing.T, r *release) {
	const cuts = 50
	pods := r.readyPods(t, replicas)
	before := sum(t, pods, "troupe_link_output_bytes_total")
	want, size := streamBytes()
	var cut cutter
	var seen notices
	opt := r.options()
	opt.HTTPClient, opt.OnNotice, opt.Backoff = httpClient(cut.dial), seen.note,
		troupe.Backoff{Initial: 20 * time.Millisecond, Max: 100 * time.Millisecond}
	c := r.dialWith(t, opt)
	got := &counter{Hash: sha256.New()}
	seed := rand.Uint64() //nolint:gosec // a place to cut
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range int64(cuts) { // one in each fiftieth, so that the last comes before the end
		got.actions = append(got.actions, action{(i*size + random.Int64N(size)) / (cuts + 1), cut.reset})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	began := time.Now()
	done, err := c.Run(ctx, wire.ExecuteParams{Command: streamCommand()}, got, nil)
	if err != nil {
		t.Fatalf("seed %d: after %d of %d bytes: %v\n%s", seed, got.n, size, err, seen.String())
	}
	if done.Reason != wire.ReasonExited || done.OutputBytes != size || got.n != size || !bytes.Equal(got.Sum(nil), want) {
		t.Errorf("seed %d: %d bytes came of %d; the hash is right: %t; the end is %s", seed, got.n, size,
			bytes.Equal(got.Sum(nil), want), compact(done))
	}
	resumed := seen.count(troupe.NoticeResumed)
	if resumed < cuts*9/10 { // two cuts may fall into one connection's handshake
		t.Errorf("only %d resumes: little was proved\n%s", resumed, seen.String())
	}
	took := time.Since(began)
	relayed := sum(t, pods, "troupe_link_output_bytes_total") - before
	if relayed < float64(size)/10 { // two of three attempts lead to a foreign pod
		t.Errorf("%.0f bytes went from pod to pod: little was proved", relayed)
	}
	t.Logf("%d resumes in %s, %.1f of %.1f MiB through foreign pods", resumed, took.Round(time.Millisecond),
		relayed/(1<<20), float64(size)/(1<<20))
}

// commandsAreNotPeers lets a command, which shares its pod's network, try the
// peers' port in plain text and without a certificate. Protects from: a command
// that takes part in the service, and from certificates within its reach.
func commandsAreNotPeers(t *testing.T, r *release) {
	pods := r.readyPods(t, replicas)
	refused := func() float64 {
		return sum(t, pods[:1], `troupe_command_connections_refused_total{listener="peer"}`)
	}
	before := refused()
	c := r.dialWith(t, r.optionsTo(&pods[0]))
	out := shell(t, c, `ls /etc/troupe 2>/dev/null; exec python3 - <<'END'
import socket, ssl
def peer():
    return socket.create_connection(("127.0.0.1", 9400), 10)
def said(s):
    try: return s.recv(100)
    except OSError as err: return type(err).__name__
with peer() as s:
    s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    print(said(s))
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
tls.set_alpn_protocols(["h2"])
try:
    with tls.wrap_socket(peer()) as s: print(said(s))
except OSError as err: print(type(err).__name__)
END`)
	if refused() < before+2 {
		t.Errorf("the pod has refused no client; the command was told %q", out)
	}
	if strings.Count(out, "\n") != 2 {
		t.Errorf("the command found %q", out)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("%q", out)
}

// allSocketsOnOnePod opens 305 sessions through one pod. Protects from: clients
// that are refused while there is room elsewhere, and from a pod that takes more than it should.
func allSocketsOnOnePod(t *testing.T, r *release) {
	pods := r.readyPods(t, replicas)
	r.fill(t, pods, func(int) *corev1.Pod { return &pods[1] })
}

// sessionsEverywhere opens sessions through all pods at once, none of which can
// know the others' load. Protects from: ceilings that hold only for one pod at a time.
func sessionsEverywhere(t *testing.T, r *release) {
	pods := r.readyPods(t, replicas)
	r.fill(t, pods, func(i int) *corev1.Pod { return &pods[i%replicas] })
}

// fill opens five more sessions at once than there is room for and closes them again.
func (r *release) fill(t *testing.T, pods []corev1.Pod, through func(i int) *corev1.Pod) {
	t.Helper()
	const room, clients = replicas * ceiling, replicas*ceiling + 5
	eventually(t, time.Minute, "earlier sessions are gone", func(context.Context) error { return sessionsAre(t, pods, 0) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	attempts := make([]attempt, clients)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range attempts {
		wg.Go(func() { attempts[i] = r.attempt(ctx, to(through(i))) })
	}
	wg.Wait()
	took := time.Since(began)
	accepted, byPod := 0, map[string]int{}
	for _, a := range attempts {
		if a.conn != nil {
			accepted++
			byPod[a.pod]++
			defer a.conn.ws.CloseNow()
			continue
		}
		var refusal *wire.Error
		if !errors.As(a.err, &refusal) || refusal.Code != wire.CodeSessionLimit ||
			closeCode(a.err) != wire.CauseSessionLimit.Code() {
			t.Errorf("refused with %v, want %d and close code 1013", a.err, wire.CodeSessionLimit)
		}
	}
	t.Logf("%d clients in %s: %d accepted, %s", clients, took.Round(time.Millisecond), accepted, compact(byPod))
	if accepted != room {
		t.Errorf("%d of %d were accepted, want %d", accepted, clients, room)
	}
	for i := range pods {
		if byPod[pods[i].Name] != ceiling {
			t.Errorf("pod %s has %d sessions, want %d", pods[i].Name, byPod[pods[i].Name], ceiling)
		}
	}
	if err := sessionsAre(t, pods, accepted); err != nil {
		t.Error(err)
	}
	for _, a := range attempts {
		if a.conn != nil {
			_ = a.conn.done() // the count below decides
		}
	}
	eventually(t, time.Minute, "all slots are free", func(context.Context) error { return sessionsAre(t, pods, 0) })
}

// sessionsAre checks how many sessions all pods have together, and that none has too many.
func sessionsAre(t *testing.T, pods []corev1.Pod, n int) error {
	t.Helper()
	var counts []string
	total := 0.0
	for i := range pods {
		sessions := sum(t, pods[i:i+1], "troupe_sessions")
		counts = append(counts, fmt.Sprint(sessions))
		total += sessions
		if sessions > ceiling {
			t.Errorf("pod %s has %v sessions", pods[i].Name, sessions)
		}
	}
	if int(total) != n {
		return fmt.Errorf("the pods have %s sessions, want %d", strings.Join(counts, "+"), n)
	}
	return nil
}
