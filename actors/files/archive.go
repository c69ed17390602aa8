//go:build linux

package files

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/troupe-dev/troupe/actors/wire"
)

// pack writes a directory as a tar archive: files, directories and symbolic links, with their
// modes and times. Sockets, pipes and devices have no content and are left out.
func (p *program) pack(name string) error {
	st, err := p.root.Stat(name)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return errorf(CodeWrongKind, "%s is not a directory", name)
	}
	if err := p.reply(&Reply{Entry: p.entry(name, st)}); err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(p.out, 64<<10) // headers of 512 bytes
	w := tar.NewWriter(buffered)
	err = p.packDir(w, name, "")
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		// A line of JSON behind half an archive could be taken for content.
		fmt.Fprintln(os.Stderr, Program+":", err)
		os.Exit(1)
	}
	return nil
}

// packDir writes what is in the directory name. In the archive it is called as.
func (p *program) packDir(w *tar.Writer, name, as string) error {
	d, err := openDir(p.root, name)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(256)
		for _, n := range names {
			if err := p.packEntry(w, path.Join(name, n), path.Join(as, n)); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *program) packEntry(w *tar.Writer, name, as string) error {
	st, err := p.root.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	h := &tar.Header{Name: as, Mode: int64(st.Mode().Perm()), ModTime: st.ModTime(), Format: tar.FormatPAX}
	switch kindOf(st.Mode()) {
	case wire.FileDirectory:
		h.Typeflag, h.Name = tar.TypeDir, as+"/"
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		return p.packDir(w, name, as)
	case wire.FileSymlink:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = p.root.Readlink(name); err != nil {
			return err
		}
		return w.WriteHeader(h)
	case wire.FileRegular:
		return p.packFile(w, name, h)
	}
	return nil
}

func (p *program) packFile(w *tar.Writer, name string, h *tar.Header) error {
	f, st, err := p.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	h.Typeflag, h.Size, h.Mode, h.ModTime = tar.TypeReg, st.Size(), int64(st.Mode().Perm()), st.ModTime()
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	if n, err := io.Copy(w, io.LimitReader(f, h.Size)); err != nil {
		return err
	} else if n < h.Size {
		return errorf(CodeChanged, "%s became shorter while it was read", name)
	}
	return unchanged(f, name, tagOf(st))
}

// unpack makes the entries of an archive in the directory name. Each file is made as OpWrite makes
// it. What cannot be beneath the directory is refused: absolute names, "..", devices, and any path
// through a link that leads out.
func (p *program) unpack(name string, req *Request) error {
	if req.Parents {
		if err := p.root.MkdirAll(name, 0o777); err != nil {
			return err
		}
	}
	dir, err := p.root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	u := &unpacker{program: &program{root: dir, at: p.at, out: p.out}, made: make(map[string]bool)}
	r := tar.NewReader(p.in)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return errorf(CodeIncomplete, "the archive: %v", err)
		}
		u.in = r
		if err := u.entry(h); err != nil {
			return err
		}
	}
	// The writer of an archive pads it: without reading that, it would see its pipe break.
	if _, err := io.Copy(io.Discard, p.in); err != nil {
		return err
	}
	if err := u.finish(); err != nil {
		return err
	}
	return p.reply(&Reply{Files: u.files})
}

type unpacker struct {
	*program
	files int
	made  map[string]bool // directories that are there
	dirs  []*tar.Header   // their modes and times come last: what is made in them changes both
}

func (u *unpacker) entry(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := path.Clean("./" + h.Name)
	switch {
	case path.IsAbs(h.Name):
		return errorf(CodeOutside, "the archive has the absolute name %q", h.Name)
	case !fs.ValidPath(name) && strings.HasPrefix(name, ".."):
		return errorf(CodeOutside, "the archive has the name %q, which leads out of its directory", h.Name)
	case name == ".":
		return nil
	}
	if err := u.parents(path.Dir(name)); err != nil {
		return err
	}
	u.files++
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse: // its holes are read as zeros
		return u.file(name, h)
	case tar.TypeDir:
		h.Name = name
		u.dirs = append(u.dirs, h)
		return u.parents(name)
	case tar.TypeSymlink:
		return u.symlink(name, h)
	case tar.TypeLink:
		if path.IsAbs(h.Linkname) {
			return errorf(CodeOutside, "the archive has a hard link to the absolute name %q", h.Linkname)
		}
		to := path.Clean(h.Linkname)
		if err := u.replace(name, func() error { return u.root.Link(to, name) }); err != nil {
			return u.blame(to, err)
		}
		return nil
	}
	return errorf(CodeUnsupported, "the archive has %q, which is neither a file, a directory nor a link", h.Name)
}

func (u *unpacker) parents(dir string) error {
	if u.made[dir] {
		return nil
	}
	if err := u.root.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	u.made[dir] = true
	return nil
}

func (u *unpacker) file(name string, h *tar.Header) error {
	mode := uint32(h.Mode) & 0o777
	req := &Request{Mode: &mode, Modified: &h.ModTime}
	parent, err := openDir(u.root, path.Dir(name))
	if err != nil {
		return err
	}
	defer parent.Close()
	t, err := newTemp(parent)
	if err != nil {
		return err
	}
	defer t.discard()
	if _, err := copySparse(t.file, u.in); err != nil {
		return err
	}
	if err := t.dress(req, nil); err != nil {
		return err
	}
	return t.commit(path.Base(name), false)
}

func (u *unpacker) symlink(name string, h *tar.Header) error {
	if err := u.replace(name, func() error { return u.root.Symlink(h.Linkname, name) }); err != nil {
		return err
	}
	parent, err := openDir(u.root, path.Dir(name))
	if err != nil {
		return err
	}
	defer parent.Close()
	return setTimes(int(parent.Fd()), path.Base(name), h.ModTime)
}

// replace makes a link where a file or another link may be.
func (u *unpacker) replace(name string, link func() error) error {
	err := link()
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := u.root.Remove(name); err != nil {
		return err
	}
	return link()
}

// finish gives the directories their modes and times, the innermost first.
func (u *unpacker) finish() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		h := u.dirs[i]
		d, err := openDir(u.root, h.Name)
		if err != nil {
			return err
		}
		err = setTimes(int(d.Fd()), "", h.ModTime)
		if err == nil {
			err = d.Chmod(fs.FileMode(h.Mode) & fs.ModePerm)
		}
		d.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
