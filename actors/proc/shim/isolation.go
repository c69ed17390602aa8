//go:build linux

package shim

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/confine"
	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// isolation is how the runner separates sessions, as its flags say.
type isolation struct {
	level       string // auto, none or session
	workspace   string // directory that workspaces are made in; "": the default
	seed        string // directory whose content a new home begins with; "": empty
	read, write paths  // trees that every session may read, or change
	proc        string // readable or none
	sharedTmp   bool
	sysVIPC     bool
	socket      string // of trouped, if the runner has a container of its own, whose image is for commands
}

func isolationFlags(flags *flag.FlagSet) *isolation {
	i := &isolation{}
	flags.StringVar(&i.level, "isolation", "auto", "auto, none or session: what separates the sessions' commands")
	flags.StringVar(&i.workspace, "workspace", "", "`directory` that sessions get their directories in")
	flags.StringVar(&i.seed, "workspace-seed", "", "`directory` whose content each session's home begins with")
	flags.Var(&i.read, "isolation-read", "`directories`, separated by commas, that every session may read")
	flags.Var(&i.write, "isolation-write", "`directories`, separated by commas, that every session may change")
	flags.StringVar(&i.proc, "isolation-proc", "readable", "readable or none: what sessions see of /proc")
	flags.BoolVar(&i.sharedTmp, "isolation-shared-tmp", false, "let sessions use the files of /tmp by name")
	flags.BoolVar(&i.sysVIPC, "isolation-sysvipc", false, "let sessions use System V IPC, which they then share")
	return i
}

func (i *isolation) check() error {
	switch i.level {
	case "auto", "none", "session":
	default:
		return fmt.Errorf("--isolation must be auto, none or session, got %q", i.level)
	}
	switch i.proc {
	case "readable", "none":
	default:
		return fmt.Errorf("--isolation-proc must be readable or none, got %q", i.proc)
	}
	for name, dir := range map[string]string{"workspace": i.workspace, "workspace-seed": i.seed} {
		if dir != "" && !filepath.IsAbs(dir) {
			return fmt.Errorf("--%s must be an absolute path, got %q", name, dir)
		}
	}
	return nil
}

// paths is a flag: absolute paths, separated by commas.
type paths []string

func (p *paths) String() string { return strings.Join(*p, ",") }

// Set is flag.Value's.
func (p *paths) Set(s string) error {
	*p = nil
	for _, dir := range strings.Split(s, ",") {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("%q is not an absolute path", dir)
		}
		*p = append(*p, filepath.Clean(dir))
	}
	return nil
}

// probeArg is the argv word that makes troupe-runner a probe.
const probeArg = "probe"

// isolate makes the directory of the workspaces, and finds out whether domains hold. why says why
// sessions are not separated although the flags allow it.
func (s *supervisor) isolate(i *isolation) (why string, err error) {
	s.settings = frame.Settings{
		Isolation: frame.IsolationNone, Seed: i.seed, Read: i.read, Write: i.write,
		HideProc: i.proc == "none", SharedTmp: i.sharedTmp, SysVIPC: i.sysVIPC,
	}
	s.settings.Files = beside(filesProgram)
	root, err := i.root()
	if err == nil {
		s.workspaces, err = openWorkspaces(root)
		s.settings.Workspaces = s.workspaces.path()
	}
	if err == nil && i.level != frame.IsolationNone {
		err = s.tryDomain(i, root)
	}
	switch {
	case err == nil && i.level == frame.IsolationNone:
		return "", nil
	case err == nil:
		s.settings.Isolation = frame.IsolationSession
		return "", nil
	case i.level == frame.IsolationSession, s.settings.Workspaces == "" && i.workspace != "":
		s.workspaces.remove()
		return "", fmt.Errorf("--isolation %s: %w", i.level, err)
	}
	fmt.Fprintln(os.Stderr, "troupe-runner: sessions are not separated:", err)
	return err.Error(), nil
}

// root returns the directory that workspaces are made in.
func (i *isolation) root() (string, error) {
	if i.workspace != "" {
		return i.workspace, nil
	}
	root := filepath.Join(os.TempDir(), "troupe-"+strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Lstat(root, &st); err != nil {
		return "", &os.PathError{Op: "lstat", Path: root, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(os.Geteuid()) || st.Mode&0o022 != 0 {
		return "", fmt.Errorf("%s must be a directory of this user that no other can write: "+
			"remove it, or set --workspace", root)
	}
	return root, nil
}

// tryDomain completes the rules and has a child process try them.
func (s *supervisor) tryDomain(i *isolation, root string) error {
	if err := confine.Available(); err != nil {
		return err
	}
	system := confine.HostDirs()
	if i.socket != "" {
		var err error
		if system, err = confine.ImageDirs(root, i.socket); err != nil {
			return err
		}
		// What a command can run in an image without any program.
		if exe, err := os.Executable(); err == nil {
			system = append(system, filepath.Dir(exe))
		}
	}
	if s.settings.Files != "" {
		system = append(system, s.settings.Files)
	}
	rules := confine.Rules{Read: append(system, i.read...), Write: i.write, Never: []string{root}, SharedTmp: i.sharedTmp}
	if err := rules.Check(); err != nil {
		return err
	}
	s.settings.Read = rules.Read
	return s.probe()
}

// probe starts a child that enters a domain and tries to leave it, see confine.Probe.
func (s *supervisor) probe() error {
	dir, err := os.MkdirTemp(s.workspaces.dir, "probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"inside", "outside"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	settings := s.settings
	settings.Workspaces = dir
	ours, theirs, err := frame.Socketpair()
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(ours), "probe")
	defer file.Close()
	if err := frame.SendBlocking(ours, settings.Encode()); err != nil {
		unix.Close(theirs)
		return err
	}
	pid, err := syscall.ForkExec(s.exe, []string{"troupe-runner", probeArg}, &syscall.ProcAttr{
		Env: initEnv, Files: []uintptr{uintptr(s.devNull), uintptr(s.devNull), 2, uintptr(theirs)},
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL},
	})
	unix.Close(theirs)
	if err != nil {
		return fmt.Errorf("starting the probe: %w", err)
	}
	said, err := io.ReadAll(io.LimitReader(file, 4096))
	var status unix.WaitStatus
	for {
		if _, waitErr := unix.Wait4(pid, &status, 0, nil); waitErr != unix.EINTR {
			break
		}
	}
	switch {
	case err != nil:
		return err
	case status.ExitStatus() != 0:
		return fmt.Errorf("the probe ended with status %d: %s", status.ExitStatus(), bytes.TrimSpace(said))
	}
	return nil
}

// probeMain is the probe. It says on its socket what does not hold.
func probeMain() int {
	const sock = 3
	k, body, err := frame.NewReceiver(frame.RecvBlocking(sock)).Next()
	if err == nil && k != frame.KindSettings {
		err = frame.ErrMalformed
	}
	if err == nil {
		var settings frame.Settings
		if settings, err = frame.DecodeSettings(body); err == nil {
			dir := settings.Workspaces
			err = confine.Probe(rulesOf(&settings), filepath.Join(dir, "inside"), filepath.Join(dir, "outside"))
		}
	}
	if err != nil {
		_ = frame.SendBlocking(sock, []byte(err.Error()))
		return 1
	}
	return 0
}

func rulesOf(s *frame.Settings) *confine.Rules {
	return &confine.Rules{
		Read: s.Read, Write: s.Write, HideProc: s.HideProc, SharedTmp: s.SharedTmp, SysVIPC: s.SysVIPC,
	}
}
