package relay

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/transcript"
)

func outputEnvelope(pieces ...*Piece) *Envelope {
	link := LinkID{1}
	return from("peer", Incarnation{2}, &Frame{Link: link[:], Seq: 3, Ack: 1 << 40, Body: &Frame_Output{
		&Output{Feed: 1, Eof: true, Pieces: pieces},
	}})
}

// FuzzDecode: what is decoded without a copy is what package proto makes of it.
func FuzzDecode(f *testing.F) {
	all := outputEnvelope(
		&Piece{Offset: 3, Data: []byte("abc")}, &Piece{Offset: 9, Gap: 6, Stderr: true},
		&Piece{Offset: 10, Data: []byte("\n"), Truncated: true}, &Piece{Offset: -1, Warning: []byte("{}")},
		&Piece{Completed: []byte("{}")}, &Piece{},
	)
	f.Add(encoded(f, all))
	f.Add(encoded(f, from("peer", Incarnation{2}, &Frame{Body: &Frame_Probe{&Probe{Number: 1}}})))
	f.Add(encoded(f, from("peer", Incarnation{2}, nil)))
	f.Add(append(encoded(f, all), encoded(f, all)...)) // package proto merges them
	f.Fuzz(func(t *testing.T, b []byte) {
		want := new(Envelope)
		wantErr := proto.Unmarshal(b, want)
		got, shared, err := Decode(b)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, want %v", err, wantErr)
		}
		if err == nil && !proto.Equal(got, want) {
			t.Errorf("shared %v: %v, want %v", shared, got, want)
		}
	})
}

func encoded(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOutputIsNotCopied: it is that of the message, and nothing else is.
func TestOutputIsNotCopied(t *testing.T) {
	b := encoded(t, outputEnvelope(&Piece{Offset: 3, Data: []byte("abc")}, &Piece{Offset: 3, Completed: []byte(`"abc"`)}))
	e, shared, err := Decode(b)
	if !shared || err != nil {
		t.Fatalf("shared %v, %v", shared, err)
	}
	for _, change := range [][2]string{{"abc", "xyz"}, {"abc", "xyz"}, {"peer", "reep"}} {
		_, rest, found := bytes.Cut(b, []byte(change[0]))
		if !found {
			t.Fatalf("the message has no %s", change[0])
		}
		copy(b[len(b)-len(rest)-len(change[0]):], change[1])
	}
	pieces := e.GetFrame().GetOutput().GetPieces()
	if got := string(pieces[0].GetData()); got != "xyz" {
		t.Errorf("the data is %q", got)
	}
	if got := string(pieces[1].GetCompleted()); got != `"abc"` || e.GetFrom() != "peer" {
		t.Errorf("the mark is %q, from %q", got, e.GetFrom())
	}
}

// counted is memory with a reference of the caller's.
type counted int

func (c *counted) Ref()  { *c++ }
func (c *counted) Free() { *c-- }

// TestMemoryIsHeldUntilItIsRead: that of the frames of a feed, each until all of it is read or the
// feed closed, and no longer.
func TestMemoryIsHeldUntilItIsRead(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	p.origin.Follow(p.now, feedOf(&stream{end: -1, piece: 700, mixed: true}))
	for _, f := range take(&p.toProxy) {
		if f.GetFollow() != nil {
			p.proxy.Receive(p.now, f, nil)
		}
	}
	memory := make([]counted, 3)
	offset := int64(0)
	for i := range memory {
		var pieces []*Piece
		for n := range 2 {
			offset += 10
			pieces = append(pieces, &Piece{Offset: offset, Data: make([]byte, 10), Stderr: n == 1})
		}
		memory[i].Ref()
		p.proxy.Receive(p.now, p.proxy.link.following(&Frame_Output{&Output{Feed: 1, Pieces: pieces}}), &memory[i])
		memory[i].Free()
	}
	cursor, err := p.client.feeds[0].Open(func() {})
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, want ...counted) {
		t.Helper()
		for i, n := range want {
			if memory[i] != n {
				t.Errorf("%s: frame %d has %d references, want %d", when, i, memory[i], n)
			}
		}
	}
	read := func(n int) {
		t.Helper()
		if piece, err := cursor.Next(make([]byte, n)); err != nil || len(piece.Data) != n {
			t.Fatalf("%+v, %v", piece, err)
		}
	}
	check("unread", 1, 1, 1)
	read(10)
	read(5)
	check("read in part", 1, 1, 1)
	read(5)
	check("one read", 0, 1, 1)
	if done := p.proxy.window.done.Load(); done != 2*(10+pieceCost) {
		t.Errorf("a cost of %d was given back", done)
	}
	cursor.Close()
	check("closed", 0, 0, 0)
	p.proxy.Receive(p.now, p.proxy.link.following(&Frame_Output{&Output{Feed: 1, Pieces: []*Piece{
		{Offset: offset + 1, Data: []byte("x")},
	}}}), &memory[0])
	check("after the end", 0)
}

// lettered is a cursor of which each byte tells its place.
type lettered struct{ stream }

func (l *lettered) Next(buf []byte) (transcript.Piece, error) {
	at := l.offset
	p, err := l.stream.Next(buf)
	for i := range p.Data {
		p.Data[i] = letter255(at + int64(i))
	}
	return p, err
}

func letter255(at int64) byte { return byte(at % 255) }

// TestUnacknowledgedFramesKeepTheirMemory: however many frames are sent while one waits for its
// acknowledgement, it is sent again as it was.
func TestUnacknowledgedFramesKeepTheirMemory(t *testing.T) {
	p := newPair(t, MostWindow)
	p.settle()
	p.origin.Follow(p.now, Feed{ExecutionID: "x", Open: func(func()) (Cursor, error) {
		return &lettered{stream{end: 4 << 20, piece: 64 << 10}}, nil
	}})
	p.deaf = true
	p.settle()
	lost := take(&p.toProxy)
	for _, f := range lost[:len(lost)/2] { // the other half is lost
		p.proxy.Receive(p.now, f, nil)
	}
	p.now = p.now.Add(ackDelay)
	p.proxy.Tick(p.now)
	p.settle() // the origin sends more
	p.toProxy = nil
	p.deaf = false
	p.origin.Reconnected(p.now)
	p.settle()
	cursor, err := p.client.feeds[0].Open(func() {})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for at := int64(0); at < 4<<20; {
		piece, err := cursor.Next(buf)
		if errors.Is(err, transcript.ErrWait) {
			p.proxy.Wake(p.now)
			if p.settle(); len(p.toProxy)+len(p.toOrigin) > 0 {
				t.Fatal("unsettled")
			}
			continue
		}
		if err != nil {
			t.Fatalf("at %d: %v", at, err)
		}
		for i, c := range piece.Data {
			if c != letter255(at+int64(i)) {
				t.Fatalf("a wrong byte at %d", at+int64(i))
			}
		}
		at = piece.Offset
	}
	if p.origin.cfg.Counters.Resends.Load() == 0 {
		t.Error("nothing was sent again")
	}
}
