package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// Bounds of what an execution with retain unread costs the server, however much it prints.
const (
	pipeMemory = 8 << 20
	// For a pod that has served nothing before: Go collects after about 20 MB of garbage (see tuneMemory).
	relayedPipeMemory = 32 << 20
	pipeDisk          = 4 << 20
)

// impatient reconnects at once.
var impatient = troupe.Options{Backoff: troupe.Backoff{Initial: time.Millisecond, Max: 20 * time.Millisecond}}

// diskUse returns the bytes in the server's data directory.
func (s *instance) diskUse() (n int64) {
	_ = filepath.WalkDir(s.data, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil { // it may be gone
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// costWatch samples what a server uses until stop is called.
func (s *instance) costWatch() (stop func() (memory, disk int64)) {
	before := s.memory("VmRSS")
	done, ended := make(chan struct{}), make(chan struct{})
	var memory, disk int64
	go func() {
		defer close(ended)
		for {
			memory, disk = max(memory, s.memory("VmRSS")-before), max(disk, s.diskUse())
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() (int64, int64) {
		close(done)
		<-ended
		return memory, disk
	}
}

// TestPipeLosesNothingOverCuts: 200 MB through three cuts, from the pod that runs the command and
// through one that only relays, arrive whole, and cost the server next to nothing.
func TestPipeLosesNothingOverCuts(t *testing.T) {
	const size = 200 << 20
	want := sha256.New()
	line := "the quick brown fox jumps over the lazy dog\n"
	_, _ = io.CopyN(want, &repeated{text: line}, size)
	command := fmt.Sprintf("yes '%s' | head -c %d", strings.TrimSpace(line), size)
	f := launchFleet(t)
	for name, target := range map[string]func() string{
		"local": f.pods[0].addr, "through any pod": f.roundRobin(),
	} {
		t.Run(name, func(t *testing.T) {
			// The servers are then as large as they get by themselves.
			throughCuts(t, target, "head -c 40000000 /dev/zero", 40_000_000, io.Discard)
			var stops []func() (int64, int64)
			for _, s := range f.pods {
				stops = append(stops, s.costWatch())
			}
			got := sha256.New()
			throughCuts(t, target, command, size, got)
			for i, stop := range stops {
				memory, disk := stop()
				t.Logf("pod-%d: %d kB more memory, %d kB on disk", i, memory>>10, disk>>10)
				bound := int64(pipeMemory)
				if name != "local" {
					bound = relayedPipeMemory
				}
				if memory > bound && !raceDetector || disk > pipeDisk {
					t.Errorf("pod-%d took %d bytes of memory and %d of disk", i, memory, disk)
				}
			}
			if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				t.Error("the output differs from what was written")
			}
		})
	}
}

// throughCuts runs a command that prints size bytes, over three cuts, and copies what it prints to w.
func throughCuts(t *testing.T, target func() string, command string, size int64, w io.Writer) {
	t.Helper()
	cutting := newProxyTo(t, target, 3, size/8)
	c, err := troupe.Dial(t.Context(), cutting.ws(), impatient)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
	defer cancel()
	done, err := c.Run(ctx, wire.ExecuteParams{Command: command, Retain: wire.RetainUnread}, w, io.Discard)
	if err != nil || done.OutputBytes != size || done.DroppedBytes != 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	if n := cutting.cuts.Load(); n != 3 {
		t.Errorf("%d cuts", n)
	}
}

// repeated is a text without end.
type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		n += copy(p[n:], r.text[(r.at+n)%len(r.text):])
	}
	r.at += n
	return n, nil
}

// cutNow closes every connection.
func (p *proxy) cutNow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close()
		delete(p.open, c)
	}
}

// TestInputArrivesOnceOverTwentyCuts: the connection breaks in the midst of input, 20 times, and the
// command reads each byte once.
func TestInputArrivesOnceOverTwentyCuts(t *testing.T) {
	const cuts, size = 20, 24 << 20
	f := launchFleet(t)
	for name, target := range map[string]func() string{
		"local": f.pods[0].addr, "through any pod": f.roundRobin(),
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxyTo(t, target, 0, 1)
			c, err := troupe.Dial(t.Context(), p.ws(), impatient)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			e, err := c.Execute(t.Context(), wire.ExecuteParams{
				Command: "cat | sha256sum", Stdin: true, Retain: wire.RetainUnread, Framing: wire.FramingRaw,
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
			defer cancel()
			data := make([]byte, size)
			_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
			for part := range cuts {
				cut := time.AfterFunc(time.Duration(rand.IntN(5000))*time.Microsecond, p.cutNow)
				from, to := part*size/cuts, (part+1)*size/cuts
				if n, err := e.Input(ctx, data[from:to]); err != nil {
					t.Fatalf("part %d: %d bytes, %v", part, n, err)
				}
				if cut.Stop() {
					p.cutNow()
				}
			}
			if err := e.CloseInput(ctx); err != nil {
				t.Error(err)
			}
			var out strings.Builder
			done, err := e.Copy(ctx, &out, io.Discard)
			sum := sha256.Sum256(data)
			if err != nil || done.ExitCode != 0 || out.String() != hex.EncodeToString(sum[:])+"  -\n" {
				t.Errorf("%+v, %v: %q, want %x", done, err, out.String(), sum)
			}
		})
	}
}
