package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/cmd/troupe-load/attack"
)

// peakTarget bounds the resident memory of an attacked trouped. The limit of its container is
// chartMemory, and the kernel's share, sockets above all, counts too.
const peakTarget = 200 << 20

// slowdown is how many times longer the slowest percent of /bin/true may take for honest clients
// during an attack.
const slowdown = 10

// hostileForm is how long and how large the attack is.
type hostileForm struct {
	idle, period time.Duration
	scale        float64
	patience     time.Duration // how long a probe may take
	args         []string      // of trouped
}

// figures are what one attack showed.
type figures struct {
	idle, attacked samples
	died           string // how trouped ended; empty: it lives
	peak           int64  // VmHWM of trouped
	groupPeak      int64  // of everything in its container; 0: not known
	kernelPeak     int64  // of the kernel's part of it
	commands       int
	failed         int
	failures       []string
	attacks        []attackFigures
	share          float64 // of the CPUs, used by the attackers
	served         float64 // the same, used by trouped
}

type attackFigures struct {
	attack.Result
	name string
	cpu  time.Duration
}

// measureHostile attacks a trouped that has the chart's limits, with all attacks at once, while
// honest clients use it.
func measureHostile(ctx context.Context, e *env) error {
	// The probes of the chart time out after 2 s.
	form := hostileForm{idle: 10 * time.Second, period: time.Minute, scale: 1, patience: 2 * time.Second}
	if e.quick {
		form.idle, form.period = 3*time.Second, 10*time.Second
	}
	f, err := runHostile(ctx, e, form)
	if err != nil {
		return err
	}
	form.period /= 4
	floor, err := e.hostileFloor(ctx, form)
	if err != nil {
		return err
	}
	for _, a := range f.attacks {
		fmt.Printf("    %-13s %6d connections made, %5d at most at once, %5d refused or cut, %7.1f MB sent, %5.1f s of CPU\n",
			a.name, a.Connections, a.Peak, a.Failed, float64(a.Sent)/1e6, a.cpu.Seconds())
	}
	if f.died != "" {
		report("the server", "dead", "lives", false)
		fmt.Printf("    %s\n", f.died)
	}
	report("share of the CPUs that the attackers used", fmt.Sprintf("%.0f %%", 100*f.share), "", true)
	report("share that trouped used", fmt.Sprintf("%.0f %%", 100*f.served), "", true)
	report("peak resident memory of trouped", mib(f.peak), "< 200 MiB", f.peak < peakTarget)
	if f.groupPeak > 0 {
		report("peak of its container, with cached files (limit 256 MiB)", mib(f.groupPeak), "", true)
		report("peak of the kernel's part of it", mib(f.kernelPeak), "", true)
	}
	report("/bin/true of honest clients before the attack, p99", ms(f.idle.quantile(0.99)), "", true)
	report("os/exec while the same attacks meet a server that closes them, p99", ms(floor.quantile(0.99)), "", true)
	r := ratio(f.attacked.quantile(0.99), f.idle.quantile(0.99))
	report("the same during it, median", ms(f.attacked.median()), "", true)
	report("the same during it, p99", ms(f.attacked.quantile(0.99)), "", true)
	report("ratio of the p99", fmt.Sprintf("%.1f", r), fmt.Sprintf("<= %d", slowdown), r <= slowdown)
	report(fmt.Sprintf("errors of honest clients, of %d commands", f.commands), fmt.Sprint(f.failed), "0", f.failed == 0)
	for _, failure := range f.failures {
		fmt.Printf("    %s\n", failure)
	}
	return nil
}

// runHostile starts a server, attacks it, and returns the figures.
func runHostile(ctx context.Context, e *env, form hostileForm) (*figures, error) {
	match, err := e.attacks()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, a := range attack.Attacks {
		names = append(names, hostileSubjects(a.Name)...)
	}
	for i := range honestSessions + 2 {
		names = append(names, honestSubject(i))
	}
	v, err := e.startVictim(ctx, names, form.args...)
	if err != nil {
		return nil, err
	}
	defer v.stop()
	if v.unbound != nil {
		fmt.Printf("  no cgroup with a memory limit (%v): only the resident memory is measured\n", v.unbound)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // nothing is left to attack
		select {
		case <-v.dead:
			cancel()
		case <-ctx.Done():
		}
	}()
	h := &honest{v: v, patience: form.patience}
	if err := h.open(ctx); err != nil {
		return nil, err
	}
	f := &figures{}
	usual, stop := context.WithTimeout(ctx, form.idle)
	h.run(usual)
	stop()
	f.idle = h.since()
	under := &attackers{e: e, v: v, form: form}
	if err := under.start(ctx, match); err != nil {
		return nil, err
	}
	began := time.Now()
	before := v.cpu()
	h.during(ctx, form.period)
	f.served = float64(v.cpu()-before) / float64(time.Since(began)) / float64(runtime.NumCPU())
	under.watch.Wait()
	f.attacks = under.wait()
	for _, a := range f.attacks {
		f.share += float64(a.cpu) / float64(time.Since(began)) / float64(runtime.NumCPU())
	}
	f.attacked, f.commands, f.failed, f.failures = h.since(), h.commands, h.failed, h.failures
	f.peak, f.groupPeak, f.kernelPeak = under.peak, under.groupPeak, under.kernelPeak
	select {
	case <-v.dead:
		f.died = fmt.Sprintf("%s after %.1f s", v.howItEnded(), under.lasted.Seconds())
	default:
		cancel() // what is lost from here on is no failure
		closeAll(h.sessions)
	}
	return f, nil
}

// attacks returns an expression that matches the names of the attacks to run.
func (e *env) attacks() (*regexp.Regexp, error) {
	match, err := regexp.Compile("^(" + cmp.Or(e.attack, ".*") + ")$")
	if err != nil {
		return nil, fmt.Errorf("--attack: %w", err)
	}
	return match, nil
}

// hostileSubjects returns the subjects of an attack.
func hostileSubjects(name string) (subjects []string) {
	for i := range tokensEach {
		subjects = append(subjects, fmt.Sprintf("hostile-%s-%d", name, i))
	}
	return subjects
}

// during has the honest clients do what they do for a while.
func (h *honest) during(ctx context.Context, period time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, period)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { h.run(ctx) })
	all.Go(func() { h.ticks(ctx, h.sessions[0]) })
	all.Go(func() { h.newcomer(ctx) })
	all.Go(func() { h.reader(ctx, period*3/4) })
	all.Go(func() { h.probes(ctx) })
	all.Wait()
}

// attackers are the processes that attack, and what is seen of the server meanwhile.
type attackers struct {
	e    *env
	v    *victim
	form hostileForm

	processes []*attackProcess
	watch     sync.WaitGroup

	// Set when watch is done.
	peak, groupPeak, kernelPeak int64
	lasted                      time.Duration
}

type attackProcess struct {
	name string
	cmd  *exec.Cmd
	out  bytes.Buffer
	stop func()
}

// start starts the attacks whose name matches.
func (u *attackers) start(ctx context.Context, match *regexp.Regexp) error {
	for i, a := range attack.Attacks {
		if !match.MatchString(a.Name) {
			continue
		}
		spec := attack.Spec{
			Name: a.Name, Client: hostOf(u.v.ws), Admin: hostOf(u.v.admin),
			Net: 1 + i, Period: u.form.period, Scale: u.form.scale,
		}
		if a.Name == "peer" {
			spec.Peer = u.v.peer
		}
		for _, subject := range hostileSubjects(a.Name) {
			spec.Tokens = append(spec.Tokens, tokenOf(subject))
		}
		if err := u.startOne(spec); err != nil {
			return err
		}
	}
	if len(u.processes) == 0 {
		return fmt.Errorf("--attack: no attack matches %q", u.e.attack)
	}
	u.watch.Go(func() { u.look(ctx) })
	return nil
}

// hostOf returns the host:port of a URL.
func hostOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// startOne starts one attack. Its process gives way to the server and the honest clients, so that
// these do not wait for the CPU because the attackers have it.
func (u *attackers) startOne(spec attack.Spec) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	p := &attackProcess{name: spec.Name}
	argv := u.v.attackersIn.command("nice", "-n", "19", u.e.self, attack.Arg, string(text))
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.out, os.Stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return err
	}
	p.stop = func() { _ = stdin.Close() } // the attack ends with it
	if err := p.cmd.Start(); err != nil {
		return err
	}
	u.processes = append(u.processes, p)
	return nil
}

// look watches the server's memory until the attack is over.
func (u *attackers) look(ctx context.Context) {
	began := time.Now()
	saved := 0
	for time.Since(began) < u.form.period && ctx.Err() == nil {
		if n, err := u.v.memory("VmHWM"); err == nil { // it fails once trouped is dead
			u.peak = n
			u.lasted = time.Since(began)
		}
		if n, err := u.v.group.kernel(); err == nil {
			u.kernelPeak = max(u.kernelPeak, n)
		}
		if n := int(time.Since(began).Seconds() / 5); u.e.profiles != "" && n > saved {
			saved = n
			u.watch.Go(func() { u.saveCPU(ctx, n*5) })
			u.save(ctx, n*5)
		}
		pause(ctx, 50*time.Millisecond)
	}
	u.groupPeak, _ = u.v.group.peak() // 0 without a cgroup
	u.stop()
}

// save writes profiles of the server to files.
func (u *attackers) save(ctx context.Context, seconds int) {
	for _, name := range []string{"heap", "goroutine"} {
		file := filepath.Join(u.e.profiles, fmt.Sprintf("%s-%d.pb.gz", name, seconds))
		if err := u.v.profile(ctx, name, file); err != nil {
			fmt.Printf("    no profile after %d s: %v\n", seconds, err)
		}
	}
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", u.v.cmd.Process.Pid))
	if err == nil {
		err = os.WriteFile(filepath.Join(u.e.profiles, fmt.Sprintf("smaps-%d", seconds)), rollup, 0o600)
	}
	if err != nil {
		fmt.Printf("    no smaps after %d s: %v\n", seconds, err)
	}
}

// saveCPU writes what the server uses its CPU time for within two seconds.
func (u *attackers) saveCPU(ctx context.Context, seconds int) {
	file := filepath.Join(u.e.profiles, fmt.Sprintf("cpu-%d.pb.gz", seconds))
	if err := u.v.profile(ctx, "profile?seconds=2", file); err != nil {
		fmt.Printf("    no CPU profile after %d s: %v\n", seconds, err)
	}
}

// stop ends the attacks.
func (u *attackers) stop() {
	for _, p := range u.processes {
		p.stop()
	}
}

// wait returns what the attacks did.
func (u *attackers) wait() (all []attackFigures) {
	for _, p := range u.processes {
		err := p.cmd.Wait()
		f := attackFigures{name: p.name, cpu: p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()}
		if err := errors.Join(err, json.Unmarshal(p.out.Bytes(), &f.Result)); err != nil {
			fmt.Printf("    attack %s: %v\n", p.name, err)
		}
		all = append(all, f)
	}
	return all
}
