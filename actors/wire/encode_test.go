package wire

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// drainOutput sends payload as AppendOutput cuts it, and returns the messages.
func drainOutput(t testing.TB, o Output, payload []byte, maxMessage int) [][]byte {
	t.Helper()
	var messages [][]byte
	for first := true; first || len(payload) > 0; first = false {
		msg, n := AppendOutput(nil, &o, payload, maxMessage)
		if n == 0 && len(payload) > 0 {
			t.Fatalf("AppendOutput took nothing of %d bytes", len(payload))
		}
		if len(msg) > max(maxMessage, minOutputMessage) {
			t.Fatalf("message of %d bytes, at most %d allowed", len(msg), maxMessage)
		}
		messages = append(messages, msg)
		payload, o.Gap = payload[n:], 0
	}
	return messages
}

// payloads are shaped to hit every way of cutting and escaping.
func payloads() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 200_000)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	return map[string][]byte{
		"empty":          nil,
		"short":          []byte("hello\n"),
		"lines":          bytes.Repeat([]byte(strings.Repeat("x", 79)+"\n"), 3000),
		"one long line":  bytes.Repeat([]byte("y"), 200_000),
		"multibyte":      bytes.Repeat([]byte("日本語 é 🎭\n"), 9000),
		"no newline":     bytes.Repeat([]byte("日本語é🎭"), 9000),
		"quotes":         bytes.Repeat([]byte(`"\`), 60_000),
		"control":        bytes.Repeat([]byte{0, 1, 0x1f, 0x7f}, 30_000),
		"random":         random,
		"invalid":        bytes.Repeat([]byte{0xff, 0xc3, 'a', 0xe2, 0x82}, 30_000),
		"line separator": []byte("\u2028\u2029<>&"),
		"surrogate":      []byte("\xed\xa0\x80x"),
		"late newline":   append(bytes.Repeat([]byte("é"), 20_000), []byte("\n"+strings.Repeat("\x01é\"", 90_000))...),
	}
}

func TestAppendOutputKeepsEveryByte(t *testing.T) {
	for name, payload := range payloads() {
		for _, enc := range []Encoding{EncodingUTF8, EncodingBase64} {
			for _, maxMessage := range []int{0, 1500, MaxOutputMessage} {
				o := Output{ExecutionID: strings.Repeat("e", 128), Type: Stderr, Offset: 1_000_000, Gap: 7, Truncated: true}
				if enc == EncodingBase64 {
					o.Encoding = enc
				}
				var got []byte
				messages := drainOutput(t, o, payload, maxMessage)
				at := o.Offset - int64(len(payload))
				for i, msg := range messages {
					var env struct {
						JSONRPC, Method string
						Params          Output
					}
					if err := json.Unmarshal(msg, &env); err != nil {
						t.Fatalf("%s: %v in %.200q", name, err, msg)
					}
					if !utf8.Valid(msg) {
						t.Fatalf("%s: message %d is not UTF-8", name, i)
					}
					b, err := env.Params.Bytes()
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, b...)
					last := i == len(messages)-1
					if env.Params.Truncated != last || (env.Params.Gap == 7) != (i == 0) {
						t.Fatalf("%s: message %d of %d: truncated %v, gap %d", name, i, len(messages), env.Params.Truncated,
							env.Params.Gap)
					}
					if enc == EncodingBase64 {
						if at += int64(len(b)); env.Params.Offset != at {
							t.Fatalf("%s: offset %d, want %d", name, env.Params.Offset, at)
						}
					}
					if last && env.Params.Offset != o.Offset {
						t.Fatalf("%s: last offset %d, want %d", name, env.Params.Offset, o.Offset)
					}
				}
				want := payload
				if enc == EncodingUTF8 {
					want = []byte(string([]rune(string(payload))))
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("%s %s max %d: payload changed: got %d bytes, want %d", name, enc, maxMessage, len(got), len(want))
				}
			}
		}
	}
}

func TestAppendOutputCutsAfterNewlines(t *testing.T) {
	payload := payloads()["lines"]
	for _, msg := range drainOutput(t, Output{Type: Stdout, Offset: int64(len(payload))}, payload, MaxOutputMessage) {
		m, err := DecodeServerMessage(msg)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(m.Output.Data, "\n") {
			t.Fatalf("a piece ends in the middle of a line: %q", m.Output.Data[len(m.Output.Data)-90:])
		}
		if len(m.Output.Data) < 60_000 && m.Output.Offset != int64(len(payload)) {
			t.Fatalf("a piece that is not the last has only %d bytes", len(m.Output.Data))
		}
	}
}

// The fast path must decode what the encoder writes: falling back would be correct and slow.
func TestFastPathTakesTheEncodersMessages(t *testing.T) {
	for name, payload := range payloads() {
		for _, enc := range []Encoding{"", EncodingBase64} {
			for _, msg := range drainOutput(t, Output{
				ExecutionID: "a.b-c_1", Type: Stdout, Encoding: enc, Offset: 1 << 40,
				Gap: 3,
			}, payload, MaxOutputMessage) {
				fast, ok := parseOutput(msg)
				if !ok {
					t.Fatalf("%s: the fast path refused %.200q", name, msg)
				}
				slow, err := decodeServerMessage(msg)
				if err != nil {
					t.Fatal(err)
				}
				if *fast != *slow.Output {
					t.Fatalf("%s: fast and slow decoding differ", name)
				}
				checkDecodeOutput(t, msg, slow.Output)
			}
		}
	}
}

// checkDecodeOutput holds DecodeOutput against the slow decoder, with a buffer
// that is large enough and one that is not.
func checkDecodeOutput(t *testing.T, frame []byte, want *Output) {
	t.Helper()
	bytesWanted, err := want.Bytes()
	for _, size := range []int{0, 2 * len(frame)} {
		o, payload, ok := DecodeOutput(frame, make([]byte, 0, size))
		if ok != (err == nil) {
			t.Fatalf("DecodeOutput: %v, but Bytes says %v", ok, err)
		}
		if !ok {
			return
		}
		o.Data = want.Data
		if o != *want || !bytes.Equal(payload, bytesWanted) {
			t.Fatalf("DecodeOutput: %+v, %q, want %+v", o, payload, want)
		}
	}
}

// Numbers that do not fit would wrap around.
func TestFastPathRefusesHugeNumbers(t *testing.T) {
	frame := []byte(`{"jsonrpc":"2.0","method":"process.output","params":{"execution_id":"x","type":"stdout","data":"","truncated":false,"offset":99999999999999999999}}`)
	if out, ok := parseOutput(frame); ok {
		t.Errorf("decoded as %+v", out)
	}
	if _, err := DecodeServerMessage(frame); err == nil {
		t.Error("decoded")
	}
}

func TestAppendStringIsJSON(t *testing.T) {
	for name, payload := range payloads() {
		var got string
		if err := json.Unmarshal(AppendString(nil, string(payload)), &got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := string([]rune(string(payload))); got != want {
			t.Fatalf("%s: string changed", name)
		}
	}
}

func TestAppendOutputDoesNotAllocate(t *testing.T) {
	payload := payloads()["multibyte"]
	buf := make([]byte, 0, MaxOutputMessage)
	o := Output{ExecutionID: strings.Repeat("e", 128), Type: Stdout, Offset: int64(len(payload))}
	for _, enc := range []Encoding{"", EncodingBase64} {
		o.Encoding = enc
		if n := testing.AllocsPerRun(20, func() { AppendOutput(buf, &o, payload, MaxOutputMessage) }); n != 0 {
			t.Errorf("encoding %q: %v allocations", enc, n)
		}
	}
}

func FuzzServerMessage(f *testing.F) {
	for _, payload := range payloads() {
		if len(payload) > 2000 {
			payload = payload[:2000]
		}
		msg, _ := AppendOutput(nil, &Output{ExecutionID: "x", Type: Stdout, Offset: 12, Gap: 1}, payload, MaxOutputMessage)
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		fast, ok := parseOutput(frame)
		if !ok {
			_, _ = DecodeServerMessage(frame)
			return
		}
		slow, err := decodeServerMessage(frame)
		if err != nil {
			t.Fatalf("the fast path accepted what encoding/json refuses: %v", err)
		}
		if slow.Output == nil || *fast != *slow.Output {
			t.Fatalf("fast %+v, slow %+v", fast, slow.Output)
		}
		checkDecodeOutput(t, frame, slow.Output)
	})
}

func FuzzAppendOutput(f *testing.F) {
	f.Add([]byte("a\nb"), 0)
	f.Add([]byte("\xffé\u2028\x00\""), 100)
	f.Fuzz(func(t *testing.T, payload []byte, repeat int) {
		payload = bytes.Repeat(payload, 1+(repeat&0xff))
		var got strings.Builder
		for _, msg := range drainOutput(t, Output{Type: Stdout, Offset: int64(len(payload))}, payload, 0) {
			m, err := decodeServerMessage(msg)
			if err != nil {
				t.Fatal(err)
			}
			got.WriteString(m.Output.Data)
		}
		if got.String() != string([]rune(string(payload))) {
			t.Fatal("payload changed")
		}
	})
}
