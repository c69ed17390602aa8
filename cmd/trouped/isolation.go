package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/proc/confine"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

// Values of --isolation and --isolation-proc.
const (
	isolationAuto    = "auto"
	isolationNone    = proc.IsolationNone
	isolationSession = proc.IsolationSession
	procReadable     = "readable"
	procNone         = "none"
)

func (c *config) isolationFlags(fs *pflag.FlagSet) {
	i := &c.isolation
	fs.Var(settings.Choice(&i.Level, isolationAuto, isolationNone, isolationSession), "isolation",
		"what separates the commands of different sessions; session: the kernel, or trouped does not start; "+
			"auto: session where the kernel can and clients differ (--auth token or kubernetes), else none. "+
			"A runner on a socket has its own --isolation; session then says that it should have it")
	fs.Var(settings.Text(&i.Workspace, "directory"), "workspace",
		"directory in which each session gets a home and a TMPDIR; empty: troupe-UID in TMPDIR")
	fs.Var(settings.Text(&i.Seed, "directory"), "workspace-seed", "directory whose content each session's home begins with")
	fs.Var(settings.List(&i.Read, "directory,...", ","), "isolation-read", "further directories that every session may read")
	fs.Var(settings.List(&i.Write, "directory,...", ","), "isolation-write",
		"directories that every session may change, such as a cache")
	fs.Var(settings.Choice(&i.Proc, procReadable, procNone), "isolation-proc", "what sessions see of /proc")
	settings.Bool(fs, &i.SharedTmp, "isolation-shared-tmp", "", "let sessions use the files of /tmp by name")
	settings.Bool(fs, &i.SysVIPC, "isolation-sysvipc", "", "let sessions use System V IPC, which they then share")
}

func (c *config) validateIsolation() error {
	i := &c.isolation
	var errs []error
	if c.runner != runnerInside {
		for name, set := range map[string]bool{
			"workspace": i.Workspace != "", "workspace-seed": i.Seed != "", "isolation-read": len(i.Read) > 0,
			"isolation-write": len(i.Write) > 0, "isolation-proc": i.Proc != procReadable,
			"isolation-shared-tmp": i.SharedTmp, "isolation-sysvipc": i.SysVIPC,
		} {
			if set {
				errs = append(errs, fmt.Errorf("--%s is for the embedded runner: give it to the troupe-runner of --runner %s",
					name, c.runner))
			}
		}
		return errors.Join(errs...)
	}
	for name, dirs := range map[string][]string{"isolation-read": i.Read, "isolation-write": i.Write} {
		for _, dir := range dirs {
			if !filepath.IsAbs(dir) {
				errs = append(errs, fmt.Errorf("--%s must name absolute paths, got %q", name, dir))
			}
		}
	}
	for name, dir := range map[string]string{"workspace": i.Workspace, "workspace-seed": i.Seed} {
		if dir != "" && !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("--%s must be an absolute path, got %q", name, dir))
		}
	}
	if i.Level == isolationSession {
		for name, path := range c.openToSessions() {
			errs = append(errs, fmt.Errorf("--%s %s can be read by every session: move it out of /etc and the like, "+
				"--workdir, --isolation-read and --isolation-write", name, path))
		}
	}
	return errors.Join(errs...)
}

// openToSessions returns what only trouped may read and what the embedded runner's rules open to
// commands, by the flag that names it.
func (c *config) openToSessions() map[string]string {
	i := c.runnerIsolation()
	if c.runner != runnerInside || i.Level == isolationNone {
		return nil
	}
	rules := confine.Rules{Read: slices.Concat(confine.HostDirs(), i.Read), Write: i.Write, SharedTmp: i.SharedTmp}
	open := make(map[string]string)
	for name, path := range map[string]string{"data-dir": c.dataDir, "token-file": c.tokenFile} {
		if abs, err := filepath.Abs(path); path != "" && err == nil && rules.Covers(abs) {
			open[name] = path
		}
	}
	return open
}

// runnerIsolation returns what the embedded runner is told. Where everybody is one user, auto is
// none, so that sudo and docker work.
func (c *config) runnerIsolation() proc.Isolation {
	i := c.isolation
	if i.Level == isolationAuto && (c.auth == authNone || c.auth == authNoneInsecure) {
		i.Level = isolationNone
	}
	if c.runner == runnerInside && i.Level != isolationNone && c.workdir != "." {
		if dir, err := filepath.Abs(c.workdir); err == nil {
			i.Write = append(slices.Clone(i.Write), dir) // commands begin there
		}
	}
	return i
}

// isolationInfo is troupe_isolation_info. The runner says what its labels are, so there is none
// before the first runner.
type isolationInfo struct{ status func() proc.Status }

var isolationDesc = prometheus.NewDesc("troupe_isolation_info",
	"Always 1; the labels say what separates sessions (none or session), and the kernel's version of Landlock.",
	[]string{"level", "abi"}, nil)

func (isolationInfo) Describe(descs chan<- *prometheus.Desc) { descs <- isolationDesc }

func (i isolationInfo) Collect(metrics chan<- prometheus.Metric) {
	if s := i.status(); s.Isolation != "" {
		metrics <- prometheus.MustNewConstMetric(isolationDesc, prometheus.GaugeValue, 1, s.Isolation,
			strconv.Itoa(s.IsolationABI))
	}
}

// registerIsolation exports what separates sessions, and whether it was to be the kernel.
func registerIsolation(r prometheus.Registerer, c *config, status func() proc.Status) {
	r.MustRegister(isolationInfo{status})
	exporter{r}.gauge("isolation_asked", "1 if sessions are to be separated by the kernel (--isolation session).",
		func() float64 { return truth(c.isolation.Level == isolationSession) })
}
