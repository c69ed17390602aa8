//go:build linux

package files

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/wire"
)

// program carries out one request beneath its root.
type program struct {
	root *os.Root
	at   string // the path of root
	in   io.Reader
	out  *os.File

	mu       sync.Mutex   // held while a line is written
	received atomic.Int64 // bytes from in
}

// Main carries out the request that args hold, as the package's comment says, and returns the exit
// code. args are those that follow the program's name.
func Main(args []string, in, out *os.File) int { return serve(".", args, in, out) }

func serve(dir string, args []string, in io.Reader, out *os.File) int {
	p := &program{in: in, out: out}
	if err := p.run(dir, args); err != nil {
		if p.reply(&Reply{Error: explain(err)}) != nil {
			fmt.Fprintln(os.Stderr, Program+":", err)
		}
		return 1
	}
	return 0
}

func (p *program) run(dir string, args []string) error {
	req := new(Request)
	if len(args) != 1 {
		return errorf(CodeInvalid, "%s takes one argument, a request in JSON", Program)
	}
	dec := json.NewDecoder(strings.NewReader(args[0]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(req); err != nil {
		return errorf(CodeInvalid, "the request: %v", err)
	}
	var err error
	if p.at, err = filepath.Abs(dir); err != nil {
		return err
	}
	if p.root, err = os.OpenRoot(dir); err != nil {
		return err
	}
	defer p.root.Close()
	name, err := p.beneath(req.Path)
	if err != nil {
		return err
	}
	switch req.Op {
	case OpWrite, OpUnpack, OpStat, OpWatch:
		defer p.keepAlive(req.Op)()
	}
	switch req.Op {
	case OpStat:
		return p.stat(name, req)
	case OpList:
		return p.list(name, req)
	case OpRead:
		return p.read(name, req)
	case OpWrite:
		return p.write(name, req)
	case OpPack:
		return p.pack(name)
	case OpUnpack:
		return p.unpack(name, req)
	case OpMkdir:
		return p.mkdir(name, req)
	case OpMove:
		return p.move(name, req)
	case OpRemove:
		return p.remove(name, req)
	case OpWatch:
		return p.watch(name, req)
	}
	return errorf(CodeInvalid, "unknown operation %q", req.Op)
}

// beneath returns n relative to the root. Whether links lead out of it, the root finds out when it
// opens the path.
func (p *program) beneath(n Name) (string, error) {
	name := string(n)
	if strings.IndexByte(name, 0) >= 0 {
		return "", errorf(CodeInvalid, "a path has no NUL byte")
	}
	if path.IsAbs(name) {
		rel, ok := strings.CutPrefix(path.Clean(name)+"/", strings.TrimSuffix(p.at, "/")+"/")
		if !ok {
			return "", errorf(CodeOutside, "%s is outside of the session's directory, %s", name, p.at)
		}
		name = strings.TrimSuffix(rel, "/")
	}
	if name == "" {
		return ".", nil
	}
	return name, nil
}

// reply writes one line.
func (p *program) reply(r *Reply) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := bufio.NewWriterSize(p.out, 64<<10)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // which would take six bytes for one of a name, and MaxReply has three
	if err := e.Encode(r); err != nil {
		return err
	}
	return w.Flush()
}

// aliveInterval is well below the stream timeout, which ends a command that says nothing.
const aliveInterval = 20 * time.Second

// keepAlive says at intervals that the program works, until the returned function is called. A
// program that waits for content only does so when it gets some: a client that is gone must not
// hold an unfinished file forever.
func (p *program) keepAlive(op string) (stop func()) {
	end := make(chan struct{})
	var done sync.WaitGroup
	waits := op == OpWrite || op == OpUnpack
	if waits {
		p.in = &countingReader{p.in, &p.received}
	}
	done.Go(func() {
		t := time.NewTicker(aliveInterval)
		defer t.Stop()
		for last := int64(0); ; {
			select {
			case <-end:
				return
			case <-t.C:
			}
			if n := p.received.Load(); !waits || n != last {
				last = n
				_ = p.reply(&Reply{Alive: true}) // an error shows at the next reply, too
			}
		}
	})
	return func() {
		close(end)
		done.Wait()
	}
}

type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n.Add(int64(n))
	return n, err
}

// open opens a regular file for reading. Opening a pipe would wait for its writer, and a device may
// do anything, so O_NONBLOCK keeps the first from waiting and the check refuses both.
func (p *program) open(name string) (*os.File, fs.FileInfo, error) {
	f, err := p.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		kind := kindOf(st.Mode())
		if kind == wire.FileOther {
			kind = "neither a file nor a directory"
		} else {
			kind = "a " + kind
		}
		err = errorf(CodeWrongKind, "%s is %s", name, kind)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

// openDir opens a directory, and nothing else: opening a pipe would wait.
func openDir(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
}

func kindOf(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return wire.FileRegular
	case m.IsDir():
		return wire.FileDirectory
	case m&fs.ModeSymlink != 0:
		return wire.FileSymlink
	}
	return wire.FileOther
}

// entry describes the file of name. st is that of Lstat, or of the open file.
func (p *program) entry(name string, st fs.FileInfo) *Entry {
	e := &Entry{
		Name: Name(path.Base(name)), Kind: kindOf(st.Mode()), Size: st.Size(),
		Mode: uint32(st.Mode().Perm()), Modified: st.ModTime().UTC(), Tag: tagOf(st),
	}
	if e.Kind != wire.FileRegular {
		e.Size = 0
	}
	if e.Kind == wire.FileSymlink {
		link, _ := p.root.Readlink(name)
		e.Link = Name(link)
	}
	return e
}

// tagOf returns a tag that changes with the content: a write changes the times, and a replaced file
// has another inode. The time of the last status change is in it since that of the last
// modification can be set.
func tagOf(st fs.FileInfo) string {
	sys, ok := st.Sys().(*unixStat)
	if !ok {
		return fmt.Sprintf("%x-%x", st.Size(), st.ModTime().UnixNano())
	}
	return fmt.Sprintf("%x-%x-%x-%x", sys.Ino, st.Size(), st.ModTime().UnixNano(), sys.Ctim.Nano())
}

// explain classifies an error, and leaves the middle out of a message that is longer than maxMessage.
func explain(err error) *Error {
	e := classify(err)
	if n := len(e.Message); n > maxMessage {
		e.Message = e.Message[:maxMessage/2] + "…" + e.Message[n-maxMessage/2:]
	}
	return e
}

// maxMessage bounds the message of an Error, in bytes: paths are part of it, and in JSON each of their
// bytes may be six.
const maxMessage = 1 << 10

func classify(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	code, message := CodeFailed, err.Error()
	var at *fs.PathError
	if errors.As(err, &at) {
		message = at.Path + ": " + at.Err.Error() // without the name of the system call
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		message = link.New + ": " + link.Err.Error()
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		code = CodeNotFound
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTEMPTY):
		code = CodeExists
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOTDIR):
		code = CodeWrongKind
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		code = CodeNoSpace
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		code = CodeDenied
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ELOOP):
		code = CodeInvalid
	case strings.Contains(err.Error(), "path escapes from parent"): // os.errPathEscapes is not exported
		code, message = CodeOutside, "the path leads out of the session's directory"
		if at != nil {
			message = at.Path + ": " + message
		}
	}
	return &Error{Code: code, Message: message}
}
