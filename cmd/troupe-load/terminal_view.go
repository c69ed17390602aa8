package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// view is somebody in front of a terminal.
type view struct {
	name     string
	terminal io.ReadWriter
	close    func()

	passed int64  // bytes that were read
	buf    []byte // of a read
	tail   []byte // what was read last, as far as the next text may begin in it
}

// types types keys, and waits until the terminal shows a text behind them.
func (v *view) types(keys, text string) error {
	if _, err := io.WriteString(v.terminal, keys); err != nil {
		return err
	}
	return v.until(text)
}

// timed is types, and notes how long it took.
func (v *view) timed(into *samples, keys, text string) error {
	began := time.Now()
	err := v.types(keys, text)
	*into = append(*into, time.Since(began))
	return err
}

// until reads until one of the texts has come.
func (v *view) until(texts ...string) error {
	for {
		for _, text := range texts {
			if at := bytes.Index(v.tail, []byte(text)); at >= 0 {
				v.tail = v.tail[at+len(text):]
				return nil
			}
		}
		if err := v.read(); err != nil {
			return fmt.Errorf("instead of %q: %w, after %q", texts, err, v.tail)
		}
	}
}

// skip reads n bytes more.
func (v *view) skip(n int64) error {
	for end := v.passed + n; v.passed < end; {
		if err := v.read(); err != nil {
			return err
		}
	}
	return nil
}

// read reads once, and keeps as much of what was there before as a text may have begun in.
func (v *view) read() error {
	const longest = 32
	if v.buf == nil {
		v.buf = make([]byte, longest+64<<10)
	}
	kept := copy(v.buf, v.tail[max(0, len(v.tail)-longest):])
	n, err := v.terminal.Read(v.buf[kept:])
	v.passed += int64(n)
	v.tail = v.buf[:kept+n]
	if n > 0 {
		return nil
	}
	return err
}

// openPty runs a program in a pseudo-terminal of this machine.
func openPty(ctx context.Context, name, home string, argv []string) (*view, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return nil, errors.Join(err, master.Close())
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, errors.Join(err, master.Close())
	}
	defer slave.Close()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TERM=xterm"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, master.Close())
	}
	return &view{name: name, terminal: master, close: func() {
		_ = cmd.Process.Kill()
		_ = master.Close()
		_ = cmd.Wait()
	}}, nil
}

// clientTerminal is a terminal of trouped in this program.
type clientTerminal struct {
	ctx context.Context // of every call: the value lives as long as one measurement
	x   *troupe.Execution

	out  *troupe.Output // nil: nothing of one is left
	rest []byte         // of out
}

func (t *clientTerminal) Write(p []byte) (int, error) { return t.x.Input(t.ctx, p) }

func (t *clientTerminal) Read(p []byte) (int, error) {
	for len(t.rest) == 0 {
		if t.out != nil {
			t.out.Release()
			t.out = nil
		}
		ev, err := t.x.Next(t.ctx)
		if err != nil {
			return 0, err
		}
		switch ev := ev.(type) {
		case *troupe.Output:
			t.out, t.rest = ev, ev.Data
		case *troupe.Gap:
			return 0, fmt.Errorf("%d bytes of output are missing", ev.Bytes)
		}
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// writeLines writes a file of lines of 80 bytes.
func writeLines(name string, size int64) error {
	line := strings.Repeat("x", 79) + "\n"
	block := []byte(strings.Repeat(line, 1<<16/len(line)))
	f, err := os.Create(name)
	for ; err == nil && size > 0; size -= int64(len(block)) {
		_, err = f.Write(block[:min(size, int64(len(block)))])
	}
	if f == nil {
		return err
	}
	return errors.Join(err, f.Close())
}
