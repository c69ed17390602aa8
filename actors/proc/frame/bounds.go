package frame

// Bound is a bound of a session.
type Bound uint8

// The bounds of a session. None is the zero value.
const (
	BoundNone Bound = iota
	BoundMemory
	BoundProcesses
	BoundDisk
)

// Bounds limit what all executions of one session may hold together. 0: no limit.
type Bounds struct {
	Memory    int64 // bytes
	Processes int   // processes and threads, as the kernel's own limits count them
	Disk      int64 // bytes in the session's workspace, and of any file that its commands write
}

// Sample is what the tree of one execution holds.
type Sample struct {
	Processes int // and threads
	Memory    int64
}

// Encode returns the frame.
func (s *Sample) Encode() []byte {
	return New(KindSample).Uint(uint64(s.Processes)).Int(s.Memory).Done()
}

// DecodeSample reads the body of a sample.
func DecodeSample(body []byte) Sample {
	d := NewDecoder(body)
	return Sample{Processes: int(d.Uint()), Memory: d.Int()}
}

func (e Encoder) bounds(b Bounds) Encoder {
	return e.Int(b.Memory).Uint(uint64(b.Processes)).Int(b.Disk)
}

func (d *Decoder) bounds() Bounds {
	return Bounds{Memory: d.Int(), Processes: int(d.Uint()), Disk: d.Int()}
}
