package peers

import (
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec for everything else
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// batchCodec is the protobuf codec, but that batches of envelopes are not copied on
// their way: going out, their bytes are written where they are; coming in, they are read there.
type batchCodec struct{ encoding.CodecV2 }

func newBatchCodec() batchCodec { return batchCodec{encoding.GetCodecV2("proto")} }

// outBatch is a remote.RemoteMessage with a batch of envelopes to one peer. gRPC frees their buffers.
type outBatch struct {
	pod       string
	envelopes []mem.Buffer
}

// inMessage is a remote.RemoteMessage as it came.
type inMessage struct{ data mem.Buffer }

// Numbers of remote's messages.
const (
	remoteBatch    protowire.Number = 1 // of RemoteMessage
	batchTypes     protowire.Number = 1 // of MessageBatch
	batchTargets   protowire.Number = 2
	batchEnvelopes protowire.Number = 3
	envelopeTypeID protowire.Number = 1 // of MessageEnvelope
	envelopeData   protowire.Number = 2
	envelopeTarget protowire.Number = 3
	envelopeCodec  protowire.Number = 5
)

// Marshal implements encoding.CodecV2.
func (c batchCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*outBatch)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	// The type's number and the target's are 0, which is how absent members read.
	target, err := proto.Marshal(&actor.PID{Address: b.pod, Id: peersID})
	if err != nil {
		return nil, err
	}
	head := protowire.AppendTag(nil, batchTypes, protowire.BytesType)
	head = protowire.AppendString(head, envelopeType)
	head = protowire.AppendTag(head, batchTargets, protowire.BytesType)
	head = protowire.AppendBytes(head, target)
	size := len(head)
	for _, e := range b.envelopes {
		inner := protowire.SizeTag(envelopeData) + protowire.SizeBytes(e.Len())
		size += protowire.SizeTag(batchEnvelopes) + protowire.SizeBytes(inner)
	}
	first := protowire.AppendTag(nil, remoteBatch, protowire.BytesType)
	first = protowire.AppendVarint(first, uint64(size))
	parts := mem.BufferSlice{mem.SliceBuffer(append(first, head...))}
	for _, e := range b.envelopes {
		inner := protowire.SizeTag(envelopeData) + protowire.SizeBytes(e.Len())
		prefix := protowire.AppendTag(nil, batchEnvelopes, protowire.BytesType)
		prefix = protowire.AppendVarint(prefix, uint64(inner))
		prefix = protowire.AppendTag(prefix, envelopeData, protowire.BytesType)
		prefix = protowire.AppendVarint(prefix, uint64(e.Len()))
		parts = append(parts, mem.SliceBuffer(prefix), e)
	}
	return parts, nil
}

// Unmarshal implements encoding.CodecV2.
func (c batchCodec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*inMessage)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	in.data = data.MaterializeToBuffer(streamBuffers)
	return nil
}

// Name implements encoding.CodecV2.
func (c batchCodec) Name() string { return "proto" }

var errMalformed = errors.New("not a message of proto.actor's remote")

// fields calls f for each member of a message. f returns how many bytes it took of b, as protowire does.
func fields(b []byte, f func(n protowire.Number, t protowire.Type, b []byte) int) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		if n = f(num, typ, b); n < 0 {
			return errMalformed
		}
		b = b[n:]
	}
	return nil
}

// skip takes a member that is of no interest.
func skip(num protowire.Number, typ protowire.Type, b []byte) int {
	return protowire.ConsumeFieldValue(num, typ, b)
}

// batch returns the MessageBatch in a RemoteMessage, or else the message itself.
func (m *inMessage) batch() (batch []byte, other *remote.RemoteMessage, err error) {
	b := m.data.ReadOnlyData()
	err = fields(b, func(num protowire.Number, typ protowire.Type, b []byte) int {
		if num != remoteBatch || typ != protowire.BytesType {
			return skip(num, typ, b)
		}
		var n int
		batch, n = protowire.ConsumeBytes(b)
		if n > 0 && batch == nil {
			batch = []byte{}
		}
		return n
	})
	if batch != nil || err != nil {
		return batch, nil, err
	}
	other = new(remote.RemoteMessage)
	if err := proto.Unmarshal(b, other); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return nil, other, nil
}

// batchIndex says which types and targets of a batch are ours.
type batchIndex struct{ types, targets []bool }

func (x *batchIndex) read(batch []byte) error {
	return fields(batch, func(num protowire.Number, typ protowire.Type, b []byte) int {
		switch {
		case num == batchTypes && typ == protowire.BytesType:
			name, n := protowire.ConsumeBytes(b)
			x.types = append(x.types, string(name) == envelopeType)
			return n
		case num == batchTargets && typ == protowire.BytesType:
			raw, n := protowire.ConsumeBytes(b)
			pid := new(actor.PID)
			x.targets = append(x.targets, n >= 0 && proto.Unmarshal(raw, pid) == nil && pid.GetId() == peersID)
			return n
		}
		return skip(num, typ, b)
	})
}

// envelope returns the bytes of a MessageEnvelope, or false if it is not for us.
func (x *batchIndex) envelope(raw []byte) (data []byte, ok bool) {
	var typ, target, serializer uint64
	err := fields(raw, func(num protowire.Number, wire protowire.Type, b []byte) int {
		var n int
		switch {
		case num == envelopeData && wire == protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		case num == envelopeTypeID && wire == protowire.VarintType:
			typ, n = protowire.ConsumeVarint(b)
		case num == envelopeTarget && wire == protowire.VarintType:
			target, n = protowire.ConsumeVarint(b)
		case num == envelopeCodec && wire == protowire.VarintType:
			serializer, n = protowire.ConsumeVarint(b)
		default:
			n = skip(num, wire, b)
		}
		return n
	})
	ok = err == nil && typ < uint64(len(x.types)) && x.types[typ] && target < uint64(len(x.targets)) && x.targets[target] &&
		serializer == uint64(remote.DefaultSerializerID)
	return data, ok
}
