//go:build linux

package proc

import (
	"bytes"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// stat is what /proc/PID/stat says of a process. pid and start together name
// one process for ever: a recycled pid has another start time.
type stat struct {
	pid, ppid, pgrp, session int
	threads                  int
	start                    uint64 // clock ticks since boot
	state                    byte
	nameLen                  uint8
	name                     [15]byte
}

func (s *stat) comm() string { return string(s.name[:s.nameLen]) }

// zombie: dead, and only waiting to be reaped. A process whose first thread
// has ended while others run is in state Z too, and very much alive.
func (s *stat) zombie() bool { return (s.state == 'Z' || s.state == 'X') && s.threads <= 1 }

func (s *stat) stopped() bool { return s.state == 'T' || s.state == 't' }

// procfs reads a /proc. It keeps its buffers, since an init reads it many
// times a second and hardly ever collects garbage. Not for concurrent use.
type procfs struct {
	root string // "/proc", but for tests
	buf  []byte
	pids []int
}

func newProcfs() *procfs { return &procfs{root: "/proc", buf: make([]byte, 8192)} }

// read returns the first bytes of a file; they are valid until the next read.
func (p *procfs) read(path string) ([]byte, error) {
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

func (p *procfs) path(pid int, file string) string {
	return p.root + "/" + strconv.Itoa(pid) + "/" + file
}

// stat reads one process. ok is false when there is none of that pid.
func (p *procfs) stat(pid int) (s stat, ok bool) {
	b, err := p.read(p.path(pid, "stat"))
	if err != nil {
		return s, false
	}
	return parseStat(b)
}

// parseStat reads "pid (name) state ppid pgrp session ...". The name may hold
// anything, parentheses and newlines included, so it ends at the last one.
func parseStat(b []byte) (s stat, ok bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || end < open || len(b) < end+4 {
		return s, false
	}
	s.pid = atoi(b[:open-1])
	s.nameLen = uint8(copy(s.name[:], b[open+1:end]))
	s.state = b[end+2]
	rest := b[end+4:]
	// Fields are numbered as in proc_pid_stat(5); ppid is the fourth.
	for field := 4; field <= 22; field++ {
		f, tail, more := bytes.Cut(rest, []byte{' '})
		if !more && field < 22 {
			return s, false
		}
		rest = tail
		switch field {
		case 4:
			s.ppid = atoi(f)
		case 5:
			s.pgrp = atoi(f)
		case 6:
			s.session = atoi(f)
		case 20:
			s.threads = atoi(f)
		case 22:
			s.start = uint64(atoi(f))
		}
	}
	return s, s.pid > 0
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

// all lists every pid, highest first: in a loop of processes that fork and
// exit, the highest is the one that is alive now.
func (p *procfs) all() []int {
	p.pids = p.numbers(p.root, p.pids[:0])
	slices.Sort(p.pids)
	slices.Reverse(p.pids)
	return p.pids
}

// numbers appends the entries of dir that are numbers.
func (p *procfs) numbers(dir string, to []int) []int {
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

// hasChildren says whether the kernel lists the children of a process
// (CONFIG_PROC_CHILDREN), which is cheaper than reading every process.
func (p *procfs) hasChildren(self int) bool {
	return unix.Access(p.path(self, "task/"+strconv.Itoa(self)+"/children"), unix.R_OK) == nil
}

// children appends the children of every thread of pid.
func (p *procfs) children(pid int, to []int) []int {
	for _, tid := range p.numbers(p.path(pid, "task"), nil) {
		b, err := p.read(p.path(pid, "task/"+strconv.Itoa(tid)+"/children"))
		if err != nil {
			continue
		}
		for _, f := range bytes.Fields(b) {
			to = append(to, atoi(f))
		}
	}
	return to
}
