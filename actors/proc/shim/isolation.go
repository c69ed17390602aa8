//go:build linux

package shim

import (
	"flag"
	"fmt"
	"path/filepath"
	"strings"
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
	container   bool // the runner has a container of its own, whose image is for commands
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
