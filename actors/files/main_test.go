//go:build linux

package files

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asProgram makes this test binary the program under test.
const asProgram = "TROUPE_TEST_FILES"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m)
}

// command returns the program with its request, to be run in dir.
func command(t *testing.T, dir string, req *Request) *exec.Cmd {
	t.Helper()
	arg, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], string(arg))
	cmd.Dir, cmd.Env = dir, append(os.Environ(), asProgram+"=1")
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// run runs a request and returns the first reply and what follows it. It runs in this process:
// starting the program takes long with the race detector.
func run(t *testing.T, dir string, req *Request, stdin io.Reader) (*Reply, []byte) {
	t.Helper()
	r, rest, _ := exchange(t, dir, req, stdin)
	return r, rest
}

// exchange is run, and also returns the length of the first reply.
func exchange(t *testing.T, dir string, req *Request, stdin io.Reader) (r *Reply, rest []byte, length int) {
	t.Helper()
	arg, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	exit := make(chan int, 1)
	go func() {
		exit <- serve(dir, []string{string(arg)}, stdin, w)
		w.Close()
	}()
	said, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	code := <-exit
	line, rest, _ := bytes.Cut(said, []byte("\n"))
	r = new(Reply)
	if err := json.Unmarshal(line, r); err != nil {
		t.Fatalf("%+v replied %q", req, said)
	}
	if (r.Error != nil) != (code != 0) && len(rest) == 0 {
		t.Fatalf("%+v: error %v, and the exit code is %d", req, r.Error, code)
	}
	return r, rest, len(line) + 1
}

// do runs a request that must succeed.
func do(t *testing.T, dir string, req *Request, stdin string) *Reply {
	t.Helper()
	r, _ := run(t, dir, req, strings.NewReader(stdin))
	if r.Error != nil {
		t.Fatalf("%s %s: %v", req.Op, req.Path, r.Error)
	}
	return r
}

// refused runs a request that must fail with code, and returns the message.
func refused(t *testing.T, dir string, req *Request, stdin string, code Code) string {
	t.Helper()
	r, _ := run(t, dir, req, strings.NewReader(stdin))
	if r.Error == nil || r.Error.Code != code {
		t.Fatalf("%+v: got %v, want the code %s", req, r.Error, code)
	}
	return r.Error.Message
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
