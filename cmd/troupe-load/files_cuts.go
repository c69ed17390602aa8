package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// measureCutTransfers moves a file up and down, over three cuts, after each of which another pod takes the
// client's connection. It prints what was sent twice, and by how much the programs grew.
func measureCutTransfers(ctx context.Context, e *env) error {
	size := int64(5e9)
	if e.quick {
		size /= 50
	}
	pods, stop, err := e.startPeers(ctx)
	if err != nil {
		return err
	}
	defer stop()
	client, err := pods[0].dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	link, err := cutLink(pods)
	if err != nil {
		return err
	}
	defer link.close()
	files, err := troupe.NewFiles("ws://"+link.listener.Addr().String()+"/ws", client.ID(), troupe.Options{
		Backoff: troupe.Backoff{Initial: time.Millisecond, Max: 20 * time.Millisecond},
	})
	if err != nil {
		return err
	}
	defer files.Close()
	upload := func(size int64) error {
		_, err := files.Upload(ctx, "f", size, func(offset int64) (io.ReadCloser, error) {
			return newNoise(offset, size), nil
		}, troupe.UploadOptions{})
		return err
	}
	// What a program has after its first transfers is not growth: Go lets as much be garbage as it holds.
	for range pods {
		if err := upload(64 << 20); err != nil {
			return err
		}
		if err := files.Download(ctx, "f", io.Discard, nil); err != nil {
			return err
		}
		files.Close() // the next connection goes to the next pod
	}
	watched, err := watchMemory(pods)
	if err != nil {
		return err
	}
	sum := sha256.New()
	err = errors.Join(
		link.measure("up", size, func() error { return upload(size) }),
		link.measure("down", size, func() error { return files.Download(ctx, "f", sum, nil) }),
	)
	if err := errors.Join(err, watched.report()); err != nil {
		return err
	}
	want := sha256.New()
	if _, err := io.Copy(want, newNoise(0, size)); err != nil {
		return err
	}
	if string(want.Sum(nil)) != string(sum.Sum(nil)) {
		return errors.New("what came back is not what was sent")
	}
	return nil
}

// noise is content in which no two pieces are the same, and which costs little to make: a block of random
// bytes, with its number at the begin.
type noise struct {
	block    []byte
	pos, end int64
}

const noiseBlock = 256 << 10

func newNoise(pos, end int64) io.ReadCloser {
	n := &noise{block: make([]byte, noiseBlock), pos: pos, end: end}
	rand.NewChaCha8([32]byte{1}).Read(n.block) //nolint:errcheck // never fails
	return io.NopCloser(n)
}

func (n *noise) Read(p []byte) (int, error) {
	if n.pos == n.end {
		return 0, io.EOF
	}
	at := int(n.pos % noiseBlock)
	copy(n.block, fmt.Sprintf("%16d", n.pos/noiseBlock))
	read := copy(p[:min(int64(len(p)), n.end-n.pos)], n.block[at:])
	n.pos += int64(read)
	return read, nil
}

// link passes connections on to one pod after the other, and cuts those that carry much.
type link struct {
	listener net.Listener
	pods     []*server
	all      sync.WaitGroup

	carried, cuts atomic.Int64
	every         atomic.Int64 // bytes after which a connection is cut
	left          atomic.Int64 // cuts
}

func cutLink(pods []*server) (*link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{listener: listener, pods: pods}
	l.all.Go(func() {
		for turn := 0; ; turn++ {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			address := strings.TrimSuffix(strings.TrimPrefix(pods[turn%len(pods)].ws, "ws://"), "/ws")
			out, err := net.Dial("tcp", address)
			if err != nil {
				in.Close()
				continue
			}
			l.all.Go(func() { l.pass(in, out) })
			l.all.Go(func() { l.pass(out, in) })
		}
	})
	return l, nil
}

func (l *link) close() {
	l.listener.Close()
	l.all.Wait()
}

// pass copies until either end is closed, or it is time for a cut.
func (l *link) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for passed := int64(0); ; {
		n, err := from.Read(buf)
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
		passed += int64(n)
		l.carried.Add(int64(n))
		if passed > l.every.Load() && l.left.Add(-1) >= 0 {
			l.cuts.Add(1)
			return
		}
	}
}

// measure runs a transfer over three cuts.
func (l *link) measure(direction string, size int64, transfer func() error) error {
	const cuts = 3
	l.carried.Store(0)
	l.cuts.Store(0)
	l.every.Store(size / (cuts + 1))
	l.left.Store(cuts)
	began := time.Now()
	if err := transfer(); err != nil {
		return fmt.Errorf("%s: %w", direction, err)
	}
	took := time.Since(began)
	what := fmt.Sprintf("%.1f GB %s over %d cuts and pods", float64(size)/1e9, direction, l.cuts.Load())
	report(what, fmt.Sprintf("%.0f MB/s", float64(size)/took.Seconds()/1e6), "", true)
	twice := l.carried.Load() - size
	report("sent twice, with headers", mib(twice), "< 12 MiB", twice < 12<<20 && l.cuts.Load() == cuts)
	return nil
}

// memories are the programs whose memory is watched.
type memories struct {
	before map[int]int64  // resident, by pid
	names  map[int]string // of these

	stop     chan struct{}
	done     chan struct{}
	transfer int64 // the most of a troupe-files
}

// watchMemory begins with what the pods and their runners have now.
func watchMemory(pods []*server) (*memories, error) {
	m := &memories{before: map[int]int64{}, names: map[int]string{}, stop: make(chan struct{}), done: make(chan struct{})}
	for _, s := range pods {
		runner, err := s.runnerPID()
		if err != nil {
			return nil, err
		}
		m.names[s.cmd.Process.Pid], m.names[runner] = "trouped", "troupe-runner"
	}
	for pid := range m.names {
		// Forgets the peak (https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html).
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			return nil, err
		}
		rss, err := statusField(pid, "VmRSS")
		if err != nil {
			return nil, err
		}
		m.before[pid] = rss
	}
	go func() {
		defer close(m.done)
		for {
			select {
			case <-m.stop:
				return
			case <-time.After(200 * time.Millisecond):
				m.transfer = max(m.transfer, largest("troupe-files"))
			}
		}
	}()
	return m, nil
}

// largest returns the peak of the largest process of that name.
func largest(name string) (most int64) {
	processes, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, file := range processes {
		if comm, _ := os.ReadFile(file); strings.TrimSpace(string(comm)) != name {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(file, "/")[2]); err == nil {
			peak, _ := statusField(pid, "VmHWM") // it may have ended
			most = max(most, peak)
		}
	}
	return most
}

func (m *memories) report() error {
	close(m.stop)
	<-m.done
	grown := map[string]int64{}
	for pid, name := range m.names {
		peak, err := statusField(pid, "VmHWM")
		if err != nil {
			return err
		}
		grown[name] = max(grown[name], peak-m.before[pid])
	}
	for _, name := range []string{"trouped", "troupe-runner"} {
		report("growth of "+name+" meanwhile, the most of three pods", mib(grown[name]), "< 16 MiB", grown[name] < 16<<20)
	}
	report("the largest troupe-files", mib(m.transfer), "< 32 MiB", m.transfer < 32<<20)
	return nil
}

// runnerPID reads it from the log.
func (s *server) runnerPID() (int, error) {
	said, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(said)) {
		var up struct {
			Msg string
			PID int
		}
		if json.Unmarshal([]byte(line), &up) == nil && up.Msg == "runner is up" {
			return up.PID, nil
		}
	}
	return 0, errors.New("the log has no runner")
}
