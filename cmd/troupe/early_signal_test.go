//go:build linux

package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// muted forwards connections to a server, but of what the server says only its answer to the
// upgrade. It returns its address.
func muted(t *testing.T, server string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := new(net.Dialer).DialContext(t.Context(), "tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			wg.Go(func() {
				_, _ = io.Copy(upstream, client) // until the client hangs up
				client.Close()
				upstream.Close()
			})
			wg.Go(func() {
				var heard []byte
				for buf := make([]byte, 1); !bytes.HasSuffix(heard, []byte("\r\n\r\n")); {
					if _, err := upstream.Read(buf); err != nil {
						return
					}
					heard = append(heard, buf...)
				}
				_, _ = client.Write(heard)
				_, _ = io.Copy(io.Discard, upstream)
				client.Close()
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// TestInterruptBeforeTheAnswerLeavesNothing: the command may have been started although its answer
// has not come yet.
func TestInterruptBeforeTheAnswerLeavesNothing(t *testing.T) {
	s := launch(t)
	file := filepath.Join(t.TempDir(), "pid")
	p := troupeCmd(t, home(t, muted(t, s.listen)), "exec", "--",
		"sh", "-c", `echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 60`, file).start()
	var pid int
	eventually(t, "the command runs", func() bool {
		b, err := os.ReadFile(file)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		return err == nil
	})
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 130 || p.stderr.String() != "troupe: interrupted\n" {
		t.Errorf("code %d, %q", code, p.stderr)
	}
	eventually(t, "the command is dead", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
}

// TestStartInDoubtIsNotRepeated: --wait must not run a command a second time after a connection that
// broke when the command had been sent.
func TestStartInDoubtIsNotRepeated(t *testing.T) {
	s := launch(t)
	log := filepath.Join(t.TempDir(), "log")
	proxy := muted(t, s.listen)
	p := troupeCmd(t, home(t, proxy), "exec", "--wait", "10s", "--", "sh", "-c", `echo run >> "$0"; exec sleep 60`, log)
	p.start()
	eventually(t, "the command runs", func() bool { b, _ := os.ReadFile(log); return len(b) > 0 })
	s.kill()
	launch(t, "--listen", s.listen)
	code := p.exit()
	b, err := os.ReadFile(log)
	if code != 125 || string(b) != "run\n" || err != nil || !strings.Contains(p.stderr.String(), "it was not sent again") {
		t.Errorf("code %d, %q, log %q, %v", code, p.stderr, b, err)
	}
}
