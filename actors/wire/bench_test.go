package wire

import (
	"bytes"
	"strings"
	"testing"
)

func benchmarkAppendOutput(b *testing.B, payload []byte, enc Encoding) {
	b.Helper()
	buf := make([]byte, 0, MaxOutputMessage)
	o := Output{ExecutionID: "3f2a9c51d0e84b7a", Type: Stdout, Encoding: enc, Offset: 1 << 20}
	_, n := AppendOutput(buf, &o, payload, MaxOutputMessage)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		AppendOutput(buf, &o, payload, MaxOutputMessage)
	}
}

func BenchmarkAppendOutputLines80(b *testing.B) {
	benchmarkAppendOutput(b, bytes.Repeat([]byte(strings.Repeat("x", 79)+"\n"), 1024), "")
}

func BenchmarkAppendOutputLongLine(b *testing.B) {
	benchmarkAppendOutput(b, bytes.Repeat([]byte("x"), 80_000), "")
}

func BenchmarkAppendOutputUnicode(b *testing.B) {
	benchmarkAppendOutput(b, bytes.Repeat([]byte("Zeile mit Umlauten äöü und 日本語\n"), 2000), "")
}

func BenchmarkAppendOutputBase64(b *testing.B) {
	benchmarkAppendOutput(b, bytes.Repeat([]byte{0, 1, 2, 3, 0xff}, 16_000), EncodingBase64)
}

func BenchmarkAppendOutputShort(b *testing.B) { benchmarkAppendOutput(b, []byte("hello\n"), "") }

func BenchmarkDecodeOutputLines80(b *testing.B) {
	payload := bytes.Repeat([]byte(strings.Repeat("x", 79)+"\n"), 1024)
	msg, n := AppendOutput(nil, &Output{ExecutionID: "3f2a9c51d0e84b7a", Type: Stdout, Offset: 1 << 20}, payload,
		MaxOutputMessage)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeServerMessage(msg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeOutputShort(b *testing.B) {
	msg, n := AppendOutput(nil, &Output{ExecutionID: "3f2a9c51d0e84b7a", Type: Stdout, Offset: 6}, []byte("hello\n"),
		MaxOutputMessage)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeServerMessage(msg); err != nil {
			b.Fatal(err)
		}
	}
}
