package peers

import (
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/relay"
)

// TestOutputThatStaysInItsBufferFillsIt: output that waits to be read keeps no more memory than a
// third of what it counts for. Full frames of every window do fill their buffers.
func TestOutputThatStaysInItsBufferFillsIt(t *testing.T) {
	for size, want := range map[int]bool{
		100: true, 2 << 10: false, 11 << 10: false, 13 << 10: true, 17 << 10: false, 33 << 10: false, 48 << 10: true,
		relay.LeastWindow/2 - relay.FrameCost: true, 62<<10 - relay.FrameCost: true,
	} {
		e := &relay.Envelope{Version: 1, From: "pod", Kind: &relay.Envelope_Frame{Frame: &relay.Frame{
			Link: make([]byte, 16), Body: &relay.Frame_Output{Output: &relay.Output{
				Feed: 1, Pieces: []*relay.Piece{{Offset: int64(size), Data: make([]byte, size)}},
			}},
		}}}
		data, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		const prefix = 4 // of the batch
		buf := streamBuffers.Get(prefix + len(data))
		got, held, err := decode(append((*buf)[:prefix], data...)[prefix:], mem.NewBuffer(buf, streamBuffers))
		if err != nil || !proto.Equal(got, e) {
			t.Errorf("%d bytes of output: decoded wrongly, %v", size, err)
		}
		if (held != nil) != want {
			t.Errorf("%d bytes of output stay in a buffer of %d: %v, want %v", size, cap(*buf), held != nil, want)
		}
	}
	if _, held, err := decode([]byte("\xff"), mem.SliceBuffer("\xff")); held != nil || err == nil {
		t.Errorf("what is no envelope is decoded, %v", err)
	}
}
