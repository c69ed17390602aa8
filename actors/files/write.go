//go:build linux

package files

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// block is the granularity of holes: a smaller one would save nothing on common file systems.
const block = 4096

// write makes a file of the standard input beside name and renames it, so that whoever opens name
// finds the old content or the new one. Where the file system can (O_TMPFILE), the file has no name
// until it is whole: whatever ends this program, nothing is left.
func (p *program) write(name string, req *Request) error {
	dir, base := path.Split(name)
	if base == "" || base == "." || base == ".." {
		return errorf(CodeInvalid, "%q is not the path of a file", name)
	}
	dir = path.Clean("./" + dir)
	if req.Parents {
		if err := p.root.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	old, err := p.replaced(name, req)
	if err != nil {
		return err
	}
	parent, err := openDir(p.root, dir)
	if err != nil {
		return err
	}
	defer parent.Close()
	t, err := newTemp(parent)
	if err != nil {
		return err
	}
	defer t.discard()
	sum, err := p.receive(t.file, req)
	if err != nil {
		return err
	}
	if err := t.dress(req, old); err != nil {
		return err
	}
	if _, err := p.replaced(name, req); err != nil {
		return err
	}
	if err := t.commit(base, req.New); err != nil {
		return err
	}
	st, err := t.file.Stat()
	if err != nil {
		return err
	}
	return p.reply(&Reply{Entry: p.entry(name, st), SHA256: sum, Created: old == nil})
}

// replaced returns what name is now, nil if it is not there, and checks the preconditions.
func (p *program) replaced(name string, req *Request) (fs.FileInfo, error) {
	st, err := p.root.Lstat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if req.Match != "" {
			return nil, errorf(CodePrecond, "%s does not exist", name)
		}
		return nil, nil
	case err != nil:
		return nil, err
	case st.IsDir():
		return nil, errorf(CodeWrongKind, "%s is a directory", name)
	case req.New:
		return nil, errorf(CodeExists, "%s exists already", name)
	case req.Match != "" && req.Match != "*" && req.Match != tagOf(st):
		return nil, errorf(CodePrecond, "%s has changed: its tag is %s", name, tagOf(st))
	}
	return st, nil
}

// receive copies the standard input to f and checks what the request says of it. It returns the
// SHA-256 if there was one to check.
func (p *program) receive(f *os.File, req *Request) ([]byte, error) {
	var sum hash.Hash
	in, want := p.in, req.SHA256
	if req.Size != nil {
		in = io.LimitReader(in, *req.Size)
	}
	if req.Trailer || len(want) > 0 {
		sum = sha256.New()
		in = io.TeeReader(in, sum)
	}
	n, err := copySparse(f, in)
	if err != nil {
		return nil, err
	}
	rest, err := io.ReadAll(io.LimitReader(p.in, sha256.Size+1))
	if err != nil {
		return nil, err
	}
	if req.Trailer && len(rest) == sha256.Size {
		rest, want = nil, rest
	}
	switch {
	case req.Size != nil && n < *req.Size:
		return nil, errorf(CodeIncomplete, "the content ended after %d of %d bytes", n, *req.Size)
	case len(rest) > 0:
		return nil, errorf(CodeIncomplete, "the content has more than its size of %d bytes", n)
	case len(want) == 0:
		return nil, nil
	}
	got := sum.Sum(nil)
	if !bytes.Equal(got, want) {
		return nil, errorf(CodeDigest, "the SHA-256 of the content is %x, not %x", got, want)
	}
	return got, nil
}

// copySparse copies in to f, which is empty, and leaves holes where whole blocks are zero: an image
// of a disk takes no more room than at its source.
func copySparse(f *os.File, in io.Reader) (n int64, err error) {
	buf := make([]byte, 256<<10)
	fill := 0
	for err == nil {
		var got int
		got, err = in.Read(buf[fill:])
		fill += got
		if fill < len(buf) && err == nil && fill%block != 0 {
			continue // whole blocks only, so that the next piece begins at a multiple of one
		}
		if werr := writeSparse(f, buf[:fill], n); werr != nil {
			return n, werr
		}
		n += int64(fill)
		fill = 0
	}
	if err != io.EOF {
		return n, err
	}
	return n, f.Truncate(n) // the last block may be a hole
}

var zeros [block]byte

// writeSparse writes the runs of p that are not zero blocks. p[0] is at off.
func writeSparse(f *os.File, p []byte, off int64) error {
	for begin := 0; begin < len(p); {
		end := begin
		hole := isZero(p[begin:min(begin+block, len(p))])
		for end < len(p) && isZero(p[end:min(end+block, len(p))]) == hole {
			end = min(end+block, len(p))
		}
		if !hole {
			if _, err := f.WriteAt(p[begin:end], off+int64(begin)); err != nil {
				return err
			}
		}
		begin = end
	}
	return nil
}

func isZero(p []byte) bool { return bytes.Equal(p, zeros[:len(p)]) }

// temp is a file that is being written.
type temp struct {
	parent *os.File
	file   *os.File
	name   string // in parent; "": it has none
	stop   func() // ends removeAtEnd, which has name; nil: nothing to end
}

// newTemp makes an empty file in parent, without a name if the file system can.
func newTemp(parent *os.File) (*temp, error) {
	t := &temp{parent: parent}
	fd, err := unix.Openat(int(parent.Fd()), ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o666)
	switch {
	case err == nil:
	// https://man7.org/linux/man-pages/man2/open.2.html, O_TMPFILE: what kernels and file systems
	// without it answer.
	case errors.Is(err, unix.EOPNOTSUPP),
		errors.Is(err, unix.EISDIR),
		errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.ENOENT):
		t.name = tempName()
		fd, err = unix.Openat(
			int(parent.Fd()),
			t.name,
			unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW,
			0o666,
		)
	}
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: parent.Name(), Err: err}
	}
	if t.name != "" {
		t.stop = removeAtEnd(int(parent.Fd()), t.name)
	}
	t.file = os.NewFile(uintptr(fd), parent.Name())
	return t, nil
}

func tempName() string { return ".troupe-" + strings.ToLower(rand.Text()) }

// dress gives the file the mode and time that it is to have.
func (t *temp) dress(req *Request, old fs.FileInfo) error {
	switch {
	case req.Mode != nil:
		if err := t.file.Chmod(fs.FileMode(*req.Mode) & fs.ModePerm); err != nil {
			return err
		}
	case old != nil && old.Mode().IsRegular():
		if err := t.file.Chmod(old.Mode().Perm()); err != nil {
			return err
		}
	}
	if req.Modified == nil {
		return nil
	}
	return setTimes(int(t.file.Fd()), "", *req.Modified)
}

// setTimes sets the times of name in the directory fd, without following a link; of fd itself if name
// is empty. An archive may have no time, which is that of the epoch.
func setTimes(fd int, name string, at time.Time) error {
	if at.IsZero() {
		at = time.Unix(0, 0)
	}
	ts, err := unix.TimeToTimespec(at)
	if err != nil {
		return errorf(CodeInvalid, "the time %v: %v", at, err)
	}
	return unix.UtimesNanoAt(fd, name, []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
}

// commit gives the file its name.
func (t *temp) commit(base string, isNew bool) error {
	dir := int(t.parent.Fd())
	if t.name == "" {
		err := t.link(base)
		if err == nil || isNew || !errors.Is(err, unix.EEXIST) {
			return t.fail(base, err)
		}
		// A link cannot replace a file; a rename can.
		t.name = tempName()
		if err := t.link(t.name); err != nil {
			t.name = ""
			return t.fail(base, err)
		}
		t.stop = removeAtEnd(dir, t.name)
	}
	flags := uint(0)
	if isNew {
		flags = unix.RENAME_NOREPLACE
	}
	err := unix.Renameat2(dir, t.name, dir, base, flags)
	if err == nil {
		t.name = ""
	}
	return t.fail(base, err)
}

// link gives a file without a name one. Without CAP_DAC_READ_SEARCH, kernels before 6.10 do it by
// way of /proc only (https://man7.org/linux/man-pages/man2/open.2.html).
func (t *temp) link(name string) error {
	fd, dir := int(t.file.Fd()), int(t.parent.Fd())
	err := unix.Linkat(fd, "", dir, name, unix.AT_EMPTY_PATH)
	if err == nil || errors.Is(err, unix.EEXIST) {
		return err
	}
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), dir, name, unix.AT_SYMLINK_FOLLOW)
}

func (t *temp) fail(base string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: "create", Path: path.Join(t.parent.Name(), base), Err: err}
}

// discard closes the file, and removes it if it is not complete.
func (t *temp) discard() {
	if t.name != "" {
		_ = unix.Unlinkat(int(t.parent.Fd()), t.name, 0)
	}
	if t.stop != nil {
		t.stop()
	}
	t.file.Close()
}
