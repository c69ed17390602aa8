package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// bigFile is the size of the file of measurePipe, in bytes.
const bigFile = 1 << 30

// measurePipe compares `troupe exec -- cat FILE > /dev/null` with a pipe, with ssh, and with
// websocketd. All of them read the same file from the page cache.
func measurePipe(ctx context.Context, e *env) error {
	s, err := e.start()
	if err != nil {
		return err
	}
	defer s.stop()
	size, rounds := int64(bigFile), 3
	if e.quick {
		size, rounds = bigFile/16, 1
	}
	file := filepath.Join(s.dir, "file")
	if err := writeFile(file, size); err != nil {
		return err
	}
	ways := []*way{
		{name: "cat FILE | cat", argv: []string{"/bin/sh", "-c", `cat "$0" | cat`, file}},
		{name: "troupe exec -- cat FILE", argv: []string{e.troupe, "--server", s.ws, "exec", "--", "cat", file}},
	}
	if sshd, err := startSSH(ctx, s.dir); err != nil {
		fmt.Printf("  skipped: ssh (%v)\n", err)
	} else {
		defer sshd.stop()
		ways = append(ways, &way{name: "ssh HOST cat FILE", argv: sshd.command("cat " + file)})
	}
	if peer, stop, err := binaryWebsocketd(ctx, s.dir, file); err != nil {
		fmt.Printf("  skipped: websocketd (%v)\n", err)
	} else {
		defer stop()
		ways = append(ways, &way{name: "websocketd --binary cat FILE", url: peer})
	}
	for range rounds {
		for _, w := range ways {
			if err := w.measure(ctx, s.dir, size); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
	}
	reportPipe(ways, size)
	return nil
}

func reportPipe(ways []*way, size int64) {
	pipe, ours := ways[0], ways[1]
	for _, w := range ways {
		rate := float64(size) / w.took.median().Seconds() / 1e6
		report(fmt.Sprintf("%s > /dev/null, %d MiB, median", w.name, size>>20), fmt.Sprintf("%.0f MB/s", rate), "", true)
	}
	for _, w := range ways {
		if w == ours {
			continue
		}
		r, target, met := ratio(w.took.median(), ours.took.median()), "", true
		switch {
		case w == pipe && float64(size)/pipe.took.median().Seconds() < 1e9:
			target, met = ">= 0.70", r >= 0.7
		case strings.HasPrefix(w.name, "ssh"):
			target, met = ">= 3.00", r >= 3
		}
		report("troupe's rate against that of "+w.name, fmt.Sprintf("%.2f", r), target, met)
	}
}

// way is one way to move a file through a command.
type way struct {
	name string
	argv []string // writes the file to its stdout
	url  string   // instead of argv: a WebSocket that sends the file
	took samples
}

func (w *way) measure(ctx context.Context, home string, size int64) error {
	began := time.Now()
	var err error
	if w.url != "" {
		err = readMessages(ctx, w.url, size)
	} else {
		err = w.run(ctx, home)
	}
	w.took = append(w.took, time.Since(began))
	return err
}

// run runs argv with its output to /dev/null. It does not count the output, which would need another
// process that reads all of it: a program that loses some says so.
func (w *way) run(ctx context.Context, home string) error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	cmd := exec.CommandContext(ctx, w.argv[0], w.argv[1:]...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + home}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = null, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, &said)
	}
	if said.Len() > 0 {
		return errors.New(said.String())
	}
	return nil
}

// readMessages connects, and reads size bytes until the server closes.
func readMessages(ctx context.Context, url string, size int64) error {
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	ws.SetReadLimit(-1)
	var n int64
	buf := make([]byte, 64<<10)
	for {
		_, r, err := ws.Reader(ctx)
		if errors.Is(err, io.EOF) && n == size { // websocketd closes without a close frame
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d bytes of %d: %w", n, size, err)
		}
		for err == nil {
			var m int
			m, err = r.Read(buf)
			n += int64(m)
		}
		if err != io.EOF { //nolint:errorlint // a reader returns io.EOF itself
			return err
		}
	}
}

// writeFile writes a file of random bytes, which no encoding or compression makes smaller. They
// repeat after 1 MiB.
func writeFile(name string, size int64) error {
	block := make([]byte, 1<<20)
	_, _ = rand.Read(block) // never fails
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	for ; size > 0 && err == nil; size -= int64(len(block)) {
		_, err = f.Write(block)
	}
	return errors.Join(err, f.Close())
}

// binaryWebsocketd starts websocketd, which sends a file to each client.
func binaryWebsocketd(ctx context.Context, dir, file string) (url string, stop func(), err error) {
	binary, err := buildWebsocketd(ctx, dir)
	if err != nil {
		return "", nil, err
	}
	return startWebsocketd(ctx, binary, "--binary", "/bin/cat", file)
}
