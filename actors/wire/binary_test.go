package wire

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// goldenFrames are the binary messages, by file.
var goldenFrames = map[string]any{
	"server.output":        OutputFrame{Stream: 1, Offset: 6, Payload: []byte("hello\n")},
	"server.output.stderr": OutputFrame{Stream: 513, Stderr: true, Offset: 8, Payload: []byte{0xff, 0x00}},
	"server.output.truncated": OutputFrame{
		Stream: 2, Truncated: true, Offset: 8205, Gap: 8192, Payload: []byte("x[TRUNCATED]\n"),
	},
	"server.output.gap": OutputFrame{Stream: 65535, Offset: 1 << 40, Gap: 1 << 32, Payload: []byte{}},
	"client.input":      InputFrame{Stream: 1, Offset: 2, Payload: []byte("y\n")},
	"client.input.eof":  InputFrame{Stream: 1, Offset: 4, EOF: true, Payload: []byte{}},
}

func appendFrame(frame any) []byte {
	switch f := frame.(type) {
	case OutputFrame:
		return AppendOutputFrame(nil, &f)
	case InputFrame:
		return AppendInputFrame(nil, &f)
	}
	return nil
}

func parseFrame(frame any, b []byte) (any, error) {
	if _, ok := frame.(OutputFrame); ok {
		return ParseOutputFrame(b)
	}
	return ParseInputFrame(b)
}

// The files hold the bytes in hexadecimal, the header in a line of its own. UPDATE_GOLDEN=1 writes
// them.
func TestGoldenFrames(t *testing.T) {
	for name, frame := range goldenFrames {
		b := appendFrame(frame)
		header := frameHeader
		if b[1]&flagGap != 0 && b[0] == frameOutput {
			header += gapSize
		}
		got := hex.EncodeToString(b[:header]) + "\n" + hex.EncodeToString(b[header:]) + "\n"
		path := filepath.Join("testdata", "golden", name+".hex")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
		raw, err := hex.DecodeString(strings.ReplaceAll(string(want), "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		if parsed, err := parseFrame(frame, raw); err != nil || !reflect.DeepEqual(parsed, frame) {
			t.Errorf("%s: parsed as %+v, %v", name, parsed, err)
		}
	}
}

func TestMalformedFramesAreRefused(t *testing.T) {
	for _, c := range []struct{ name, frame, wantInput, wantOutput string }{
		{"empty", "", "0 bytes", "0 bytes"},
		{"short", "0200 0001 00000000000000", "11 bytes", "11 bytes"},
		{"text", "7b22 6a73 6f6e727063223a22", "kind 123", "kind 123"},
		{"kind 0", "0000 0001 0000000000000000 61", "kind 0", "kind 0"},
		{"unknown kind", "0300 0001 0000000000000000 61", "kind 3", "kind 3"},
		{"unknown flag", "0202 0001 0000000000000000 61", "unknown flags 0x2", "kind 2"},
		{"unknown output flag", "0108 0001 0000000000000000 61", "kind 1", "unknown flags 0x8"},
		{"stream 0", "0200 0000 0000000000000000 61", "stream 0", "kind 2"},
		{"output stream 0", "0100 0000 0000000000000000 61", "kind 1", "stream 0"},
		{"negative offset", "0200 0001 8000000000000000 61", "offset 9223372036854775808", "kind 2"},
		{"no bytes", "0200 0001 0000000000000000", "has no bytes", "kind 2"},
		{"within the gap", "0104 0001 0000000000000010 00000000000001", "kind 1", "within its gap"},
		{"gap of 0", "0104 0001 0000000000000010 0000000000000000", "kind 1", "gap is 0"},
		{"negative gap", "0104 0001 0000000000000010 ffffffffffffffff", "kind 1", "gap is 18446744073709551615"},
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(c.frame, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseInputFrame(b); err == nil || !strings.Contains(err.Error(), c.wantInput) {
			t.Errorf("%s as input: got %v, want %s", c.name, err, c.wantInput)
		}
		if _, err := ParseOutputFrame(b); err == nil || !strings.Contains(err.Error(), c.wantOutput) {
			t.Errorf("%s as output: got %v, want %s", c.name, err, c.wantOutput)
		}
	}
}

// A frame that is accepted has one form only, so that what a client sends and what a server
// understands cannot differ.
func FuzzBinaryFrame(f *testing.F) {
	for _, frame := range goldenFrames {
		f.Add(appendFrame(frame))
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, MaxOutputHeader))
	f.Fuzz(func(t *testing.T, b []byte) {
		if in, err := ParseInputFrame(b); err == nil {
			if again := AppendInputFrame(nil, &in); !bytes.Equal(again, b) || in.Offset < 0 || in.Stream == 0 {
				t.Errorf("%x: read as %+v, which is %x", b, in, again)
			}
		}
		if out, err := ParseOutputFrame(b); err == nil {
			if again := AppendOutputFrame(nil, &out); !bytes.Equal(again, b) || out.Offset < 0 || out.Gap < 0 {
				t.Errorf("%x: read as %+v, which is %x", b, out, again)
			}
		}
	})
}

func TestFramesDoNotAllocate(t *testing.T) {
	dst, payload := make([]byte, 0, 1<<10), make([]byte, 512)
	if n := testing.AllocsPerRun(100, func() {
		b := AppendOutputFrame(dst, &OutputFrame{Stream: 3, Offset: 1 << 20, Gap: 5, Payload: payload})
		if _, err := ParseOutputFrame(b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
