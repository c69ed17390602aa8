package relay

import (
	"bytes"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Held is memory that a frame shares with others. Whoever uses it beyond a call takes a reference,
// and frees that once.
type Held interface {
	Ref()
	Free()
}

// Decode reads an envelope. If it is one of output, the data in it is not copied, and shared is
// true: the envelope then refers to b.
func Decode(b []byte) (e *Envelope, shared bool, err error) {
	e = new(Envelope)
	if decodeEnvelope(b, e) && e.Kind != nil {
		return e, true, nil
	}
	e = new(Envelope)
	return e, false, proto.Unmarshal(b, e)
}

// The tags of the fields that these functions know, as relay.proto numbers them. They report false
// for anything else, and for what may come but once and comes twice: the message then goes to
// package proto.
const (
	varint = uint64(protowire.VarintType)
	chunk  = uint64(protowire.BytesType)
)

func decodeEnvelope(b []byte, e *Envelope) bool {
	return eachField(b, func(tag, n uint64, v []byte) bool {
		switch tag {
		case 1<<3 | varint:
			e.Version = uint32(n)
		case 2<<3 | chunk:
			e.From = string(v)
			return utf8.Valid(v)
		case 3<<3 | chunk:
			e.Incarnation = bytes.Clone(v)
		case 5<<3 | chunk:
			if e.Kind != nil {
				return false
			}
			f := new(Frame)
			e.Kind = &Envelope_Frame{f}
			return decodeFrame(v, f)
		default:
			return false
		}
		return true
	})
}

// decodeFrame also reports false for a frame that is not one of output.
func decodeFrame(b []byte, f *Frame) bool {
	return eachField(b, func(tag, n uint64, v []byte) bool {
		switch tag {
		case 1<<3 | chunk:
			f.Link = bytes.Clone(v)
		case 2<<3 | varint:
			f.Seq = n
		case 3<<3 | varint:
			f.Ack = n
		case 35<<3 | chunk:
			if f.Body != nil {
				return false
			}
			o := new(Output)
			f.Body = &Frame_Output{o}
			return decodeOutput(v, o)
		default:
			return false
		}
		return true
	}) && f.Body != nil
}

func decodeOutput(b []byte, o *Output) bool {
	return eachField(b, func(tag, n uint64, v []byte) bool {
		switch tag {
		case 1<<3 | varint:
			o.Feed = uint32(n)
		case 2<<3 | chunk:
			p := new(Piece)
			o.Pieces = append(o.Pieces, p)
			return decodePiece(v, p)
		case 3<<3 | varint:
			o.Eof = protowire.DecodeBool(n)
		default:
			return false
		}
		return true
	})
}

func decodePiece(b []byte, p *Piece) bool {
	return eachField(b, func(tag, n uint64, v []byte) bool {
		switch tag {
		case 1<<3 | varint:
			p.Offset = int64(n)
		case 2<<3 | chunk:
			p.Data = v[:len(v):len(v)]
		case 3<<3 | varint:
			p.Stderr = protowire.DecodeBool(n)
		case 4<<3 | varint:
			p.Truncated = protowire.DecodeBool(n)
		case 5<<3 | varint:
			p.Gap = int64(n)
		case 6<<3 | chunk:
			p.Warning = bytes.Clone(v)
		case 7<<3 | chunk:
			p.Completed = bytes.Clone(v)
		case 8<<3 | chunk:
			p.Resized = bytes.Clone(v)
		case 9<<3 | chunk:
			p.Screen = bytes.Clone(v)
		default:
			return false
		}
		return true
	})
}

// eachField calls f for each field of a message: with its number and wire type, and its value, which
// is a number or refers to b. It reports whether f and the message are good.
func eachField(b []byte, f func(tag, n uint64, v []byte) bool) bool {
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return false
		}
		b = b[size:]
		var n uint64
		var v []byte
		switch typ {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			v, size = protowire.ConsumeBytes(b)
		default:
			return false
		}
		if size < 0 || !f(uint64(num)<<3|uint64(typ), n, v) {
			return false
		}
		b = b[size:]
	}
	return true
}
