package gateway

import (
	"github.com/troupe-dev/troupe/actors/wire"
)

// maxRetired is how many numbers of ended streams a connection still understands. A client may have
// sent input to one before it learned of the end, and is then told of that by its execution.
const maxRetired = 256

// streams numbers what a connection with binary frames follows. A number is used again only after
// all others, so no frame that is under way is taken for one of another execution.
type streams struct {
	last    uint16
	names   map[uint16]string // executions, by number
	retired []uint16          // numbers in names that have ended, the oldest first
}

// open returns a number for an execution.
func (st *streams) open(execution string) uint16 {
	if st.names == nil {
		st.names = make(map[uint16]string)
	}
	for {
		st.last++
		if _, used := st.names[st.last]; !used && st.last != 0 {
			break
		}
	}
	st.names[st.last] = execution
	return st.last
}

// retire says that no more output comes with a number.
func (st *streams) retire(n uint16) {
	if st.retired = append(st.retired, n); len(st.retired) > maxRetired {
		delete(st.names, st.retired[0])
		st.retired = st.retired[1:]
	}
}

// openStream numbers what f follows, and tells the client.
func (s *socket) openStream(f *follower) error {
	s.mu.Lock()
	f.number = s.streams.open(f.id)
	s.mu.Unlock()
	return s.notify(wire.MethodStream, &wire.StreamOpened{ExecutionID: f.id, Stream: f.number, Offset: f.sent})
}

// handleBinary passes a binary input frame to the engine, or refuses the frame.
func (s *socket) handleBinary(frame []byte) {
	size := len(frame)
	refuse := func(err *wire.Error) {
		s.g.metrics.answered(methodInvalid, err)
		s.answer(wire.NullID, max(size, 1), nil, err)
	}
	if !s.binary {
		refuse(wire.Errorf(wire.CodeInvalidRequest,
			"the frame is binary: send text frames, or connect with ?frames=binary"))
		return
	}
	in, err := wire.ParseInputFrame(frame)
	if err != nil {
		refuse(wire.Errorf(wire.CodeInvalidRequest, "binary input: %v", err))
		return
	}
	s.mu.Lock()
	execution, known := s.streams.names[in.Stream]
	s.mu.Unlock()
	if !known {
		refuse(wire.Errorf(wire.CodeInvalidRequest,
			"binary input: this connection has no stream %d: use the number that process.stream gave", in.Stream))
		return
	}
	id := s.admit(request{
		method: wire.MethodInput, size: size, length: int64(len(in.Payload)),
		taken: &wire.InputTaken{ExecutionID: execution, Offset: in.Offset},
	})
	s.request(id, wire.NewInput(execution, append([]byte(nil), in.Payload...), in.Offset, in.EOF))
}

// inputTaken makes the notification that answers a binary input frame.
func (r *request) inputTaken(err *wire.Error) item {
	taken := r.taken
	if taken.Error = err; err == nil {
		taken.Offset += r.length
	}
	return item{method: wire.MethodInputTaken, result: taken, size: r.size}
}
