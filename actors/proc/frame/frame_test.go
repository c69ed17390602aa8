//go:build linux

package frame

import (
	"bytes"
	"io"
	"reflect"
	"slices"
	"testing"
)

func TestWireRoundTrip(t *testing.T) {
	spec := Start{
		Argv: []string{
			"a",
			"",
			"\xff\xfe",
		},
		Env:       []string{"A=b"},
		Dir:       "/x",
		Workspace: "w",
		Script:    true,
		Terminal:  false,
		Stdin:     true,
		MaxMemory: -1,
	}
	var stream []byte
	stream = append(stream, spec.Encode()...)
	stream = append(stream, New(KindKill).Done()...)
	exited := Exited{Code: 2, Status: 64, OOMKills: 7, SurvivorCount: 3, Survivors: []string{"a", "b"}}
	stream = append(stream, exited.Encode()...)
	for size := 1; size <= len(stream); size++ {
		rest := stream
		in := NewReceiver(func(p, oob []byte) (int, int, error) {
			if len(rest) == 0 {
				return 0, 0, io.EOF
			}
			n := copy(p[:min(size, len(p))], rest)
			rest = rest[n:]
			return n, 0, nil
		})
		k, body, err := in.Next()
		req, decodeErr := DecodeStart(body)
		if err != nil || decodeErr != nil || k != KindStart || !slices.Equal(req.Argv, spec.Argv) ||
			!slices.Equal(
				req.Env,
				spec.Env,
			) || req.Dir != "/x" || req.Workspace != "w" || !req.Stdin || !req.Script || req.MaxMemory != -1 {
			t.Fatalf("%v %v %v %+v", k, err, decodeErr, req)
		}
		if k, body, err := in.Next(); err != nil || k != KindKill || len(body) != 0 {
			t.Fatal(k, body, err)
		}
		_, body, _ = in.Next()
		if e := DecodeExited(body); !reflect.DeepEqual(e, exited) {
			t.Fatalf("%+v", e)
		}
		if _, _, err := in.Next(); err != io.EOF {
			t.Fatal(err)
		}
	}
}

func TestHelloRoundTrip(t *testing.T) {
	want := Hello{
		Version: "v1", PID: 7, Containment: ContainmentTree, Cgroup: "/c", OOMKills: 3, HasPidfd: true,
		Isolation: IsolationSession, IsolationABI: 7, IsolationWhy: "because",
	}
	if got, err := DecodeHello(want.Encode()[headerSize:]); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

// The name of a workspace is a single element of a path, and never one that leads elsewhere.
func TestWorkspaceName(t *testing.T) {
	good := "0123456789abcdefghijklmnoz"
	if !WorkspaceName(good) {
		t.Error("refused", good)
	}
	for _, name := range []string{
		"", "..", good[1:], good + "0", "../" + good[3:], good[1:] + "/", good[1:] + "_", good[1:] + "A",
		good[1:] + "\x00",
	} {
		if WorkspaceName(name) {
			t.Errorf("accepted %q", name)
		}
	}
}

// No bytes from the other side make a receiver or a decoder panic or take more memory than a frame
// may have.
func FuzzReceiver(f *testing.F) {
	f.Add((&Start{Argv: []string{"x"}}).Encode())
	f.Add((&Dead{User: 1, System: 2, MaxRSS: 3, OutOfMemory: true, SurvivorCount: 1, Survivors: []string{"a"}}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		in := NewReceiver(func(p, oob []byte) (int, int, error) {
			if len(b) == 0 {
				return 0, 0, io.EOF
			}
			n := copy(p, b)
			b = b[n:]
			return n, 0, nil
		})
		for {
			_, body, err := in.Next()
			if err != nil {
				return
			}
			body = bytes.Clone(body)
			DecodeStart(body)
			DecodeHello(body)
			DecodeStartFailed(body)
			DecodeDead(body)
			DecodeExited(body)
		}
	})
}
