package actors

import (
	"fmt"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// plan is an execute request with every default filled in and every wish held
// to the server's limits.
type plan struct {
	id            string    // empty: to be chosen
	spec          proc.Spec // the process actor drops it at the start, because it may be large
	dir           string    // spec.Dir
	argvSHA256    string    // of spec.Argv
	auditArgv     []string  // see AuditRecord.Argv
	shown         string    // see shownCommand
	encoding      wire.Encoding
	lines         bool
	maxLine       int
	streamTimeout time.Duration
	maxDuration   time.Duration // 0: none
	retain        transcript.Retain
	outputLimit   int64 // with transcript.First
	scrollback    int64 // with transcript.Last
	cancelOnLimit bool
	keep          bool
	terminal      *wire.Terminal    // with Term filled in; nil: none
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
	switch p.Retain {
	case wire.RetainUnread:
		out.retain = transcript.Unread
	case wire.RetainLast:
		out.retain, out.scrollback = transcript.Last, min(wire.DefaultScrollback, l.MaxOutput)
		if p.Scrollback > 0 {
			out.scrollback = min(p.Scrollback, l.MaxOutput)
		}
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
	out.dir, out.argvSHA256, out.auditArgv = dir, ArgvDigest(argv), e.auditedArgv(argv)
	out.shown = shownCommand(p)
	out.spec = proc.Spec{Argv: argv, Env: mergeEnv(e.env, p.Env), Dir: dir, Stdin: p.Stdin, MaxMemory: l.MaxMemory}
	out.spec.Script = len(p.Argv) == 0
	out.planTerminal(p, l)
	return out, nil
}

// planTerminal adds what is different with a terminal. Silence is normal there; what ends one that is
// forgotten is the idle timeout, without output and without input.
func (out *plan) planTerminal(p *wire.ExecuteParams, l Limits) {
	if p.Terminal == nil {
		return
	}
	t := *p.Terminal
	if t.Term == "" {
		t.Term = wire.DefaultTerm
	}
	out.terminal = &t
	out.spec.Terminal = &proc.Size{Cols: t.Cols, Rows: t.Rows}
	if _, given := p.Env["TERM"]; !given {
		out.spec.Env = mergeEnv(out.spec.Env, map[string]string{"TERM": t.Term})
	}
	if p.Timeout == 0 {
		out.streamTimeout = l.IdleTimeout
	}
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
		return nil, wire.Errorf(wire.CodeNotAllowed,
			"%.*q is not on this server's allow-list", maxQuoted, p.Argv[0])
	}
	return append([]string{program}, p.Argv[1:]...), nil
}

// checkEnv holds a client's variables to those that the allow-list lets it set. To an allowed program
// most others are code, or the way to it: LD_PRELOAD and GCONV_PATH to every one that a libc starts,
// BASH_ENV, PYTHONPATH, GIT_SSH_COMMAND or PAGER to some. No list of them would be complete.
func (e *Engine) checkEnv(env map[string]string) *wire.Error {
	if e.allow == nil {
		return nil
	}
	refused, found := "", false
	for name := range env {
		if !e.allow.maySet(name) && (!found || name < refused) {
			refused, found = name, true
		}
	}
	if !found {
		return nil
	}
	return wire.Errorf(wire.CodeNotAllowed,
		"env %.*q is not among the variables that clients may set beside this server's allow-list: "+
			"leave it out, or have the server's --allow-env name it", maxQuoted, refused)
}

// maxQuoted bounds, in characters, what an error quotes of a request.
const maxQuoted = 256

// seconds rounds up, because a fraction of a nanosecond is a wish and 0 is none, and saturates: the
// conversion of a number that is too large is up to the processor.
func seconds(s float64) time.Duration {
	ns := math.Ceil(s * float64(time.Second))
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}

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

// allowList holds the programs that may run, by absolute path, and the variables that clients may
// set for them.
type allowList struct {
	paths    map[string]bool
	byName   map[string]string // the first path of that base name
	env      map[string]bool
	prefixes []string // of variables: LC_ for LC_*
}

// newAllowList returns nil for no programs: everything may run, with any variables.
func newAllowList(paths, env []string) (*allowList, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	a := &allowList{paths: map[string]bool{}, byName: map[string]string{}, env: map[string]bool{}}
	for _, p := range paths {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
			return nil, fmt.Errorf("allow-list entries must be absolute paths of programs, got %q", p)
		}
		a.paths[p] = true
		if _, ok := a.byName[path.Base(p)]; !ok {
			a.byName[path.Base(p)] = p
		}
	}
	for _, entry := range env {
		if err := CheckAllowEnv(entry); err != nil {
			return nil, fmt.Errorf("allow-env entries %w", err)
		}
		if prefix, ok := strings.CutSuffix(entry, "*"); ok {
			a.prefixes = append(a.prefixes, prefix)
		} else {
			a.env[entry] = true
		}
	}
	return a, nil
}

// CheckAllowEnv reports what is wrong with an entry of Config.AllowEnv. It must be a name, or the
// beginning of names up to an underscore: LC_*. Shorter beginnings cover more than their author
// thinks: L* covers LD_PRELOAD, which makes the dynamic loader run any code within an allowed program
// (https://man7.org/linux/man-pages/man8/ld.so.8.html), so the names of the loader are refused.
func CheckAllowEnv(entry string) error {
	name, pattern := strings.CutSuffix(entry, "*")
	switch {
	case name == "" || strings.ContainsAny(name, "=*\x00 \t\n") || pattern && (name[len(name)-1] != '_' || name == "_"):
		return fmt.Errorf(
			"must be the name of a variable, or a beginning that ends with an underscore as in LC_*, got %q", entry)
	case strings.HasPrefix(name, "LD_"):
		return fmt.Errorf("must not have variables of the dynamic loader, got %q: "+
			"clients could run code of their own within every allowed program; --env sets them for all commands", entry)
	}
	return nil
}

// maySet reports whether a client may set the variable.
func (a *allowList) maySet(name string) bool {
	return a.env[name] || slices.ContainsFunc(a.prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
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
