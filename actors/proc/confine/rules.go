//go:build linux

package confine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Rules is what every session of a runner may use beside its own directories. All paths are
// absolute. The zero Rules allows the devices and /proc only.
type Rules struct {
	Read  []string // trees to read and execute
	Write []string // trees to read, execute and change, such as caches that sessions share
	Never []string // trees that no rule may cover, such as the one with the sessions' directories

	HideProc  bool // /proc is not readable, which many programs do not survive
	SharedTmp bool // files of /tmp can be used by name; /tmp cannot be listed
	SysVIPC   bool // System V IPC, which all sessions of a container share, is allowed
}

// Check reports the first path of Read, Write, or of what SharedTmp opens, that is not absolute or
// that covers a path of Never.
func (r *Rules) Check() error {
	all := slices.Concat(r.Read, r.Write)
	if r.SharedTmp {
		all = append(all, "/tmp")
	}
	for _, dir := range all {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("%s: the path must be absolute", dir)
		}
		for _, never := range r.Never {
			if covers(dir, never) {
				return fmt.Errorf("%s would open %s to every session: move one of them", dir, never)
			}
		}
	}
	return nil
}

// Covers reports whether a rule lets every session read path.
func (r *Rules) Covers(path string) bool {
	all := slices.Concat(r.Read, r.Write)
	if r.SharedTmp {
		all = append(all, "/tmp")
	}
	return slices.ContainsFunc(all, func(dir string) bool { return covers(dir, path) })
}

// covers reports whether path is dir or beneath it, with symbolic links followed as far as they
// exist. A rule holds for what its path leads to.
func covers(dir, path string) bool {
	dir, path = resolve(dir), resolve(path)
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}

// resolve follows the symbolic links of the longest part of path that exists.
func resolve(path string) string {
	path = filepath.Clean(path)
	rest := ""
	for p := path; ; p = filepath.Dir(p) {
		if found, err := filepath.EvalSymlinks(p); err == nil {
			return filepath.Join(found, rest)
		}
		if p == "/" || p == "." {
			return path
		}
		rest = filepath.Join(filepath.Base(p), rest)
	}
}

// hostDirs hold programs and their configuration on a machine that has users. Its other directories
// hold what belongs to somebody.
var hostDirs = []string{"/bin", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/sbin", "/sys", "/usr", "/nix", "/gnu"}

// HostDirs returns the directories to read on a machine that is not a container made for commands.
func HostDirs() []string {
	return append(existing(hostDirs), resolver()...)
}

// ImageDirs returns the directories to read in a container that was made for commands: everything
// that its image brings. It leaves out what has rules of its own, and each top-level directory that
// covers a path of never.
func ImageDirs(never ...string) ([]string, error) {
	entries, err := os.ReadDir("/")
	if err != nil {
		return nil, err
	}
	never = append([]string{"/proc", "/dev", "/tmp"}, never...)
	var dirs []string
	for _, e := range entries {
		dir := "/" + e.Name()
		st, err := os.Stat(dir)
		if err == nil && st.IsDir() && !slices.ContainsFunc(never, func(n string) bool { return covers(dir, n) }) {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// resolver returns the directory of the DNS configuration if that lies in /run, where
// systemd-resolved keeps it: without it no name can be looked up.
func resolver() []string {
	file, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil || !strings.HasPrefix(file, "/run/") {
		return nil
	}
	return []string{filepath.Dir(file)}
}

func existing(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool {
		_, err := os.Stat(p)
		return err != nil
	})
}
