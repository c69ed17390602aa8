package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// delayedLinkArg makes this program measure over a link with a delay, in its own network namespace.
const delayedLinkArg = "delayed-link"

// linkDelay is the round-trip time of the link.
const linkDelay = 50 * time.Millisecond

// The two ends of the link. Both are on this machine: see reflect.
const (
	linkLocal  = "10.98.0.1"
	linkRemote = "10.98.0.2"
)

// measureRoundTrips counts the round trips of `troupe exec` over a link with a delay. It needs a
// network namespace and a TUN device, and therefore usually root.
func measureRoundTrips(ctx context.Context, e *env) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{delayedLinkArg, filepath.Dir(e.trouped)}
	if e.quick {
		args = append(args, "quick")
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		fmt.Printf("  skipped: round trips over a link with delay (network namespace: %v)\n", err)
		return nil
	}
	return cmd.Wait()
}

// delayedLink is what this program runs in the network namespace.
func delayedLink(args []string) error {
	e, err := newEnv(args[0], len(args) > 1)
	if err != nil {
		return err
	}
	tun, err := openLink()
	if err != nil {
		fmt.Printf("  skipped: round trips over a link with delay (%v)\n", err)
		return nil
	}
	defer tun.Close()
	go reflect(tun)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := e.start("--listen", linkLocal+":0", "--auth", "none-insecure")
	if err != nil {
		return err
	}
	defer s.stop()
	_, port, err := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(s.ws, "ws://"), "/ws"))
	if err != nil {
		return err
	}
	return countRoundTrips(ctx, e, s, net.JoinHostPort(linkRemote, port))
}

// countRoundTrips runs the same commands with and without the delay. The difference, divided by the
// delay, is the number of round trips.
func countRoundTrips(ctx context.Context, e *env, s *server, remote string) error {
	rounds := 15
	if e.quick {
		rounds = 2
	}
	var upgrade samples
	var local, delayed firstAndEnd
	for range rounds {
		began := time.Now()
		if err := upgradeOnly(ctx, remote); err != nil {
			return err
		}
		upgrade = append(upgrade, time.Since(began))
		if err := local.run(ctx, e, s, s.ws); err != nil {
			return err
		}
		if err := delayed.run(ctx, e, s, "ws://"+remote+"/ws"); err != nil {
			return err
		}
	}
	trips := func(d time.Duration) float64 { return float64(d) / float64(linkDelay) }
	// Half a round trip of tolerance allows for the scheduler: a whole one would still show.
	most := trips(upgrade.median()) + 1.5
	show := func(what string, n float64, target string) {
		report(what+", round trips of "+linkDelay.String(), fmt.Sprintf("%.2f", n), target, n <= most)
	}
	show("TCP connection and HTTP upgrade", trips(upgrade.median()), "")
	show("troupe exec -- echo, to the output", trips(delayed.first.median()-local.first.median()),
		fmt.Sprintf("<= %.2f", most))
	show("the same, to its end and the session's", trips(delayed.end.median()-local.end.median()), "")
	return nil
}

// firstAndEnd holds the times from the start of troupe to its first output and to its end.
type firstAndEnd struct{ first, end samples }

func (f *firstAndEnd) run(ctx context.Context, e *env, s *server, url string) error {
	cmd := exec.CommandContext(ctx, e.troupe, "--server", url, "exec", "--", "echo")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + s.dir}
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	_, readErr := stdout.Read(make([]byte, 1))
	f.first = append(f.first, time.Since(began))
	err = cmd.Wait()
	f.end = append(f.end, time.Since(began))
	return errors.Join(readErr, err)
}

// upgradeOnly connects, asks for the upgrade and reads the status line.
func upgradeOnly(ctx context.Context, addr string) error {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, upgradeRequest, addr); err != nil {
		return err
	}
	status, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.Contains(status, " 101 ") {
		err = fmt.Errorf("upgrade: %q", status)
	}
	if err != nil {
		return err
	}
	// Close code 1000, masked with zeros: the session ends with it.
	_, err = c.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8})
	return err
}

// openLink creates the link's TUN device and brings it and loopback up.
func openLink() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	const name = "troupe0"
	device, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	device.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, device); err != nil {
		return nil, fmt.Errorf("TUN device: %w", err)
	}
	if err := errorsOf(
		func() error { return setInterface(name, unix.SIOCSIFADDR, linkLocal) },
		func() error { return setInterface(name, unix.SIOCSIFNETMASK, "255.255.255.0") },
		func() error { return raiseInterface(name) },
		func() error { return raiseInterface("lo") },
	); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func setInterface(name string, request uint, addr string) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := r.SetInet4Addr(net.ParseIP(addr).To4()); err != nil {
		return err
	}
	return interfaceRequest(request, r)
}

func raiseInterface(name string) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return interfaceRequest(unix.SIOCSIFFLAGS, r)
}

func interfaceRequest(request uint, r *unix.Ifreq) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.IoctlIfreq(fd, request, r); err != nil {
		return fmt.Errorf("interface %s: %w", r.Name(), err)
	}
	return nil
}

// reflect returns every packet after half the delay with its addresses exchanged: a packet sent to
// linkRemote arrives at linkLocal as if it came from linkRemote. Checksums stay valid, because
// exchanging the addresses does not change the sum.
//
// tc-netem(8) would also work, but many kernels are built without it.
func reflect(tun *os.File) {
	type held struct {
		due    time.Time
		packet []byte
	}
	line := make(chan held, 4096)
	go func() {
		for h := range line {
			time.Sleep(time.Until(h.due))
			_, _ = tun.Write(h.packet) // a failed write loses the packet, as any link may
		}
	}()
	defer close(line)
	buf := make([]byte, 64<<10)
	for {
		n, err := tun.Read(buf)
		if err != nil {
			return
		}
		p := append([]byte(nil), buf[:n]...)
		if n < 20 || p[0]>>4 != 4 {
			continue // IPv6 neighbour discovery
		}
		for i := 12; i < 16; i++ {
			p[i], p[i+4] = p[i+4], p[i]
		}
		line <- held{time.Now().Add(linkDelay / 2), p}
	}
}

func errorsOf(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
