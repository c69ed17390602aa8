package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// progressBar shows on a terminal how far a copy is. It is redrawn in place, at most ten times a
// second.
type progressBar struct {
	app *app
	on  bool

	mu    sync.Mutex
	name  string
	size  int64 // -1: unknown
	began time.Time
	drawn time.Time
	n     int64
}

func newProgressBar(a *app, quiet bool) *progressBar {
	return &progressBar{app: a, on: !quiet && shown(a.stderr)}
}

// shown reports whether w is a terminal.
func shown(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && terminal(f)
}

func (b *progressBar) begin(name string, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.name, b.size, b.began = visible(name), size, time.Now()
}

// at tells that n bytes are done.
func (b *progressBar) at(n int64) {
	if !b.on {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n = n
	if now := time.Now(); now.Sub(b.drawn) >= 100*time.Millisecond {
		b.drawn = now
		b.draw()
	}
}

const barWidth = 24

func (b *progressBar) draw() {
	seconds := max(time.Since(b.began).Seconds(), 0.001)
	line := fmt.Sprintf("%s  %s  %s/s", b.name, byteCount(b.n), byteCount(int64(float64(b.n)/seconds)))
	if b.size > 0 {
		share := min(float64(b.n)/float64(b.size), 1)
		full := int(share * barWidth)
		line = fmt.Sprintf("%s  [%s%s] %3.0f%%  %s/s", b.name, strings.Repeat("=", full), strings.Repeat(" ", barWidth-full),
			100*share, byteCount(int64(float64(b.n)/seconds)))
	}
	fmt.Fprintf(b.app.stderr, "\r\x1b[K%s", line)
}

// end leaves the last state on the screen.
func (b *progressBar) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on && !b.drawn.IsZero() {
		b.draw()
		fmt.Fprintln(b.app.stderr)
	}
}

func byteCount(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v := float64(n)
	i := 0
	for ; v >= 1024 && i < len(units)-1; i++ {
		v /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
