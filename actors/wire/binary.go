package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Binary messages, on connections that ask for them with ?frames=binary. Numbers are big-endian.
//
//	byte 0      kind: 1 output (server to client), 2 input (client to server)
//	byte 1      flags: of output 1 stderr, 2 truncated, 4 gap; of input 1 eof
//	bytes 2-3   number of the stream, see StreamOpened
//	bytes 4-11  output: position in the transcript after the piece; input: position in stdin of the first byte
//	bytes 12-19 with the flag gap only: bytes missing before the piece
//	the rest    the bytes
const (
	frameOutput = 1
	frameInput  = 2

	flagStderr    = 1
	flagTruncated = 2
	flagGap       = 4
	flagEOF       = 1

	frameHeader = 12
	gapSize     = 8

	// MaxOutputHeader is the size of the longest header of an output frame.
	MaxOutputHeader = frameHeader + gapSize
	// InputHeader is the size of the header of an input frame.
	InputHeader = frameHeader
)

// OutputFrame is a piece of an execution's transcript as a binary message. See Output, which it
// stands for.
type OutputFrame struct {
	Stream    uint16 // see StreamOpened
	Stderr    bool
	Truncated bool
	Offset    int64 // transcript position after Payload
	Gap       int64 // bytes missing before Payload
	Payload   []byte
}

// InputFrame is input as a binary message. See InputParams, which it stands for.
type InputFrame struct {
	Stream  uint16 // see StreamOpened
	EOF     bool   // close stdin after Payload
	Offset  int64  // position in stdin of the first byte of Payload
	Payload []byte
}

// AppendOutputFrame appends the whole message.
func AppendOutputFrame(dst []byte, f *OutputFrame) []byte {
	return append(AppendOutputHeader(dst, f), f.Payload...)
}

// AppendOutputHeader appends what precedes Payload in the message: at most MaxOutputHeader bytes.
func AppendOutputHeader(dst []byte, f *OutputFrame) []byte {
	var flags byte
	if f.Stderr {
		flags |= flagStderr
	}
	if f.Truncated {
		flags |= flagTruncated
	}
	if f.Gap != 0 {
		flags |= flagGap
	}
	dst = append(dst, frameOutput, flags)
	dst = binary.BigEndian.AppendUint16(dst, f.Stream)
	dst = binary.BigEndian.AppendUint64(dst, uint64(f.Offset))
	if f.Gap != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(f.Gap))
	}
	return dst
}

// ParseOutputFrame reads an output frame. Payload shares memory with b.
func ParseOutputFrame(b []byte) (OutputFrame, error) {
	var f OutputFrame
	flags, err := parseHeader(b, frameOutput, flagStderr|flagTruncated|flagGap, &f.Stream, &f.Offset)
	if err != nil {
		return OutputFrame{}, err
	}
	f.Stderr, f.Truncated = flags&flagStderr != 0, flags&flagTruncated != 0
	f.Payload = b[frameHeader:]
	if flags&flagGap != 0 {
		if len(f.Payload) < gapSize {
			return OutputFrame{}, errors.New("the frame ends within its gap")
		}
		gap := binary.BigEndian.Uint64(f.Payload)
		if gap == 0 || gap > math.MaxInt64 {
			return OutputFrame{}, fmt.Errorf("the gap is %d, which is no number of missing bytes", gap)
		}
		f.Gap, f.Payload = int64(gap), f.Payload[gapSize:]
	}
	return f, nil
}

// AppendInputFrame appends the whole message.
func AppendInputFrame(dst []byte, f *InputFrame) []byte {
	var flags byte
	if f.EOF {
		flags |= flagEOF
	}
	dst = append(dst, frameInput, flags)
	dst = binary.BigEndian.AppendUint16(dst, f.Stream)
	dst = binary.BigEndian.AppendUint64(dst, uint64(f.Offset))
	return append(dst, f.Payload...)
}

// ParseInputFrame reads an input frame. Payload shares memory with b.
func ParseInputFrame(b []byte) (InputFrame, error) {
	var f InputFrame
	flags, err := parseHeader(b, frameInput, flagEOF, &f.Stream, &f.Offset)
	if err != nil {
		return InputFrame{}, err
	}
	f.EOF = flags&flagEOF != 0
	f.Payload = b[frameHeader:]
	if len(f.Payload) == 0 && !f.EOF {
		return InputFrame{}, errors.New("the frame has no bytes: give some, or the flag eof to close stdin")
	}
	return f, nil
}

// parseHeader reads the part that all frames begin with.
func parseHeader(b []byte, kind, known byte, stream *uint16, offset *int64) (flags byte, err error) {
	switch {
	case len(b) < frameHeader:
		return 0, fmt.Errorf("the frame has %d bytes, and its header alone has %d", len(b), frameHeader)
	case b[0] != kind:
		return 0, fmt.Errorf("the frame is of kind %d, want %d", b[0], kind)
	case b[1]&^known != 0:
		return 0, fmt.Errorf("the frame has unknown flags %#x", b[1]&^known)
	}
	*stream = binary.BigEndian.Uint16(b[2:])
	position := binary.BigEndian.Uint64(b[4:])
	switch {
	case *stream == 0:
		return 0, errors.New("the frame has stream 0: numbers begin with 1, see process.stream")
	case position > math.MaxInt64:
		return 0, fmt.Errorf("the frame has offset %d, which is no position", position)
	}
	*offset = int64(position)
	return b[1], nil
}
