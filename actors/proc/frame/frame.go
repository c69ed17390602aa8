package frame

import (
	"encoding/binary"
	"errors"
)

// A frame is one byte of kind, four bytes of length (little endian) and a body. It is binary
// because the argv and environment in the body of a start frame need not be UTF-8, and because
// every command starts with one.
const (
	headerSize = 5
	// MaxSize is the size of the largest frame. Linux limits argv and environment to 6 MiB, see
	// execve(2).
	MaxSize = 8 << 20
)

// Kind is the type of a frame. Each is documented "sender → receiver".
type Kind byte

const (
	KindStart     Kind = iota + 1 // trouped → init: run this; carries the stdio descriptors
	KindSignal                    // trouped → init: signal the command's process group
	KindTerminate                 // trouped → init: SIGTERM to the tree; with a terminal, SIGHUP before it
	KindPause                     // trouped → init
	KindResume                    // trouped → init
	KindSweep                     // trouped → init: kill what outlived the command
	KindKill                      // trouped → init: kill everything

	KindReady       // init → trouped: not traced, and waiting for a command
	KindStarted     // init → trouped
	KindStartFailed // init → trouped; the init is idle again
	KindPaused      // init → trouped
	KindResumed     // init → trouped
	KindExited      // init → trouped
	KindDead        // init → trouped; the init is idle again
	KindSample      // init → trouped: what the tree holds now

	KindHello      // runner → trouped: first frame of a runner; may carry a pidfd of it
	KindInit       // runner → trouped: a new init; carries trouped's ends of its sockets, events first
	KindInitFailed // runner → trouped: an init could not be started
	KindSwept      // runner → trouped: this init and everything below it is dead
	KindOOMKills   // runner → trouped: how many processes the kernel had killed for memory a second ago
	KindWant       // trouped → runner: start this many inits
	KindForceKill  // trouped → runner: this init does not answer: kill it and everything below it
	KindForget     // trouped → runner: the session of this workspace has ended: remove it and its cgroup

	KindMeasure  // trouped → runner: measure this workspace within a second or two
	KindMeasured // runner → trouped: whether it holds too much, and the CPU time in ns that it took to say

	KindSettings    // runner → init: before the init does anything
	KindClone       // trouped → runner → init: start another init in your session's domain
	KindCloned      // runner → trouped: the new init, like KindInit; init → runner: its pid
	KindCloneFailed // runner → trouped and init → runner: why there is no clone
)

// Encoder builds one frame. Its zero value is not usable; see [New].
type Encoder []byte

// New begins a frame.
func New(k Kind) Encoder { return append(make(Encoder, 0, 64), byte(k), 0, 0, 0, 0) }

// Uint appends an unsigned integer.
func (e Encoder) Uint(v uint64) Encoder { return binary.AppendUvarint(e, v) }

// Int appends a signed integer.
func (e Encoder) Int(v int64) Encoder { return binary.AppendVarint(e, v) }

// Str appends a string.
func (e Encoder) Str(s string) Encoder {
	return append(binary.AppendUvarint(e, uint64(len(s))), s...)
}

// Strs appends a list of strings.
func (e Encoder) Strs(list []string) Encoder {
	e = e.Uint(uint64(len(list)))
	for _, s := range list {
		e = e.Str(s)
	}
	return e
}

// Bool appends a boolean.
func (e Encoder) Bool(b bool) Encoder {
	if b {
		return append(e, 1)
	}
	return append(e, 0)
}

// Done fills in the length and returns the frame.
func (e Encoder) Done() []byte {
	binary.LittleEndian.PutUint32(e[1:], uint32(len(e)-headerSize))
	return e
}

// ErrMalformed means that the other side broke the protocol.
var ErrMalformed = errors.New("malformed frame")

// Decoder reads a body. After the first error, every read returns zero.
type Decoder struct {
	b   []byte
	err error
}

// NewDecoder reads the body of a frame.
func NewDecoder(body []byte) *Decoder { return &Decoder{b: body} }

// Err returns the first error.
func (d *Decoder) Err() error { return d.err }

// Uint reads an unsigned integer.
func (d *Decoder) Uint() uint64 {
	v, n := binary.Uvarint(d.b)
	return advance(d, v, n)
}

// Int reads a signed integer.
func (d *Decoder) Int() int64 {
	v, n := binary.Varint(d.b)
	return advance(d, v, n)
}

func advance[T uint64 | int64](d *Decoder, v T, n int) T {
	if n <= 0 || d.err != nil {
		d.err = ErrMalformed
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Str reads a string.
func (d *Decoder) Str() string {
	n := d.Uint()
	if d.err != nil || n > uint64(len(d.b)) {
		d.err = ErrMalformed
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// Strs reads a list of strings.
func (d *Decoder) Strs() []string {
	n := d.Uint()
	if d.err != nil || n > uint64(len(d.b)) { // each takes a byte at least
		d.err = ErrMalformed
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.Str()
	}
	return list
}

// Bool reads a boolean.
func (d *Decoder) Bool() bool { return d.Uint() != 0 }
