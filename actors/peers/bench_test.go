package peers

import (
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/relay"
)

// benchmarkTransport sends envelopes of one size from one transport to another over loopback, in
// plain text. At most window bytes are under way.
func benchmarkTransport(b *testing.B, size, window int) {
	b.Helper()
	underWay := make(chan struct{}, window/size)
	arrived := make(chan struct{}, 1)
	to := startPod(b, "to", func(c *Config) {
		c.Deliver = func(*relay.Envelope, relay.Held) {
			select {
			case <-underWay:
			default: // one of those below
			}
			select {
			case arrived <- struct{}{}:
			default:
			}
		}
	})
	from := startPod(b, "from", nil)
	from.SetPeers(map[string]string{"to": to.addr})
	link := relay.NewLinkID()
	envelope := &relay.Envelope{
		Version: relay.Version, From: "from", Kind: &relay.Envelope_Frame{Frame: &relay.Frame{
			Link: link[:], Seq: 1, Body: &relay.Frame_Output{Output: &relay.Output{
				Feed: 1, Pieces: []*relay.Piece{{Offset: int64(size), Data: make([]byte, size)}},
			}},
		}},
	}
	for connected := false; !connected; {
		from.Send("to", envelope)
		select {
		case <-arrived:
			connected = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		underWay <- struct{}{}
		from.Send("to", envelope)
	}
}

func BenchmarkTransportLargeEnvelopes(b *testing.B) { benchmarkTransport(b, 48<<10, 1<<20) }
func BenchmarkTransportSmallEnvelopes(b *testing.B) { benchmarkTransport(b, 64, 64<<10) }
