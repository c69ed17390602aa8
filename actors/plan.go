package actors

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// plan is an execute request with every default filled in and every wish held
// to the server's limits.
type plan struct {
	id            string // empty: to be chosen
	spec          proc.Spec
	encoding      wire.Encoding
	lines         bool
	maxLine       int
	streamTimeout time.Duration
	maxDuration   time.Duration // 0: none
	outputLimit   int64
	cancelOnLimit bool
	keep          bool
	parent        trace.SpanContext // the client's span; invalid: none
}

// plan checks a request against the configuration. Its form has been checked by package wire.
func (e *Engine) plan(p *wire.ExecuteParams) (*plan, *wire.Error) {
	l := e.limits
	out := &plan{
		id: p.ExecutionID, encoding: p.Encoding, lines: p.Framing != wire.FramingRaw, maxLine: l.MaxLine,
		streamTimeout: atMost(seconds(p.Timeout), l.StreamTimeout),
		maxDuration:   atMost(seconds(p.MaxDuration), l.MaxDuration),
		outputLimit:   l.MaxOutput,
		cancelOnLimit: p.OnOutputLimit == wire.LimitCancel,
		keep:          p.OnExit == wire.ExitKeep,
	}
	if p.OutputLimit > 0 {
		out.outputLimit = min(p.OutputLimit, l.MaxOutput)
	}
	if e.tracer != nil {
		out.parent = traceparent(p.Traceparent)
	}
	argv, err := e.argv(p)
	if err != nil {
		return nil, err
	}
	if err := e.checkEnv(p.Env); err != nil {
		return nil, err
	}
	dir := p.Cwd
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(e.workdir, dir)
	}
	out.spec = proc.Spec{Argv: argv, Env: mergeEnv(e.env, p.Env), Dir: dir, Stdin: p.Stdin, MaxMemory: l.MaxMemory}
	return out, nil
}

func (e *Engine) argv(p *wire.ExecuteParams) ([]string, *wire.Error) {
	if len(p.Argv) == 0 {
		if e.allow != nil {
			return nil, wire.Errorf(wire.CodeNotAllowed,
				"this server runs only the programs on its allow-list, so shell strings are refused: send argv")
		}
		return []string{"/bin/sh", "-c", p.Command}, nil
	}
	if e.allow == nil {
		return p.Argv, nil
	}
	program, ok := e.allow.resolve(p.Argv[0])
	if !ok {
		return nil, wire.Errorf(wire.CodeNotAllowed, "%q is not on this server's allow-list", p.Argv[0])
	}
	return append([]string{program}, p.Argv[1:]...), nil
}

// checkEnv refuses, under an allow-list, the variables of the dynamic loader (ld.so(8)): LD_PRELOAD
// and LD_AUDIT name code to run within an allowed program, and LD_LIBRARY_PATH where to look for it.
// It goes by the prefix, since loaders differ in what they know.
//
// https://man7.org/linux/man-pages/man8/ld.so.8.html
func (e *Engine) checkEnv(env map[string]string) *wire.Error {
	for name := range env {
		if e.allow != nil && strings.HasPrefix(name, "LD_") {
			return wire.Errorf(wire.CodeNotAllowed,
				"env %q is for the dynamic loader, which this server's allow-list leaves to the server", name)
		}
	}
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// atMost returns the wish, or the limit when there is no wish or it is above the limit.
// A limit of 0 does not limit.
func atMost(wish, limit time.Duration) time.Duration {
	if wish <= 0 || limit > 0 && wish > limit {
		return limit
	}
	return wish
}

// mergeEnv returns base with the client's variables in place of those of the same name.
func mergeEnv(base []string, client map[string]string) []string {
	env := make([]string, 0, len(base)+len(client))
	for _, kv := range base {
		name, _, _ := strings.Cut(kv, "=")
		if _, replaced := client[name]; !replaced {
			env = append(env, kv)
		}
	}
	for name, value := range client {
		env = append(env, name+"="+value)
	}
	return env
}

// allowList holds the programs that may run, by absolute path.
type allowList struct {
	paths  map[string]bool
	byName map[string]string // the first path of that base name
}

// newAllowList returns nil for an empty list: everything may run.
func newAllowList(paths []string) (*allowList, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	a := &allowList{paths: map[string]bool{}, byName: map[string]string{}}
	for _, p := range paths {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
			return nil, fmt.Errorf("allow-list entries must be absolute paths of programs, got %q", p)
		}
		a.paths[p] = true
		if _, ok := a.byName[path.Base(p)]; !ok {
			a.byName[path.Base(p)] = p
		}
	}
	return a, nil
}

// resolve returns the path to run for argv[0]. A bare name stands for the entry
// of that name whatever PATH says, since the client may set PATH.
func (a *allowList) resolve(argv0 string) (string, bool) {
	if !strings.Contains(argv0, "/") {
		p, ok := a.byName[argv0]
		return p, ok
	}
	return argv0, a.paths[argv0]
}
