package peers

import (
	"errors"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that batchCodec extends
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// batchCodec is the protobuf codec, except that it does not copy the envelopes of a relay.Batch:
// outBatch hands gRPC the buffers that hold them, and inBatch reads them from the buffers that gRPC
// assembled.
type batchCodec struct{ encoding.CodecV2 }

func newBatchCodec() batchCodec { return batchCodec{encoding.GetCodecV2("proto")} }

// outBatch is a relay.Batch to send. gRPC frees the buffers.
type outBatch []mem.Buffer

// inBatch is a relay.Batch that has arrived. The receiver frees the buffer.
type inBatch struct{ data mem.Buffer }

// batchEnvelopes is the number of Batch.envelopes in relay.proto.
const batchEnvelopes protowire.Number = 1

// maxPrefix is the most bytes that stand before one envelope: a tag, and a length below 2^28.
const maxPrefix = 5

// Marshal implements encoding.CodecV2.
func (c batchCodec) Marshal(v any) (mem.BufferSlice, error) {
	batch, ok := v.(outBatch)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	prefixes := make([]byte, 0, len(batch)*maxPrefix)
	parts := make(mem.BufferSlice, 0, 2*len(batch))
	for _, e := range batch {
		n := len(prefixes)
		prefixes = protowire.AppendTag(prefixes, batchEnvelopes, protowire.BytesType)
		prefixes = protowire.AppendVarint(prefixes, uint64(e.Len()))
		parts = append(parts, mem.SliceBuffer(prefixes[n:]), e)
	}
	return parts, nil
}

// Unmarshal implements encoding.CodecV2.
func (c batchCodec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*inBatch)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	in.data = data.MaterializeToBuffer(streamBuffers)
	return nil
}

// Name implements encoding.CodecV2.
func (c batchCodec) Name() string { return "proto" }

var errMalformed = errors.New("not a Batch of the service Peers")

// forEach calls f for each envelope of a batch, in order, and ignores members that this release
// does not know. The argument of f is valid only until f returns.
func forEach(batch []byte, f func(envelope []byte)) error {
	for len(batch) > 0 {
		num, typ, n := protowire.ConsumeTag(batch)
		if n < 0 {
			return errMalformed
		}
		batch = batch[n:]
		if num == batchEnvelopes && typ == protowire.BytesType {
			var envelope []byte
			if envelope, n = protowire.ConsumeBytes(batch); n >= 0 {
				f(envelope)
			}
		} else {
			n = protowire.ConsumeFieldValue(num, typ, batch)
		}
		if n < 0 {
			return errMalformed
		}
		batch = batch[n:]
	}
	return nil
}
