//go:build linux

package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/confine"
	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// Domains
//
// A domain binds a thread, for good, and what the thread starts. An init serves one session after
// the other, so its loop enters the domain of a session on a thread that ends when another session
// comes. Fresh threads are in no domain, even when a loop makes them: for a goroutine that is locked
// to its thread, the Go runtime has a template thread start new ones (newm in runtime/proc.go).
//
// A domain is joined only by inheritance. Executions of one session that overlap get inits that its
// first init starts, see clone.go. All threads of such an init are in the domain, and it serves no
// other session.

// room is the domain that the loop of an init is in.
type room struct {
	frame.Settings
	clone  bool // the whole init is in the domain of Settings.Bound
	inside bool // this thread is in the domain of the workspace, or has the filter only; the loop's
	broken bool // a thread could not enter; the init must retire
	name   string
	home   string
	tmp    string

	// rules is the next domain, with the rules that all sessions have. They are made while the init
	// is idle: opening some twenty directories takes longer than all the rest.
	rules chan prepared
	spent bool // nothing is in rules, and nobody makes them; guarded by initProcess.mu
}

type prepared struct {
	set *confine.Ruleset
	err error
}

// furnish reads the settings, which the runner has sent before it started the init.
func (p *initProcess) furnish() error {
	k, body, err := p.control.Next()
	if err != nil || k != frame.KindSettings {
		return errors.Join(err, frame.ErrMalformed)
	}
	p.room.Settings, err = frame.DecodeSettings(body)
	p.room.rules = make(chan prepared, 1)
	p.room.spent = true
	if p.room.Bound != "" {
		p.room.clone, p.room.inside, p.room.name = true, true, p.room.Bound
	}
	return err
}

// refurnish has the main thread make the rules of the next domain, if they are spent. mu is
// held.
func (p *initProcess) refurnish() {
	if !p.room.spent || p.room.clone || p.room.Isolation != frame.IsolationSession {
		return
	}
	p.room.spent = false
	p.onMain <- func() {
		set, err := confine.Prepare(rulesOf(&p.room.Settings))
		p.room.rules <- prepared{set, err}
	}
}

// fits reports whether the loop's thread can serve the session of a workspace.
func (r *room) fits(workspace string) bool {
	return !r.inside || r.clone || r.Isolation != frame.IsolationSession || r.name == workspace
}

// leave prepares the move to a fresh thread.
func (r *room) leave() { r.inside, r.name = false, "" }

// enter puts the loop's thread into the domain of a session, if it is not in there. Without
// isolation, or without a workspace, it sets the filter alone, where that costs commands nothing.
func (p *initProcess) enter(workspace string) error {
	r := &p.room
	if err := r.makeWorkspace(workspace); err != nil {
		return err
	}
	switch {
	case r.broken:
		return errors.New("this init could not enter the domain of a session")
	case r.inside && r.Isolation == frame.IsolationSession && r.name != workspace:
		return fmt.Errorf("this init serves the session of workspace %s only", r.name)
	case r.inside:
		return nil
	}
	r.inside, r.name = true, workspace
	var err error
	if r.Isolation == frame.IsolationSession && workspace != "" {
		err = p.bind()
	} else if confine.CanFilter() {
		err = confine.Filter(true)
	}
	r.broken = r.broken || err != nil
	return err
}

func (p *initProcess) bind() error {
	next := <-p.room.rules
	p.mu.Lock()
	p.room.spent = true
	p.mu.Unlock()
	if next.err != nil {
		return fmt.Errorf("making the session's domain: %w", next.err)
	}
	if err := next.set.Enter(p.room.home, p.room.tmp); err != nil {
		return fmt.Errorf("entering the session's domain: %w", err)
	}
	return nil
}

// makeWorkspace makes the directories of a session, unless an earlier command did.
func (r *room) makeWorkspace(name string) error {
	r.home, r.tmp = "", ""
	if name == "" || r.Workspaces == "" {
		return nil
	}
	if !frame.WorkspaceName(name) {
		return fmt.Errorf("%q is not the name of a workspace", name)
	}
	dir := r.Workspaces + name
	r.home, r.tmp = filepath.Join(dir, "home"), filepath.Join(dir, "tmp")
	if r.clone || unix.Access(dir, unix.F_OK) == nil {
		return nil
	}
	if err := r.build(dir); err != nil {
		return fmt.Errorf("making the session's workspace: %w", err)
	}
	return nil
}

// build makes the directories under another name first: a command that comes meanwhile must not find
// half of the seed.
func (r *room) build(dir string) error {
	draft := r.Workspaces + "new-" + randomName()
	for _, d := range []string{draft, filepath.Join(draft, "home"), filepath.Join(draft, "tmp")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	var err error
	if r.Seed != "" {
		err = os.CopyFS(filepath.Join(draft, "home"), os.DirFS(r.Seed))
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, draft, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		os.RemoveAll(draft)
	}
	if errors.Is(err, unix.EEXIST) {
		return nil // another command of the session was faster
	}
	return err
}

// welcome gives a command the directories of its session.
func (r *room) welcome(start *frame.Start) {
	if r.home == "" {
		return
	}
	if !filepath.IsAbs(start.Dir) {
		start.Dir = filepath.Join(r.home, start.Dir)
	}
	add := []string{"HOME=" + r.home, "TMPDIR=" + r.tmp, "TMP=" + r.tmp, "TEMP=" + r.tmp}
	if r.Isolation == frame.IsolationSession {
		add = append(add, "TROUPE_ISOLATION="+frame.IsolationSession)
	}
	start.Env = withDefaults(start.Env, add)
}

// hidesEnvironments reports whether other sessions see the arguments of the next command, but not its
// environment.
func (r *room) hidesEnvironments() bool {
	return r.Isolation == frame.IsolationSession && r.name != "" && !r.HideProc
}

// withDefaults adds the variables whose names are not in env.
func withDefaults(env, defaults []string) []string {
	for _, kv := range defaults {
		name := kv[:strings.IndexByte(kv, '=')+1]
		if !slices.ContainsFunc(env, func(have string) bool { return strings.HasPrefix(have, name) }) {
			env = append(env, kv)
		}
	}
	return env
}
