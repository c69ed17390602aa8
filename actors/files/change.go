//go:build linux

package files

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// removeAtEnd removes a file that has a name although it is not complete when the command is
// cancelled, until the returned function is called.
func removeAtEnd(dir int, name string) (stop func()) {
	end, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(end, unix.SIGTERM, unix.SIGHUP, unix.SIGINT)
	go func() {
		select {
		case sig := <-end:
			_ = unix.Unlinkat(dir, name, 0)
			if s, ok := sig.(unix.Signal); ok {
				os.Exit(128 + int(s))
			}
			os.Exit(1)
		case <-done:
		}
	}()
	return func() {
		signal.Stop(end)
		close(done)
	}
}

func (p *program) mkdir(name string, req *Request) error {
	mode := fs.FileMode(0o777)
	if req.Mode != nil {
		mode = fs.FileMode(*req.Mode) & fs.ModePerm
	}
	if req.Parents {
		if err := p.root.MkdirAll(path.Dir(name), 0o777); err != nil {
			return err
		}
	}
	err := p.root.Mkdir(name, mode)
	created := err == nil
	if err != nil {
		st, stErr := p.root.Stat(name)
		if !req.Parents || !errors.Is(err, os.ErrExist) || stErr != nil || !st.IsDir() {
			return err
		}
	}
	st, err := p.root.Lstat(name)
	if err != nil {
		return err
	}
	return p.reply(&Reply{Entry: p.entry(name, st), Created: created})
}

func (p *program) move(name string, req *Request) error {
	target, err := p.beneath(req.Target)
	if err != nil {
		return err
	}
	if req.New {
		err = p.renameNew(name, target)
	} else {
		err = p.root.Rename(name, target)
	}
	if err != nil {
		return p.blame(name, err)
	}
	st, err := p.root.Lstat(target)
	if err != nil {
		return err
	}
	return p.reply(&Reply{Entry: p.entry(target, st)})
}

// blame returns what is wrong with the first of the two paths of a system call that has failed, else
// err, which is about the second: the kernel does not say which of them it means.
func (p *program) blame(first string, err error) error {
	if _, missing := p.root.Lstat(first); missing != nil {
		return missing
	}
	return err
}

// renameNew is Rename, and replaces nothing, whoever else makes target meanwhile.
func (p *program) renameNew(name, target string) error {
	name, target = strings.TrimRight(name, "/"), strings.TrimRight(target, "/")
	from, err := openDir(p.root, path.Dir(name))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openDir(p.root, path.Dir(target))
	if err != nil {
		return err
	}
	defer to.Close()
	err = unix.Renameat2(int(from.Fd()), path.Base(name), int(to.Fd()), path.Base(target), unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.PathError{Op: "rename", Path: target, Err: err}
	}
	return nil
}

func (p *program) remove(name string, req *Request) error {
	if strings.Trim(name, "./") == "" {
		return errorf(CodeInvalid, "the session's directory itself cannot be removed: close the session")
	}
	st, err := p.root.Lstat(name)
	switch {
	case err != nil:
		return err
	case req.Match != "" && req.Match != "*" && req.Match != tagOf(st):
		return errorf(CodePrecond, "%s has changed: its tag is %s", name, tagOf(st))
	case req.Recursive:
		err = p.root.RemoveAll(name)
	default:
		err = p.root.Remove(name)
	}
	if err != nil {
		return err
	}
	return p.reply(&Reply{Entry: p.entry(name, st)})
}
