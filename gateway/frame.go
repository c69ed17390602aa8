package gateway

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// This file bounds what messages cost while they are read, decoded and, except for input, executed.
// Each socket may have a small one at any time. A larger one needs a permit, which its reader waits
// for in the middle of the message, so that TCP holds the client up. The permits of a size are few,
// and those that wait get them in turn.
const (
	// SmallMessage is the size of a message that a socket reads without a permit.
	SmallMessage = 8 << 10
	// MediumMessage has room for 64 KiB of input in a binary frame.
	MediumMessage = 72 << 10
	// MediumMessages and LargeMessages are how many of each size may be held at a time. A large one has
	// up to Config.MaxMessage.
	MediumMessages = 18
	LargeMessages  = 2
	// maxCheapElements is how many elements of arrays and objects a message may have without a permit
	// for a large one: decoded, an element costs up to 100 bytes, whatever it has as JSON.
	maxCheapElements = 512

	// firstBuffer is what reading a message begins with.
	firstBuffer = 4 << 10
	// readPiece and messageTimeout bound how slowly a message may come: a piece, or the rest, within
	// that time. It is looked at once per ping interval.
	readPiece      = 64 << 10
	messageTimeout = 10 * time.Second
)

var (
	smallBuffers = sync.Pool{New: func() any {
		b := make([]byte, 0, firstBuffer)
		return &b
	}}
	mediumBuffers = sync.Pool{New: func() any {
		b := make([]byte, 0, MediumMessage)
		return &b
	}}
)

// errConnectionEnds is why a message was not read to its end.
var errConnectionEnds = errors.New("the connection ends")

// permit is what a socket's reader holds for the message that it reads and the request that it
// became.
type permit struct {
	socket *socket
	of     []*permits // that were acquired
}

// release gives back what is held.
func (p *permit) release() {
	for _, of := range p.of {
		of.release(p.socket.subject)
	}
	p.of = nil
}

// acquire waits for one more. Whoever has a medium permit may wait for a large one, but never the
// other way round, so no two wait for each other.
func (p *permit) acquire(of *permits) error {
	s := p.socket
	for _, held := range p.of {
		if held == of {
			return nil
		}
	}
	s.setBackpressured(true)
	s.conn.turn.GiveBack()
	ok := of.acquire(s.subject, s.dead)
	s.setBackpressured(false)
	if !ok {
		return errConnectionEnds
	}
	p.of = append(p.of, of)
	return nil
}

// readMessage reads one message and handles it. It takes a buffer only once a message has begun, so
// that an idle connection holds none.
func (s *socket) readMessage(typ websocket.MessageType, r io.Reader) error {
	frame, err := readAll(takeBuffer(&smallBuffers), r, s.g.cfg.MaxMessage, s)
	s.frameBegan.Store(0)
	defer func() { recycleBuffer(frame) }()
	if err != nil {
		return err
	}
	s.g.metrics.messagesReceived.Inc()
	if typ == websocket.MessageText && wire.Elements(frame) > maxCheapElements {
		if err := s.permit.acquire(s.g.large); err != nil {
			return err
		}
	}
	s.handle(typ, frame)
	return nil
}

// readAll appends up to limit bytes from r to b. grower gives it the buffers.
func readAll(b []byte, r io.Reader, limit int64, grower bufferGrower) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			larger, err := grower.grow(b)
			if err != nil {
				return b, err
			}
			b = larger
		}
		grower.reading()
		n, err := r.Read(b[len(b):min(cap(b), len(b)+readPiece)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return b, errMessageTooBig
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return b, err
		}
	}
}

// bufferGrower is a socket, as readAll sees it.
type bufferGrower interface {
	grow(b []byte) ([]byte, error)
	reading() // the next piece is about to be read
}

func (s *socket) reading() { s.frameBegan.Store(clock()) }

// grow moves b to a larger buffer, and waits until it may have one.
func (s *socket) grow(b []byte) ([]byte, error) {
	s.frameBegan.Store(0) // the server does not read meanwhile
	var larger []byte
	switch size := cap(b); {
	case size < SmallMessage:
		larger = make([]byte, 0, min(4*max(size, firstBuffer), SmallMessage))
	case size < MediumMessage:
		if err := s.permit.acquire(s.g.medium); err != nil {
			return nil, err
		}
		larger = takeBuffer(&mediumBuffers)
	default:
		if err := s.permit.acquire(s.g.large); err != nil {
			return nil, err
		}
		larger = make([]byte, 0, min(4*int64(size), s.g.cfg.MaxMessage+1))
	}
	larger = append(larger, b...)
	recycleBuffer(b)
	return larger, nil
}

func takeBuffer(pool *sync.Pool) []byte {
	b, ok := pool.Get().(*[]byte)
	if !ok {
		return nil
	}
	return (*b)[:0]
}

// recycleBuffer keeps small and medium buffers. Large ones are left to the garbage collector:
// otherwise rare large messages would keep them in memory.
func recycleBuffer(b []byte) {
	switch size := cap(b); {
	case size == MediumMessage:
		mediumBuffers.Put(&b)
	case size > 0 && size <= SmallMessage:
		smallBuffers.Put(&b)
	}
}
