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
// cancelled.
func removeAtEnd(dir int, name string) {
	end := make(chan os.Signal, 1)
	signal.Notify(end, unix.SIGTERM, unix.SIGHUP, unix.SIGINT)
	go func() {
		sig := <-end
		_ = unix.Unlinkat(dir, name, 0)
		if s, ok := sig.(unix.Signal); ok {
			os.Exit(128 + int(s))
		}
		os.Exit(1)
	}()
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
		if _, err := p.root.Lstat(target); err == nil {
			return errorf(CodeExists, "%s exists already", target)
		}
	}
	if err := p.root.Rename(name, target); err != nil {
		return err
	}
	st, err := p.root.Lstat(target)
	if err != nil {
		return err
	}
	return p.reply(&Reply{Entry: p.entry(target, st)})
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
