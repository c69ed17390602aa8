package main

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// uploadTree copies a directory. Its archive is made anew when the connection is lost, and what has
// arrived is skipped; so nothing in it may change meanwhile.
func (c *copying) uploadTree(ctx context.Context, source, target string) error {
	c.bar.begin(filepath.Base(source), -1)
	return named(target, c.files.UploadTree(ctx, target, func(offset int64) (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(packTree(w, source)) }()
		if _, err := io.CopyN(io.Discard, r, offset); err != nil {
			r.Close()
			return nil, fmt.Errorf("the directory has become smaller: %w", err)
		}
		return r, nil
	}, troupe.UploadOptions{Parents: true, Progress: c.bar.at}))
}

// packTree writes a directory as a tar archive, always the same for the same files.
func packTree(w io.Writer, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	buffered := bufio.NewWriterSize(w, 256<<10)
	tw := tar.NewWriter(buffered)
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		return packEntry(tw, root, name, e)
	})
	return errors.Join(err, tw.Close(), buffered.Flush())
}

func packEntry(w *tar.Writer, root *os.Root, name string, e fs.DirEntry) error {
	st, err := e.Info()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Mode: int64(st.Mode().Perm()), ModTime: st.ModTime(), Format: tar.FormatPAX}
	switch {
	case st.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case st.Mode()&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = root.Readlink(name); err != nil {
			return err
		}
	case st.Mode().IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, st.Size()
	default:
		return nil // a device, a socket or a pipe has no content
	}
	if err := w.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if n, err := io.Copy(w, io.LimitReader(f, h.Size)); err != nil {
		return err
	} else if n < h.Size {
		return fmt.Errorf("%s became shorter while it was read", name)
	}
	return nil
}

// downloadTree copies a directory of a session. What its archive holds is not trusted: nothing is
// made outside of target.
func (c *copying) downloadTree(ctx context.Context, source, target string) error {
	c.bar.begin(filepath.Base(target), -1)
	archive, err := c.files.DownloadTree(ctx, source)
	if err != nil {
		return named(source, err)
	}
	defer archive.Close()
	if err := os.MkdirAll(target, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(target)
	if err != nil {
		return err
	}
	defer root.Close()
	return named(source, unpackTree(root, &counted{r: archive, tell: c.bar.at}))
}

type counted struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.tell(c.n)
	return n, err
}

func unpackTree(root *os.Root, archive io.Reader) error {
	var dirs []*tar.Header
	r := tar.NewReader(archive)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		h.Name = filepath.Clean(h.Name)
		if !filepath.IsLocal(h.Name) {
			return fmt.Errorf("the archive has the name %q, which leads out of the directory", h.Name)
		}
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, h)
		}
		if err := unpackEntry(root, r, h); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, archive); err != nil { // whether all of it has arrived
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- { // what is made in a directory changes its time
		if err := errors.Join(root.Chtimes(dirs[i].Name, dirs[i].ModTime, dirs[i].ModTime),
			root.Chmod(dirs[i].Name, fs.FileMode(dirs[i].Mode)&fs.ModePerm)); err != nil {
			return err
		}
	}
	return nil
}

func unpackEntry(root *os.Root, r io.Reader, h *tar.Header) error {
	if err := root.MkdirAll(filepath.Dir(h.Name), 0o777); err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode) & fs.ModePerm
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(h.Name, 0o777)
	case tar.TypeSymlink:
		if err := root.Remove(h.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return root.Symlink(h.Linkname, h.Name)
	case tar.TypeReg:
	default:
		return fmt.Errorf("the archive has %q, which is neither a file, a directory nor a symbolic link", h.Name)
	}
	// What was there goes first: writing through a link, or to a file that others have open, would
	// change that.
	if err := root.Remove(h.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode|0o200)
	if err != nil {
		return err
	}
	w := &sparseWriter{f: f}
	_, err = io.Copy(w, r)
	err = errors.Join(err, w.finish(), f.Chmod(mode), f.Close())
	if err != nil {
		return err
	}
	return root.Chtimes(h.Name, h.ModTime, h.ModTime)
}

// sparseWriter leaves holes where blocks are zero.
type sparseWriter struct {
	f   *os.File
	pos int64
}

const sparseBlock = 4096

var zeroBlock [sparseBlock]byte

// Write implements io.Writer. A block that is split between two writes is written.
func (w *sparseWriter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		end := done
		for end < len(p) && !zeroAt(p, end, w.pos) {
			end = min(len(p), nextBlock(w.pos, end))
		}
		if end > done {
			n, err := w.f.WriteAt(p[done:end], w.pos+int64(done))
			if err != nil {
				return done + n, err
			}
		}
		for done = end; done < len(p) && zeroAt(p, done, w.pos); {
			done += sparseBlock
		}
	}
	w.pos += int64(len(p))
	return len(p), nil
}

// zeroAt reports whether a whole block of zeros begins at p[i]. p[0] is at pos in the file.
func zeroAt(p []byte, i int, pos int64) bool {
	return (pos+int64(i))%sparseBlock == 0 && len(p)-i >= sparseBlock && [sparseBlock]byte(p[i:i+sparseBlock]) == zeroBlock
}

// nextBlock returns the index of the byte at which the next block begins.
func nextBlock(pos int64, i int) int {
	return i + int(sparseBlock-(pos+int64(i))%sparseBlock)
}

func (w *sparseWriter) finish() error { return w.f.Truncate(w.pos) }
