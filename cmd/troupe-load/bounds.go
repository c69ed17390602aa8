package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// The bounds of a session in this measurement.
const (
	boundProcesses = 200
	boundMemory    = 256 << 20
	boundDisk      = 64 << 20
)

// neighbours is how many sessions build beside the offenders.
const neighbours = 9

// offender is a command that takes all that it gets of something, within a limit of its own. It
// writes how much it has, so that the last number says how far it came.
type offender struct {
	name, script string
	reason       wire.Reason
	bound        int64
	has          func(output string) int64
	show         func(int64) string
}

var offenders = []offender{
	{
		name: "fork bomb", reason: wire.ReasonProcessLimit, bound: boundProcesses,
		// 1,024 processes that use the CPU for 30 s, each of which has written a dot.
		script: `exec perl -e 'my $end = time + 30; for (1..10) { fork or syswrite STDOUT, "." } 1 while time < $end'`,
		has:    func(output string) int64 { return 1 + int64(strings.Count(output, ".")) },
		show:   func(n int64) string { return strconv.FormatInt(n, 10) },
	},
	{
		name: "memory hog", reason: wire.ReasonOutOfMemory, bound: boundMemory,
		script: `exec perl -e '$| = 1; for (1..128) { push @x, "x" x (16<<20); print 16 * $_, "\n" } sleep 5'`, // 2 GiB
		has:    lastMiB, show: mib,
	},
	{
		name: "disk filler", reason: wire.ReasonDiskLimit, bound: boundDisk,
		script: `cd "$HOME" && for i in $(seq 256); do head -c 4194304 /dev/zero > $i && echo $((4 * i)); done; sleep 15`,
		has:    lastMiB, show: mib,
	},
}

// lastMiB returns the number in the last whole line, in bytes.
func lastMiB(output string) int64 {
	lines := strings.Split(output, "\n")
	if len(lines) < 2 {
		return 0
	}
	n, _ := strconv.ParseInt(lines[len(lines)-2], 10, 64)
	return n << 20
}

// build compiles a program of 8 files, as a build does: one process after the other, each short.
const build = `cd "$HOME" && for f in 1 2 3 4 5 6 7 8; do
	{ for i in $(seq 60); do echo "int f${f}_$i(int a, int b) { for (int i = 0; i < a; i++) b = b * $i + a % (i + 1); return b; }"; done; } > $f.c &&
	gcc -O1 -c $f.c -o $f.o || exit 1
done; echo 'int f8_60(int, int); int main(void) { return f8_60(1, 2) == 121; }' > main.c &&
	gcc main.c *.o -o program && ./program`

// boundsFigures is what measureBounds finds.
type boundsFigures struct {
	alone, beside samples // of builds
	ended         []samples
	most          []int64  // that each offender had
	untold        []string // offenders that ended for another reason
}

// measureBounds has sessions build beside others that fork, allocate and write all they can, and
// compares that with the same builds alone.
func measureBounds(ctx context.Context, e *env) error {
	rounds := 5
	if e.quick {
		rounds = 1
	}
	f, err := runBounds(ctx, e, rounds)
	if err != nil {
		return err
	}
	p95 := f.alone.quantile(0.95)
	report(fmt.Sprintf("a build with gcc in each of %d sessions, p95", neighbours), ms(p95), "", true)
	report("the same beside a fork bomb, a memory hog and a disk filler", ms(f.beside.quantile(0.95)), "", true)
	r := ratio(f.beside.quantile(0.95), p95)
	report("ratio", fmt.Sprintf("%.2f", r), "<= 1.50", r <= 1.5)
	report("offenders that were not told why they ended", fmt.Sprintf("%d of %d", len(f.untold), rounds*len(offenders)), "0",
		len(f.untold) == 0)
	for i, o := range offenders {
		report(fmt.Sprintf("%s, told %s, after at most", o.name, o.reason), ms(f.ended[i].quantile(1)), "", true)
		report("what it had by then, with a bound of "+o.show(o.bound), o.show(f.most[i]), "", true)
	}
	return nil
}

func runBounds(ctx context.Context, e *env, rounds int) (*boundsFigures, error) {
	s, err := e.start("--session-processes", strconv.Itoa(boundProcesses),
		"--session-memory", strconv.Itoa(boundMemory), "--session-disk", strconv.Itoa(boundDisk))
	if err != nil {
		return nil, err
	}
	defer s.stop()
	f := &boundsFigures{ended: make([]samples, len(offenders)), most: make([]int64, len(offenders))}
	var discard samples
	if err := s.builds(ctx, &discard); err != nil { // the first reads the compiler from disk
		return nil, err
	}
	for range rounds {
		if err := s.builds(ctx, &f.alone); err != nil {
			return nil, err
		}
		if err := f.round(ctx, s); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// round runs the builds beside the offenders.
func (f *boundsFigures) round(ctx context.Context, s *server) error {
	var all sync.WaitGroup
	outcomes := make([]outcome, len(offenders))
	for i := range offenders {
		all.Go(func() { outcomes[i] = s.offend(ctx, &offenders[i]) })
	}
	err := s.builds(ctx, &f.beside)
	all.Wait()
	for i, x := range outcomes {
		if err = errors.Join(err, x.err); x.err != nil {
			continue
		}
		f.ended[i] = append(f.ended[i], x.after)
		f.most[i] = max(f.most[i], x.had)
		if o := &offenders[i]; x.reason != o.reason {
			f.untold = append(f.untold, fmt.Sprintf("%s: %s at %s after %s", o.name, x.reason, o.show(x.had), ms(x.after)))
		}
	}
	return err
}

// outcome is how an offender ended.
type outcome struct {
	reason wire.Reason
	after  time.Duration
	had    int64
	err    error
}

// builds runs a build in each of the neighbours' sessions at once.
func (s *server) builds(ctx context.Context, took *samples) error {
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for range neighbours {
		all.Go(func() {
			d, err := s.build(ctx)
			mu.Lock()
			defer mu.Unlock()
			*took, failed = append(*took, d), errors.Join(failed, err)
		})
	}
	all.Wait()
	return failed
}

func (s *server) build(ctx context.Context) (time.Duration, error) {
	c, err := s.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var said bytes.Buffer
	began := time.Now()
	done, err := c.Run(ctx, wire.ExecuteParams{Command: build}, io.Discard, &said)
	took := time.Since(began)
	if err == nil && done.ExitCode != 0 {
		err = fmt.Errorf("a build ended with exit code %d, reason %s: %s", done.ExitCode, done.Reason, &said)
	}
	return took, err
}

// offend runs an offender until it ends.
func (s *server) offend(ctx context.Context, o *offender) outcome {
	c, err := s.dial(ctx)
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	var output bytes.Buffer
	began := time.Now()
	done, err := c.Run(ctx, wire.ExecuteParams{Command: o.script}, &output, io.Discard)
	if err != nil {
		return outcome{err: err}
	}
	return outcome{reason: done.Reason, after: time.Since(began), had: o.has(output.String())}
}
