package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// websocketdModule is the go.mod of a separate module that builds websocketd, so that troupe does
// not depend on it. It pins a released version, which keeps the figures comparable.
const websocketdModule = `module peer

go 1.26

require github.com/joewalnes/websocketd v0.4.1
`

// measureWebsocketd compares connect → completed of /bin/true with websocketd, which starts one
// program for each connection, copies its output line by line and closes the connection at its end.
// The same bare client measures both, and also a bare server, whose time is the floor for every
// server that starts the command only when a client asks for it.
func measureWebsocketd(ctx context.Context, e *env) error {
	dir, err := os.MkdirTemp("", "troupe-load-websocketd-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary, err := buildWebsocketd(ctx, dir)
	if err != nil {
		fmt.Printf("  skipped: %v\n", err)
		return nil
	}
	peer, stop, err := startWebsocketd(ctx, binary, "/bin/true")
	if err != nil {
		return err
	}
	defer stop()
	s, err := e.start()
	if err != nil {
		return err
	}
	defer s.stop()
	bare, stopBare, err := startHelper(bareServerArg)
	if err != nil {
		return err
	}
	defer stopBare()
	rounds := 60
	if e.quick {
		rounds = 3
	}
	var theirs, least, ours samples
	for range rounds {
		if err := timed(&theirs, 0, func() error { return untilClosed(ctx, peer) }); err != nil {
			return fmt.Errorf("websocketd: %w", err)
		}
		time.Sleep(refill)
		if err := timed(&least, 0, func() error { return connectTrue(ctx, bare) }); err != nil {
			return fmt.Errorf("bare server: %w", err)
		}
		time.Sleep(refill)
		if err := timed(&ours, 0, func() error { return connectTrue(ctx, s.ws) }); err != nil {
			return err
		}
		time.Sleep(refill)
	}
	const what = "ratio to websocketd"
	r := ratio(ours.median(), theirs.median())
	report("websocketd, connect to the end of /bin/true, median", ms(theirs.median()), "", true)
	report("a bare server that runs what it is asked to, median", ms(least.median()), "", true)
	report(what, fmt.Sprintf("%.2f", ratio(least.median(), theirs.median())), "", true)
	report("troupe, connect to process.completed of /bin/true, median", ms(ours.median()), "", true)
	report(what, fmt.Sprintf("%.2f", r), "<= 1.00", r <= 1)
	return nil
}

// buildWebsocketd builds websocketd with the flags of `make build`.
func buildWebsocketd(ctx context.Context, dir string) (string, error) {
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(websocketdModule), 0o600); err != nil {
		return "", err
	}
	// It uses its own module rather than `go install`, which also queries newer versions.
	build := exec.CommandContext(ctx, "go", "build", "-mod=mod", "-trimpath", "-ldflags", "-s -w",
		"-o", "websocketd", "github.com/joewalnes/websocketd")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if said, err := build.CombinedOutput(); err != nil {
		last := strings.Split(strings.TrimSpace(string(said)), "\n")
		return "", fmt.Errorf("websocketd cannot be built here: %w: %s", err, last[len(last)-1])
	}
	return filepath.Join(dir, "websocketd"), nil
}

// startWebsocketd starts websocketd on a free port of loopback. args are its options and the command
// that it runs.
func startWebsocketd(ctx context.Context, binary string, args ...string) (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr := l.Addr().String()
	_ = l.Close() // websocketd does not accept port 0
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", nil, err
	}
	args = append([]string{"--address=127.0.0.1", "--port=" + port, "--loglevel=fatal"}, args...)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	for range 250 {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return "ws://" + addr + "/", stop, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	return "", nil, fmt.Errorf("websocketd does not listen on %s", addr)
}

// untilClosed connects and reads until the server closes the connection.
func untilClosed(ctx context.Context, url string) error {
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	for {
		if _, _, err := ws.Read(ctx); err != nil {
			if errors.Is(err, io.EOF) { // websocketd closes without a close frame
				return nil
			}
			return err
		}
	}
}

// connectTrue connects, sends execute without waiting for connected, and reads until
// process.completed.
func connectTrue(ctx context.Context, url string) error {
	ws, response, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("status %s", response.Status)
	}
	if err := bareTrue(ctx, ws); err != nil {
		_ = ws.CloseNow()
		return err
	}
	go ws.Close(websocket.StatusNormalClosure, "") // ends the session, outside the measured time
	return nil
}
