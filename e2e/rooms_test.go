package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// attacks are what a subject tries on a process and a file of another in the same container. Each is a shell
// command that succeeds if the attack does; PID, HOME_OF and SESSION are the victim's.
var attacks = map[string]string{
	"read its file":           `cat "$HOME_OF/secret"`,
	"list its home":           `ls "$HOME_OF"`,
	"list all homes":          `ls /workspace`,
	"replace its file":        `echo mine >"$HOME_OF/secret"`,
	"remove its file":         `rm -f "$HOME_OF/secret" && test ! -e "$HOME_OF/secret"`,
	"read its environment":    `tr '\0' '\n' <"/proc/$PID/environ" | grep -q WORD`,
	"read its script":         `tr '\0' '\n' <"/proc/$PID/cmdline" | grep -q in_the_script`,
	"open its directory":      `ls "/proc/$PID/cwd/"`,
	"open its output":         `: >"/proc/$PID/fd/1"`,
	"read its memory":         `head -c 1 "/proc/$PID/mem"`,
	"stop it":                 `kill -STOP "$PID"`,
	"kill it":                 `kill -KILL "$PID"`,
	"kill all":                `kill -STOP -1; sleep 1; kill -KILL "$PID"`,
	"lower its limits":        `prlimit --pid "$PID" --nofile=0`,
	"slow it":                 `renice -n 19 -p "$PID"`,
	"kill the runner":         `kill -KILL 1`,
	"limit the runner":        `prlimit --pid 1 --nofile=0`,
	"read the server's files": `ls /var/lib/troupe`,
	"read metrics":            `curl -sf --max-time 5 http://127.0.0.1:9090/metrics`,
}

// TestSubjectsHaveRoomsOfTheirOwn protects from: a subject that reads, changes or ends what another does in
// the same pod, before a rollout and after it.
func TestSubjectsHaveRoomsOfTheirOwn(t *testing.T) {
	t.Parallel()
	r := newRelease("rooms")
	t.Cleanup(func() { r.cleanUp(t) })
	values := `
auth:
  mode: kubernetes
  kubernetes:
    grantTo:
    - {kind: ServiceAccount, name: alice, namespace: troupe-e2e-rooms}
    - {kind: ServiceAccount, name: bob, namespace: troupe-e2e-rooms}
isolation: {mode: session}
`
	if err := r.create(t.Context(), values); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"alice", "bob"} {
		account(t, r.namespace, name)
	}
	r.roomsAreSeparate(t)
	before := r.pod(t)
	if err := r.upgrade(t.Context(), values, "podAnnotations: {e2e.troupe.dev/rollout: again}"); err != nil {
		t.Fatal(err)
	}
	gone(t, before)
	r.roomsAreSeparate(t)
}

// as returns the options of a service account.
func (r *release) as(t *testing.T, name string) troupe.Options {
	t.Helper()
	opt := r.options()
	opt.Token = accountToken(t, r.namespace, name, "troupe")
	return opt
}

func (r *release) roomsAreSeparate(t *testing.T) {
	t.Helper()
	alice, bob := r.as(t, "alice"), r.as(t, "bob")
	victim := r.dialWith(t, alice)
	if got := victim.Connected().Isolation; got != wire.IsolationSession {
		t.Fatalf("sessions are separated by %q", got)
	}
	home := strings.TrimSpace(shell(t, victim, `echo kept >"$HOME/secret"; echo "$HOME"`))
	e := start(t, victim, wire.ExecuteParams{
		Command: `: in_the_script; echo ready; while :; do sleep 1; done`,
		Env:     map[string]string{"WORD": "of-alice"},
	})
	pid := strconv.Itoa(e.Result().PID)
	attacker := r.dialWith(t, bob)
	for what, command := range attacks {
		line := fmt.Sprintf("PID=%s HOME_OF=%s\n%s", pid, home, command)
		var out, errs bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), commandBound)
		done, err := attacker.Run(ctx, wire.ExecuteParams{Command: line}, &out, &errs)
		cancel()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if done.ExitCode == 0 {
			t.Errorf("another subject can %s: %q", what, out.String())
		}
	}
	if out := shell(t, victim, `cat "$HOME/secret"; kill -0 `+pid); out != "kept\n" {
		t.Errorf("the victim's file has %q", out)
	}
	r.doorsAreClosed(t, victim.ID(), bob)
	if err := e.Cancel(t.Context()); err != nil {
		t.Error(err)
	}
	e.Discard()
	completed(t, e, time.Minute)
}

// doorsAreClosed tries the API and the files of another subject's session, through the ingress.
func (r *release) doorsAreClosed(t *testing.T, session string, thief troupe.Options) {
	t.Helper()
	files, err := troupe.NewFiles(r.url(), session, thief)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	var refused *troupe.FileError
	if _, err := files.List(t.Context(), "."); !errors.As(err, &refused) || refused.StatusCode != http.StatusNotFound {
		t.Errorf("the files of another subject: %v", err)
	}
	own := r.dialWith(t, thief)
	mine, err := troupe.NewFiles(r.url(), own.ID(), thief)
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	content := bytes.Repeat([]byte("through the ingress\n"), 1<<16)
	_, err = mine.Upload(t.Context(), "f", int64(len(content)), contentOf(content), troupe.UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var back bytes.Buffer
	if err := mine.Download(t.Context(), "f", &back, nil); err != nil || !bytes.Equal(back.Bytes(), content) {
		t.Errorf("%d bytes came back of %d: %v", back.Len(), len(content), err)
	}
}

func contentOf(b []byte) func(int64) (io.ReadCloser, error) {
	return func(offset int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b[offset:])), nil }
}
