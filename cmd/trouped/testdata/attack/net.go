//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dial connects, and expects the secret.
func dial(network string, address func(*victim) string) func(*victim) error {
	return func(v *victim) error {
		c, err := net.DialTimeout(network, address(v), time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if strings.HasPrefix(network, "udp") {
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
		}
		text := make([]byte, len(secret))
		_, err = io.ReadFull(c, text)
		if err == nil && string(text) != secret {
			return errNothing
		}
		return err
	}
}

func bindUnix(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
}

func get(address func(*victim) string, path string) func(*victim) error {
	client := &http.Client{Timeout: 3 * time.Second}
	return func(v *victim) error {
		answer, err := client.Get("http://" + address(v) + path)
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) { // which of them depends on who is faster
			return errors.New("closed")
		}
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", answer.Status)
		}
		return nil
	}
}

func socket(domain, kind, proto int) func(*victim) error {
	return func(*victim) error {
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, proto)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

// listen tries to take an address. That it is in use already is what should happen, whatever
// separates sessions, unless it is free.
func listen(address string) error {
	l, err := net.Listen("tcp", address)
	if err == nil {
		_ = l.Close()
	}
	return err
}

func netAttempts() []attempt {
	return []attempt{
		{"unix: connect by path", dial("unix", func(v *victim) string { return v.Unix })},
		{"unix: connect by abstract name", dial("unix", func(v *victim) string { return v.Abstract })},
		{"unix: send to an abstract name", func(v *victim) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrUnix{Name: v.Datagram})
		}},
		{"unix: bind an abstract name", func(*victim) error { return bindUnix(fmt.Sprintf("@attack-%d", os.Getpid())) }},
		{"tcp: connect", func(v *victim) error { return get(func(v *victim) string { return v.TCP }, "/")(v) }},
		{"tcp: bind a port", func(*victim) error { return listen("127.0.0.1:0") }},
		{"udp: ask", dial("udp", func(v *victim) string { return v.UDP })},
		{"net: list sockets by netlink", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_INET_DIAG)},
		{"net: raw socket", socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)},
		{"net: packet socket", socket(unix.AF_PACKET, unix.SOCK_RAW, 0)},
	}
}

func serverAttempts() []attempt {
	admin := func(v *victim) string { return v.Admin }
	server := func(v *victim) string { return v.Server }
	return []attempt{
		{"server: GET /metrics", get(admin, "/metrics")},
		{"server: GET /readyz", get(admin, "/readyz")},
		{"server: GET /debug/pprof/heap", get(admin, "/debug/pprof/heap")},
		{"server: GET /health", get(server, "/health")},
		{"server: GET /ws without a token", get(server, "/ws")},
		{"server: its data", func(v *victim) error { return list(v.Data) }},
		{"server: its tokens", func(v *victim) error { return readFile(v.Tokens) }},
		{"runner: connect to its socket", func(v *victim) error {
			c, err := net.DialTimeout("unix", v.Socket, time.Second)
			if err == nil {
				_ = c.Close()
			}
			return err
		}},
		{"runner: take its lock", func(v *victim) error {
			return opened(v.Lock, unix.O_RDONLY, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
		}},
		{"runner: create beside its socket", func(v *victim) error {
			return write(filepath.Join(filepath.Dir(v.Socket), "evil"), os.O_CREATE, "x")
		}},
		{"runner: list the directory of its socket", func(v *victim) error { return list(filepath.Dir(v.Socket)) }},
		{"runner: write its program", func(v *victim) error { return openOnly(v.Binary, unix.O_WRONLY) }},
		{"runner: create beside its program", func(v *victim) error {
			return write(filepath.Join(filepath.Dir(v.Binary), "evil"), os.O_CREATE, "x")
		}},
	}
}
