//go:build linux

package proc

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/turn"
)

// openPipe returns both ends of a pipe, as a command has it.
func openPipe(t *testing.T) (*Pipe, *os.File) {
	t.Helper()
	r, w, err := halfPipe(true)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPipe(r)
	if err != nil {
		t.Fatal(err)
	}
	in := os.NewFile(uintptr(w), "input")
	t.Cleanup(func() { p.Close(); in.Close() })
	return p, in
}

// TestReadersLeaveAProcessorToRequests: however many pipes have much output, all but one processor at
// most read it, or requests wait behind a hundred commands that print. A pipe with little output
// takes no turn.
func TestReadersLeaveAProcessorToRequests(t *testing.T) {
	turns := make([]turn.Turn, turn.Most())
	for i := range turns {
		turns[i].Take(turn.Admin)
	}
	quiet, in := openPipe(t)
	in.WriteString("x")
	if n, err := quiet.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Errorf("a quiet pipe: %d, %v", n, err)
	}
	loud, in := openPipe(t)
	for range 2 {
		in.Write(make([]byte, turn.AllowedBytes/2))
		loud.Read(make([]byte, turn.AllowedBytes/2))
	}
	in.WriteString("x")
	read := make(chan int)
	go func() {
		n, _ := loud.Read(make([]byte, 10))
		read <- n
	}()
	select {
	case <-read:
		t.Error("it read without a turn")
	case <-time.After(50 * time.Millisecond):
	}
	for i := range turns {
		turns[i].GiveBack()
	}
	if n := <-read; n != 1 || loud.turn.Held() {
		t.Errorf("read %d bytes; it has a turn: %v", n, loud.turn.Held())
	}
}

// TestPipeEndsAndDeadlines: Read reports an end, a deadline and a closed pipe, and keeps no turn.
func TestPipeEndsAndDeadlines(t *testing.T) {
	p, in := openPipe(t)
	buf := make([]byte, 10)
	p.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := p.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past the deadline: %d, %v", n, err)
	}
	p.SetReadDeadline(time.Time{})
	in.WriteString("x")
	in.Close()
	if n, err := p.Read(buf); n != 1 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	if n, err := p.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	p.Close()
	if n, err := p.Read(buf); n != 0 || err == nil || err == io.EOF {
		t.Errorf("closed: %d, %v", n, err)
	}
	if p.turn.Held() {
		t.Error("it keeps its turn")
	}
}

// TestReadNowNeverWaits: it tells an empty pipe from one at its end, and keeps no turn.
func TestReadNowNeverWaits(t *testing.T) {
	p, in := openPipe(t)
	buf := make([]byte, 10)
	if n, err := p.ReadNow(buf); n != 0 || err != ErrPipeEmpty {
		t.Errorf("empty: %d, %v", n, err)
	}
	in.WriteString("x")
	if n, err := p.ReadNow(buf); n != 1 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	in.Close()
	if n, err := p.ReadNow(buf); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	p.SetReadDeadline(time.Unix(1, 0))
	if n, err := p.ReadNow(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past the deadline: %d, %v", n, err)
	}
	if p.turn.Held() {
		t.Error("it keeps its turn")
	}
}

// TestPipeGrows: a command can be ahead of its reader by what Grow says, and no call makes that less.
func TestPipeGrows(t *testing.T) {
	p, in := openPipe(t)
	const size = 256 << 10
	p.Grow(size)
	p.Grow(4 << 10)
	wrote := make(chan error, 1)
	go func() {
		_, err := in.Write(make([]byte, size))
		wrote <- err
	}()
	select {
	case err := <-wrote:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the command waits")
	}
	if n, err := p.ReadNow(make([]byte, 2*size)); n != size || err != nil {
		t.Errorf("read %d bytes of %d, %v", n, size, err)
	}
}
