//go:build linux

package proctree

import (
	"bytes"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Stat is the content of /proc/PID/stat. PID and Start together identify a process: a recycled pid
// has a different start time.
type Stat struct {
	PID, PPID, Pgrp, Session int
	Threads                  int
	Start                    uint64 // clock ticks since boot
	State                    byte
	nameLen                  uint8
	name                     [15]byte
}

// Comm returns the name of the process, of at most 15 bytes.
func (s *Stat) Comm() string { return string(s.name[:s.nameLen]) }

// Zombie reports whether the process is dead and only waits to be reaped. A process whose first
// thread has ended while others run is also in state Z, but it is alive.
func (s *Stat) Zombie() bool { return (s.State == 'Z' || s.State == 'X') && s.Threads <= 1 }

// Stopped reports whether a signal or a debugger has stopped the process.
func (s *Stat) Stopped() bool { return s.State == 'T' || s.State == 't' }

// Procfs reads a /proc. It reuses its buffers, since an init reads many times a second and hardly
// ever collects garbage. It must not be used concurrently.
type Procfs struct {
	root string // "/proc", except in tests
	buf  []byte
	pids []int
}

// NewProcfs reads /proc.
func NewProcfs() *Procfs { return &Procfs{root: "/proc", buf: make([]byte, 8192)} }

// Read returns the first 8 KiB of a file. They are valid until the next Read.
func (p *Procfs) Read(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	n := 0
	for n < len(p.buf) {
		m, err := unix.Read(fd, p.buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			unix.Close(fd)
			return nil, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	unix.Close(fd)
	return p.buf[:n], nil
}

func (p *Procfs) path(pid int, file string) string {
	return p.root + "/" + strconv.Itoa(pid) + "/" + file
}

// Stat reads one process. ok is false when no process has that pid.
func (p *Procfs) Stat(pid int) (s Stat, ok bool) {
	b, err := p.Read(p.path(pid, "stat"))
	if err != nil {
		return s, false
	}
	return parseStat(b)
}

// parseStat reads "pid (name) state ppid pgrp session ...". The name may contain anything,
// including parentheses and newlines, so it ends at the last closing parenthesis.
func parseStat(b []byte) (s Stat, ok bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || end < open || len(b) < end+4 {
		return s, false
	}
	s.PID = atoi(b[:open-1])
	s.nameLen = uint8(copy(s.name[:], b[open+1:end]))
	s.State = b[end+2]
	rest := b[end+4:]
	// Fields are numbered as in proc_pid_stat(5); ppid is the fourth.
	// https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
	for field := 4; field <= 22; field++ {
		f, tail, more := bytes.Cut(rest, []byte{' '})
		if !more && field < 22 {
			return s, false
		}
		rest = tail
		switch field {
		case 4:
			s.PPID = atoi(f)
		case 5:
			s.Pgrp = atoi(f)
		case 6:
			s.Session = atoi(f)
		case 20:
			s.Threads = atoi(f)
		case 22:
			s.Start = uint64(atoi(f))
		}
	}
	return s, s.PID > 0
}

func atoi(b []byte) int {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return n
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// All lists every pid, highest first: in a chain of processes that fork and exit, the highest pid
// is the one that is alive now.
func (p *Procfs) All() []int {
	p.pids = p.Numbers(p.root, p.pids[:0])
	slices.Sort(p.pids)
	slices.Reverse(p.pids)
	return p.pids
}

// Numbers appends the entries of dir whose names are numbers.
func (p *Procfs) Numbers(dir string, to []int) []int {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return to
	}
	defer unix.Close(fd)
	var names []string
	for {
		n, err := unix.ReadDirent(fd, p.buf)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return to
		}
		_, _, names = unix.ParseDirent(p.buf[:n], -1, names[:0])
		for _, name := range names {
			if name[0] >= '0' && name[0] <= '9' {
				to = append(to, atoi([]byte(name)))
			}
		}
	}
}

// hasChildren reports whether the kernel lists the children of a process, which is cheaper than
// reading every process. The file needs CONFIG_PROC_CHILDREN (Linux 4.2). It may omit processes
// while others exit, which the next pass makes up for.
//
// https://man7.org/linux/man-pages/man5/proc_tid_children.5.html
func (p *Procfs) hasChildren(self int) bool {
	return unix.Access(p.path(self, "task/"+strconv.Itoa(self)+"/children"), unix.R_OK) == nil
}

// children appends the children of every thread of pid.
func (p *Procfs) children(pid int, to []int) []int {
	for _, tid := range p.Numbers(p.path(pid, "task"), nil) {
		b, err := p.Read(p.path(pid, "task/"+strconv.Itoa(tid)+"/children"))
		if err != nil {
			continue
		}
		for _, f := range bytes.Fields(b) {
			to = append(to, atoi(f))
		}
	}
	return to
}
