//go:build linux

package confine

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MinABI is the first version of Landlock that keeps signals and abstract sockets within a domain
// (Linux 6.12). Older ones separate files and tracing only, which would be half a promise.
const MinABI = 6

// ABI returns the version of Landlock that the kernel offers this process; 0: none.
func ABI() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// The rights of ABI 6. A right that a ruleset handles is denied wherever no rule grants it.
const (
	readTree = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR

	writeTree = readTree | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	device = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	// byName is for a directory that sessions share: who does not know a name does not learn it.
	byName = writeTree &^ unix.LANDLOCK_ACCESS_FS_READ_DIR

	handled = writeTree | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK

	// onFile are the rights that a rule for something that is not a directory may grant.
	onFile = device | unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX

	scopes = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
)

// devices hold nothing that one session could leave for another, except /dev/pts: a terminal that a
// program opens there has a number that others can guess.
var devices = []string{
	"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx",
}

// Ruleset is a domain that nothing is in yet. It belongs to one session: rules cannot be removed.
type Ruleset struct {
	fd      int
	unix    uint64 // RESOLVE_UNIX where the kernel has it, else 0
	sysVIPC bool
}

// Prepare makes a domain with the rules that all sessions have. A path that does not exist, or that
// this process may not open, gets no rule. The caller owns the Ruleset and ends it with Enter or
// Close.
func Prepare(r *Rules) (*Ruleset, error) {
	// A right over sockets in the file system that is newer than MinABI: it is tried, and done without.
	s := &Ruleset{unix: unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX, sysVIPC: r.SysVIPC}
	err := s.create()
	if err != nil {
		s.unix = 0
		err = s.create()
	}
	if err != nil {
		return nil, os.NewSyscallError("landlock_create_ruleset", err)
	}
	if err := s.addAll(r); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Ruleset) create() error {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handled | s.unix, Scoped: scopes}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return errno
	}
	s.fd = int(fd) // the kernel makes it close-on-exec
	return nil
}

func (s *Ruleset) addAll(r *Rules) error {
	type rule struct {
		paths  []string
		rights uint64
	}
	rules := []rule{
		{r.Read, readTree | s.unix},
		{r.Write, writeTree | s.unix},
		{devices, device},
		{[]string{"/dev/pts"}, device | unix.LANDLOCK_ACCESS_FS_READ_DIR},
		{[]string{"/dev/shm"}, byName},
		// An init that runs in a session starts another one from its own executable.
		{[]string{"/proc/self/exe"}, unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE},
	}
	if !r.HideProc {
		// Never to be written: oom_score_adj of every process of the user is there.
		rules = append(rules, rule{[]string{"/proc"}, unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR})
	}
	if r.SharedTmp {
		rules = append(rules, rule{[]string{"/tmp"}, byName})
	}
	for _, rule := range rules {
		for _, path := range rule.paths {
			err := s.add(path, rule.rights)
			switch {
			case err == nil, errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
			case errors.Is(err, unix.EBADFD): // a file in memory, which no domain restricts
			default:
				return err
			}
		}
	}
	return nil
}

// add grants rights beneath path, or on it if it is not a directory.
func (s *Ruleset) add(path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= onFile
	}
	// struct landlock_path_beneath_attr is packed: 8 bytes of rights and 4 of the descriptor, which
	// is what Go's struct begins with.
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(s.fd), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return &os.PathError{Op: "landlock_add_rule", Path: path, Err: errno}
	}
	return nil
}

// Enter puts the calling thread, which must be locked to its goroutine for good, into the domain,
// where it may also change everything beneath dirs. It sets no_new_privs and the filter, gives up all
// capabilities, and closes the Ruleset. After an error the thread may be half confined and must end.
func (s *Ruleset) Enter(dirs ...string) error {
	defer s.Close()
	for _, dir := range dirs {
		if err := s.add(dir, writeTree|s.unix); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", err)
	}
	// CAP_PERFMON, for one, reads the environment of any process without asking a security module
	// (may_access_mm in kernel/fork.c). With no_new_privs, execve gives none back, not even to root.
	var none [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&header, &none[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(s.fd), 0, 0); errno != 0 {
		return os.NewSyscallError("landlock_restrict_self", errno)
	}
	return install(program(s.sysVIPC))
}

// Close frees a Ruleset that nothing entered. A second call does nothing.
func (s *Ruleset) Close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

var errABI = fmt.Errorf("the kernel's Landlock has no ABI %d (Linux 6.12)", MinABI)

// Available returns nil if this process can make domains, or what it lacks. It does not show that
// they hold: see Probe.
func Available() error {
	switch abi := ABI(); {
	case abi == 0:
		_, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
		switch errno {
		case unix.EOPNOTSUPP:
			return errors.New("the kernel has Landlock, but it is not enabled: add it to the lsm= boot parameter")
		case unix.EPERM, unix.EACCES:
			return errors.New("the container's seccomp profile forbids Landlock")
		}
		return errors.New("the kernel has no Landlock, or a sandbox such as gVisor hides it")
	case abi < MinABI:
		return fmt.Errorf("%w: it has %d", errABI, abi)
	}
	if len(tables) == 0 {
		return errors.New("there is no seccomp filter for this processor architecture")
	}
	return nil
}
