package main

import (
	"bytes"
	"context"
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

	"github.com/troupe-dev/troupe/actors/wire"
)

// size is the output of the throughput measurement: the default limit, in lines of 80 bytes.
const size = 10 << 20

// rawServerArg makes this program the baseline's server.
const rawServerArg = "raw-server"

// measureThroughput sends 10 MiB of 80-byte lines from a command to a client: through troupe, and
// through a server that copies the same pipe into 64 KiB WebSocket frames and does nothing else.
// Each server is a separate process.
func measureThroughput(ctx context.Context, e *env) error {
	s, err := e.start()
	if err != nil {
		return err
	}
	defer s.stop()
	file := filepath.Join(s.dir, "lines")
	if err := os.WriteFile(file, bytes.Repeat([]byte(strings.Repeat("x", 79)+"\n"), size/80), 0o600); err != nil {
		return err
	}
	rawURL, stopRaw, err := startHelper(rawServerArg, file)
	if err != nil {
		return err
	}
	defer stopRaw()
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	rounds := 15
	if e.quick {
		rounds = 2
	}
	var ours, base samples
	for range rounds {
		began := time.Now()
		if err := readRaw(ctx, rawURL); err != nil {
			return err
		}
		base = append(base, time.Since(began))
		n := &counter{}
		began = time.Now()
		done, err := c.Run(ctx, wire.ExecuteParams{
			Argv: []string{"/bin/cat", file}, Framing: wire.FramingLines, Encoding: wire.EncodingUTF8, // the protocol's defaults
		}, n, io.Discard)
		if err != nil {
			return err
		}
		ours = append(ours, time.Since(began))
		if n.n != size || done.OutputBytes != size {
			return fmt.Errorf("received %d bytes of %d: %+v", n.n, size, done)
		}
	}
	rate := func(d time.Duration) string { return fmt.Sprintf("%.0f MB/s", size/d.Seconds()/1e6) }
	r := ratio(base.median(), ours.median())
	report("pipe copied into 64 KiB frames, 10 MiB of 80-byte lines, median", rate(base.median()), "", true)
	report("troupe, the same, median", rate(ours.median()), "", true)
	report("share of the raw rate", fmt.Sprintf("%.0f %%", 100*r), ">= 80 %", r >= 0.8)
	return nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// rawServer serves the baseline: each connection gets the output of cat, one frame for each read.
func rawServer(file string) error {
	return serveHelper(func(w http.ResponseWriter, r *http.Request) {
		if err := copyPipe(w, r, file); err != nil {
			fmt.Fprintln(os.Stderr, "raw server:", err)
		}
	})
}

// serveHelper serves on a free port, which it prints, until stdin ends.
func serveHelper(handler http.HandlerFunc) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: handler}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
		_ = srv.Close()
	}()
	if err := srv.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func copyPipe(w http.ResponseWriter, r *http.Request, file string) error {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	cmd := exec.CommandContext(r.Context(), "/bin/cat", file)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := pipe.Read(buf)
		if n > 0 {
			if err := ws.Write(r.Context(), websocket.MessageBinary, buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	_ = ws.Close(websocket.StatusNormalClosure, "") // the client may have left after the last byte
	return nil
}

// startHelper starts a baseline's server as a separate process: this program with args.
func startHelper(args ...string) (url string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	var addr string
	if _, err := fmt.Fscanln(stdout, &addr); err != nil {
		return "", nil, err
	}
	return "ws://" + addr, func() { stdin.Close(); _ = cmd.Wait() }, nil
}

func readRaw(ctx context.Context, url string) error {
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	ws.SetReadLimit(-1)
	total := 0
	buf := make([]byte, 64<<10)
	for total < size {
		_, r, err := ws.Reader(ctx)
		if err != nil {
			return err
		}
		for {
			n, err := r.Read(buf)
			total += n
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
