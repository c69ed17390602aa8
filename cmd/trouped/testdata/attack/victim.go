//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// victim says where everything is.
type victim struct {
	PID, Group, Init           int
	Home, Tmp, File, Dir, Temp string
	Program                    string
	FIFO, Unix, Abstract, SHM  string
	Datagram                   string // an abstract name, too
	SysV                       int    // identifier of shared memory; -1: none
	TCP, UDP                   string
	Pty                        string
	Memory                     uint64 // address of the secret
	Open                       int    // a descriptor of File
	MemFD                      int    // a descriptor of a file in memory
	// What the victim does not know.
	Runner                       int // a pid
	Root, Data, Tokens           string
	Socket, Lock, Binary         string
	Admin, Server, ServerProcess string
}

// held keeps the victim's things from the collector.
var held []any

func hold[T any](x T) T { held = append(held, x); return x }

func beVictim() {
	v := &victim{PID: os.Getpid(), Group: unix.Getpgrp(), Init: os.Getppid(), Home: must(os.Getwd()), Tmp: os.TempDir()}
	mark := fmt.Sprintf("v%x", time.Now().UnixNano())
	v.makeFiles(mark)
	v.makeServices(mark)
	v.makeMemory()
	v.openPty()
	signal.Notify(make(chan os.Signal, 100), unix.SIGUSR1, unix.SIGUSR2, unix.SIGIO, unix.SIGHUP, unix.SIGWINCH, unix.SIGURG)
	fmt.Println(string(must(json.Marshal(v))))
	// It ends by itself, should nobody end it. What is outside of its directories must go with it.
	defer os.Remove(v.SHM)
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		if os.Getenv("VICTIM_BUSY") == "" {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (v *victim) makeFiles(mark string) {
	v.Dir = filepath.Join(v.Home, mark)
	check(os.Mkdir(v.Dir, 0o700))
	v.File, v.FIFO, v.Program = filepath.Join(v.Dir, "file"), filepath.Join(v.Dir, "fifo"), filepath.Join(v.Dir, "program")
	v.Temp, v.SHM = filepath.Join(v.Tmp, mark+".tmp"), "/dev/shm/"+mark
	for _, name := range []string{v.File, v.Temp, v.SHM} {
		check(os.WriteFile(name, []byte(secret), 0o600))
	}
	check(os.Mkdir(filepath.Join(v.Dir, "empty"), 0o700))
	check(os.WriteFile(v.Program, []byte("#!/bin/sh\n"), 0o700))
	v.Open = int(hold(must(os.OpenFile(v.File, os.O_RDWR, 0))).Fd())
	check(unix.Mkfifo(v.FIFO, 0o600))
	hold(must(os.OpenFile(v.FIFO, os.O_RDWR, 0)))
	v.MemFD = must(unix.MemfdCreate("victim", unix.MFD_CLOEXEC))
	must(unix.Write(v.MemFD, []byte(secret)))
}

func (v *victim) makeServices(mark string) {
	v.Unix, v.Abstract, v.Datagram = filepath.Join(v.Dir, "s"), "@"+mark, "@d"+mark
	hold(must(net.ListenPacket("unixgram", v.Datagram)))
	for _, name := range []string{v.Unix, v.Abstract} {
		serve(must(net.Listen("unix", name)))
	}
	// The services on the network speak HTTP, as trouped's do.
	tcp := must(net.Listen("tcp", "127.0.0.1:0"))
	v.TCP = tcp.Addr().String()
	go func() {
		_ = http.Serve(tcp, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, secret) }))
	}()
	udp := must(net.ListenPacket("udp", "127.0.0.1:0"))
	v.UDP = udp.LocalAddr().String()
	go func() {
		for b := make([]byte, 1); ; {
			if _, from, err := udp.ReadFrom(b); err == nil {
				_, _ = udp.WriteTo([]byte(secret), from)
			}
		}
	}()
}

func serve(l net.Listener) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, secret)
			_ = c.Close()
		}
	}()
}

func (v *victim) makeMemory() {
	text := hold([]byte(strings.Clone(secret)))
	v.Memory = uint64(uintptr(unsafe.Pointer(&text[0])))
	v.SysV = -1
	if id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600); err == nil {
		v.SysV = id
		copy(must(unix.SysvShmAttach(id, 0, 0)), secret)
		// It goes with its last user.
		must(unix.SysvShmCtl(id, unix.IPC_RMID, nil))
	}
}

func (v *victim) openPty() {
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	hold(f)
	var unlock int32
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlock)))
	if n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPTN); err == nil {
		v.Pty = fmt.Sprintf("/dev/pts/%d", n)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1)
	}
}
