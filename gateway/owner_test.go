//go:build linux

package gateway

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// choosy serves "served\n" to everybody but one user, and counts whom it refuses.
type choosy struct {
	net.Listener
	user    atomic.Int64 // -1: none
	refused atomic.Int64
	logged  bytes.Buffer
}

func serveChoosy(t *testing.T, addr string) *choosy {
	t.Helper()
	raw, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skip(err)
	}
	c := new(choosy)
	c.Listener = RefuseUser(raw, func() (uint32, bool) { u := c.user.Load(); return uint32(u), u >= 0 },
		func() { c.refused.Add(1) }, slog.New(slog.NewTextHandler(&c.logged, nil)))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := c.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "served\n")
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c
}

// connect has a process of a user connect, and reports whether it was served.
func (c *choosy) connect(t *testing.T, uid uint32, host string) bool {
	t.Helper()
	_, port, _ := net.SplitHostPort(c.Addr().String())
	cmd := exec.Command("bash", "-c", "exec 3<>/dev/tcp/"+host+"/"+port+" && cat <&3")
	if uid != uint32(os.Geteuid()) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, _ := cmd.Output() // it fails if the connection was reset
	return string(out) == "served\n"
}

// ownAddress is an address of this machine that other machines reach, or "".
func ownAddress() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return ""
}

// The commands' user is refused at every address of the machine. Others, root among them, are served.
func TestUserIsRefused(t *testing.T) {
	hosts := map[string][]string{"[::]:0": {"127.0.0.1", "127.0.0.2", "::1"}, "127.0.0.1:0": {"127.0.0.1"}}
	if own := ownAddress(); own != "" {
		hosts["[::]:0"] = append(hosts["[::]:0"], own)
	}
	refused, served := uint32(os.Geteuid()), []uint32{}
	if refused == 0 {
		refused, served = 1000, []uint32{0, 65532}
	} else {
		t.Log("only root can show that other users are served")
	}
	for addr, hosts := range hosts {
		c := serveChoosy(t, addr)
		for _, host := range hosts {
			c.user.Store(-1)
			if !c.connect(t, refused, host) {
				if strings.Contains(host, ":") {
					continue // no IPv6 here
				}
				t.Fatalf("%s: nobody is served", host)
			}
			c.user.Store(int64(refused))
			before := c.refused.Load()
			if c.connect(t, refused, host) || c.refused.Load() != before+1 {
				t.Errorf("%s: user %d is served, or not counted: %d", host, refused, c.refused.Load()-before)
			}
			for _, uid := range served {
				if !c.connect(t, uid, host) {
					t.Errorf("%s: user %d is refused", host, uid)
				}
			}
		}
		if c.Close(); c.logged.Len() > 0 {
			t.Error(c.logged.String())
		}
	}
}

// A socket that is bound to a device is not found by its addresses alone, and is refused for that.
func TestSocketOfADeviceIsRefused(t *testing.T) {
	c := serveChoosy(t, "127.0.0.1:0")
	c.user.Store(12345) // nobody here
	bind := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "lo") })
		return err
	}}
	for _, test := range []struct {
		dialer net.Dialer
		served bool
	}{{net.Dialer{}, true}, {bind, false}} {
		conn, err := test.dialer.DialContext(context.Background(), "tcp", c.Addr().String())
		if err != nil {
			t.Skip(err) // before Linux 5.7 only root may bind to a device
		}
		got, _ := io.ReadAll(conn)
		_ = conn.Close()
		if served := len(got) > 0; served != test.served {
			t.Errorf("bound to a device: %v, served: %v", !test.served, served)
		}
	}
}

// The owner is the one who made the socket, whoever holds it.
func TestSocketOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make sockets of another user")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var conn net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with its user
		if err = unix.Setfsuid(1234); err == nil {
			conn, err = net.Dial("tcp", l.Addr().String())
		}
	}()
	if <-done; err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	local, _ := addrPort(conn.LocalAddr())
	remote, _ := addrPort(conn.RemoteAddr())
	if uid, err := socketOwner(local, remote); err != nil || uid != 1234 {
		t.Errorf("%d, %v", uid, err)
	}
	if uid, err := socketOwner(remote, local); err != nil || uid != 0 {
		t.Errorf("the other end: %d, %v", uid, err)
	}
}
