//go:build linux

package files

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// read replies with the length of what follows, then the bytes, then whether they are whole: a file
// that was written to meanwhile is a mixture of before and after.
func (p *program) read(name string, req *Request) error {
	f, st, err := p.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	tag := tagOf(st)
	length := st.Size() - req.Offset
	switch {
	case req.Match != "" && req.Match != "*" && req.Match != tag:
		return errorf(CodePrecond, "%s has changed: its tag is %s", name, tag)
	case req.Offset < 0 || req.Length < 0:
		return errorf(CodeInvalid, "offset and length must be positive")
	case length < 0:
		length = 0 // as pread has it
	case req.Length > 0:
		length = min(length, req.Length)
	}
	if err := p.reply(&Reply{Entry: p.entry(name, st), Length: length}); err != nil {
		return err
	}
	if _, err := f.Seek(req.Offset, io.SeekStart); err != nil {
		return err
	}
	var sum hash.Hash
	if req.Digest {
		sum = sha256.New()
	}
	if err := p.send(f, length, sum); err != nil {
		return err
	}
	if err := unchanged(f, name, tag); err != nil {
		return err
	}
	r := &Reply{}
	if sum != nil {
		r.SHA256 = sum.Sum(nil)
	}
	return p.reply(r)
}

// send copies length bytes of f. If f has less, what follows would be taken for content, so the
// program ends at once, and its exit code says that the content is not whole.
func (p *program) send(f *os.File, length int64, sum hash.Hash) error {
	sent := int64(0)
	if sum == nil {
		sent = sendfile(p.out, f, length)
	}
	if sent < length {
		var w io.Writer = p.out
		if sum != nil {
			w = io.MultiWriter(p.out, sum)
		}
		n, err := io.CopyBuffer(
			struct{ io.Writer }{w},
			struct{ io.Reader }{io.LimitReader(f, length-sent)},
			make([]byte, 256<<10),
		)
		if sent += n; sent < length {
			if err == nil {
				err = errors.New("the file became shorter")
			}
			os.Stderr.WriteString(Program + ": " + err.Error() + "\n")
			os.Exit(1)
		}
	}
	return nil
}

// sendfile lets the kernel copy as much as it can of length bytes, from f's position on.
func sendfile(out, f *os.File, length int64) (sent int64) {
	for sent < length {
		n, err := unix.Sendfile(int(out.Fd()), int(f.Fd()), nil, int(min(length-sent, 1<<20)))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return sent
		}
		sent += int64(n)
	}
	return sent
}

// unchanged fails if f is not as it was when it had tag.
func unchanged(f *os.File, name, tag string) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if tagOf(st) != tag {
		return errorf(CodeChanged, "%s changed while it was read", name)
	}
	return nil
}
