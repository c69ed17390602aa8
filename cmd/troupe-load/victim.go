package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/peers/peerca"
	"github.com/troupe-dev/troupe/cmd/troupe-load/attack"
)

// What the chart sets for a pod, see server.resources and runner.resources in its values.yaml. Its
// other settings are trouped's defaults, or do not matter here.
const (
	chartMemory   = 256 << 20
	chartGoMemory = chartMemory * 9 / 10
)

// CPU weights, 1024 for what is in no cgroup. The server and the runner are to each other as the
// chart's CPU requests. Attackers get the rest, and a tenth of the CPUs if there is none.
const (
	serverShares   = 1024
	runnerShares   = 2560
	attackerShares = 512
)

// tokensEach is the number of subjects that each attack has.
const tokensEach = 8

// victim is a trouped that runs as in a pod of the chart: it has the chart's limits, and its runner
// and their commands are in another container.
type victim struct {
	*server
	runner *exec.Cmd
	peer   attack.Peer

	group       *cgroup // of trouped
	unbound     error   // why it has no memory limit; nil: it has one
	runnerIn    *cgroup
	attackersIn *cgroup

	dead  chan struct{} // closed when trouped has ended
	state *os.ProcessState
}

// startVictim starts trouped and its runner. names are the subjects, each of which gets a token: see
// tokenOf.
func (e *env) startVictim(ctx context.Context, names []string, args ...string) (v *victim, err error) {
	v = &victim{dead: make(chan struct{})}
	dir, err := os.MkdirTemp("", "troupe-load-pod-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			v.stop()
			_ = os.RemoveAll(dir)
		}
	}()
	if err := v.preparePeer(dir); err != nil {
		return nil, err
	}
	tokens := filepath.Join(dir, "tokens")
	var lines strings.Builder
	for _, name := range names {
		fmt.Fprintln(&lines, name, tokenOf(name))
	}
	if err := os.WriteFile(tokens, []byte(lines.String()), 0o600); err != nil {
		return nil, err
	}
	v.group, v.unbound = newCgroup("server", chartMemory, serverShares)
	// Without these, commands and attackers only have another share of the CPUs.
	v.runnerIn, _ = newCgroup("runner", 0, runnerShares)
	v.attackersIn, _ = newCgroup("attackers", 0, attackerShares)
	socket := filepath.Join(dir, "runner.sock")
	args = append([]string{
		"--runner", socket, "--auth", "token", "--token-file", tokens, "--pprof", "--pod", "pod-0",
		"--peers", "pod-0=" + v.peer.Victim + "," + v.peer.Pod + "=" + v.peer.Listen, "--peer-listen", v.peer.Victim,
		"--peer-cert", v.peer.Cert, "--peer-key", v.peer.Key, "--peer-ca", v.peer.CA,
	}, args...)
	v.server, err = e.startWith(func(cmd *exec.Cmd) {
		cmd.Args = v.group.command(append([]string{e.trouped}, cmd.Args[1:]...)...)
		cmd.Path = cmd.Args[0]
		cmd.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%d", chartGoMemory))
	}, args...)
	if err != nil {
		return nil, err
	}
	go func() {
		_ = v.cmd.Wait() // the state says how it ended
		v.state = v.cmd.ProcessState
		close(v.dead)
	}()
	argv := v.runnerIn.command(e.runner, "--connect", socket)
	v.runner = exec.Command(argv[0], argv[1:]...)
	v.runner.Dir = v.dir
	if err := v.runner.Start(); err != nil {
		return nil, err
	}
	return v, v.awaitReady(ctx)
}

// tokenOf returns the bearer token of a subject.
func tokenOf(subject string) string { return "token-of-the-subject-" + subject }

// preparePeer makes the identity of a second pod of the service.
func (v *victim) preparePeer(dir string) error {
	ca, err := peerca.New()
	if err != nil {
		return err
	}
	files, err := ca.Sign(dir, peers.CertName)
	if err != nil {
		return err
	}
	network := fmt.Sprintf("127.%d.%d.", 128+rand.IntN(120), rand.IntN(256)) // of this run alone
	v.peer = attack.Peer{
		Victim: network + "1:9400", Listen: network + "2:9400", Pod: "pod-1", Cert: files.Cert, Key: files.Key, CA: files.CA,
	}
	return nil
}

// awaitReady waits until trouped has its runner.
func (v *victim) awaitReady(ctx context.Context) error {
	for range 500 {
		if v.probe(ctx, "/readyz", time.Second) == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("trouped is not ready")
}

// probe asks the admin listener as the kubelet does: on a new connection.
func (v *victim) probe(ctx context.Context, path string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.admin+path, nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	return nil
}

// profile saves a profile of /debug/pprof/ to a file.
func (v *victim) profile(ctx context.Context, name, file string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.admin+"/debug/pprof/"+name, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, resp.Body)
	return errors.Join(err, out.Close())
}

// cpu returns the CPU time that trouped has used.
func (v *victim) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.cmd.Process.Pid))
	if err != nil { // it has ended, or begins to
		<-v.dead
		return v.state.UserTime() + v.state.SystemTime()
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // from the third on, see proc_pid_stat(5)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11]) // the kernel wrote numbers
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * (time.Second / 100) // USER_HZ is 100 on every architecture of Go
}

// howItEnded says it in words, for a trouped that has ended.
func (v *victim) howItEnded() string {
	if status, ok := v.state.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL && v.unbound == nil {
		return "killed by the kernel at the memory limit"
	}
	said, _ := os.ReadFile(filepath.Join(v.dir, "log"))
	return fmt.Sprintf("%v: %s", v.state, said[max(0, len(said)-2000):])
}

// stop ends everything that startVictim started.
func (v *victim) stop() {
	if v.server != nil {
		for range 2 {
			_ = v.cmd.Process.Signal(syscall.SIGTERM)
			time.Sleep(50 * time.Millisecond)
		}
		select {
		case <-v.dead:
		case <-time.After(10 * time.Second):
			_ = v.cmd.Process.Kill()
			<-v.dead
		}
		_ = os.RemoveAll(v.dir)
	}
	if v.runner != nil {
		// It ends with trouped, and its commands with it.
		late := time.AfterFunc(10*time.Second, func() { _ = v.runner.Process.Kill() })
		_ = v.runner.Wait()
		late.Stop()
	}
	for _, g := range []*cgroup{v.group, v.runnerIn, v.attackersIn} {
		if g != nil {
			_ = g.remove() // a process that does not end has been reported
		}
	}
	_ = os.RemoveAll(filepath.Dir(v.peer.Cert))
}
