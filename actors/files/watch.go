//go:build linux

package files

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/fsnotify/fsnotify"

	"github.com/troupe-dev/troupe/actors/wire"
)

// watch replies with changes until the program is ended.
func (p *program) watch(name string, req *Request) error {
	d, err := p.root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer d.Close()
	// The paths of a watch are looked up by the kernel. From here on they are relative to the
	// directory that was opened, wherever it may be moved.
	open, err := d.Open(".")
	if err != nil {
		return err
	}
	defer open.Close()
	if err := open.Chdir(); err != nil {
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	f := &follower{program: p, w: w, dir: d, recursive: req.Recursive}
	if err := f.add("."); err != nil {
		return err
	}
	if err := f.tell(wire.FileReady, ""); err != nil {
		return err
	}
	for {
		select {
		case e := <-w.Events:
			err = f.event(e)
		case err = <-w.Errors:
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				err = f.tell(wire.FileOverflow, "")
			}
		}
		if err != nil {
			return err
		}
	}
}

type follower struct {
	*program
	w         *fsnotify.Watcher
	dir       *os.Root
	recursive bool
}

func (f *follower) tell(kind, name string) error {
	return f.reply(&Reply{Change: &Change{Kind: kind, Path: Name(name)}})
}

// add watches a directory, and with recursive those below it. Links are not followed.
func (f *follower) add(name string) error {
	if !f.recursive {
		return f.watchOne(name)
	}
	return fs.WalkDir(f.dir.FS(), name, func(at string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil // removed meanwhile
		case errors.Is(err, os.ErrPermission) && at != name:
			return fs.SkipDir
		case err != nil:
			return err
		case !e.IsDir():
			return nil
		}
		return f.watchOne(at)
	})
}

func (f *follower) watchOne(name string) error {
	err := f.w.Add(name)
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return errorf(CodeNoSpace, "the kernel watches no more directories for this user (fs.inotify.max_user_watches)")
	case errors.Is(err, os.ErrNotExist):
		return nil
	}
	return err
}

// event tells what happened. A directory that was made may have content by the time that it is
// watched, which is told as created; a client may hear of one file twice, but of each at least once.
func (f *follower) event(e fsnotify.Event) error {
	name := filepath.Clean(e.Name)
	switch {
	case e.Has(fsnotify.Create):
		if err := f.tell(wire.FileCreated, name); err != nil {
			return err
		}
		if st, err := f.dir.Lstat(name); f.recursive && err == nil && st.IsDir() {
			return f.entered(name)
		}
		return nil
	case e.Has(fsnotify.Remove):
		return f.tell(wire.FileRemoved, name)
	case e.Has(fsnotify.Rename):
		return f.tell(wire.FileRenamed, name)
	case e.Has(fsnotify.Write):
		return f.tell(wire.FileModified, name)
	case e.Has(fsnotify.Chmod):
		return f.tell(wire.FileModeChanged, name)
	}
	return nil
}

// entered watches a directory that appeared, and tells what is in it already.
func (f *follower) entered(name string) error {
	if err := f.add(name); err != nil {
		return err
	}
	return fs.WalkDir(f.dir.FS(), name, func(at string, _ fs.DirEntry, err error) error {
		if err != nil || at == name {
			return nil //nolint:nilerr // removed meanwhile
		}
		return f.tell(wire.FileCreated, path.Clean(at))
	})
}
