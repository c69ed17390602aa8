package console_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// serveTwo starts two servers that are one service.
func serveTwo(t *testing.T, args ...string) (pods [2]*server) {
	t.Helper()
	var at [2]string
	for i := range at { // addresses that no other process gets
		at[i] = fmt.Sprintf("127.%d.%d.%d:9400", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	}
	for i := range pods {
		pods[i] = serve(t, append([]string{
			fmt.Sprintf("--pod=pod-%d", i), "--peers=pod-0=" + at[0] + ",pod-1=" + at[1], "--peer-listen=" + at[i],
			"--peer-insecure",
		}, args...)...)
	}
	return pods
}

// knowsAll reports whether the server can reach all others.
func (s *server) knowsAll(t *testing.T) bool {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("/api/v1/pods"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct{ Pods []struct{ State string } }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	for _, pod := range list.Pods {
		if pod.State != "ready" {
			return false
		}
	}
	return len(list.Pods) > 1
}

// TestVimOutlivesARollout: while somebody types, the pod that has their connection stops, and they go on at the other
// pod, which has the session. Then that one is to stop as well: they are told how long they have, and save their file.
func TestVimOutlivesARollout(t *testing.T) {
	if _, err := exec.LookPath("vim"); err != nil {
		t.Skip("vim is not installed")
	}
	pods := serveTwo(t, "--drain-timeout=120s")
	w := newCable(t, pods[0].address)
	p := open(t, "http://"+w.address+"/")
	p.allow("ERR_")
	p.allow("WebSocket connection")
	p.allow("503")
	p.until("the pods to know each other", func() bool { return pods[0].knowsAll(t) && pods[1].knowsAll(t) })
	p.openTerminal()
	file := filepath.Join(t.TempDir(), "typed.txt")
	p.keys("vim -u NONE -N " + file + "\r")
	p.seesOnScreen("~")
	p.keys("ione ")
	w.lead(pods[1].address)
	p.sees("Reconnected after")
	p.keys("two ")
	p.seesOnScreen("one two")

	stopped := make(chan error, 1)
	if err := pods[1].process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	go func() { stopped <- pods[1].process.Wait() }()
	p.keys("three ")
	p.until("the pod to stop", func() bool {
		w.lead(pods[0].address) // as a service does once a pod is not ready
		select {
		case err := <-stopped:
			return err == nil
		default:
			return false
		}
	})
	p.keys("four")
	p.seesOnScreen("one two three four")

	if err := pods[0].process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.sees("The server is stopping: what runs here may go on for")
	p.press("\x1b")
	p.keys(":x\r")
	p.until("the file", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && string(text) == "one two three four\n"
	})
}

// TestTerminalOutlivesItsToken: the connection is cut after the token has expired. With another one the terminal is
// there again, with its screen and its shell.
func TestTerminalOutlivesItsToken(t *testing.T) {
	tokens := tokenFile(t)
	w := newCable(t, serve(t, "--auth=token", "--token-file="+tokens).address)
	p := open(t, "http://"+w.address+"/")
	for _, expected := range []string{"401", "ERR_", "WebSocket connection"} {
		p.allow(expected)
	}
	p.typeInto("textbox", "Token", aliceToken+"\r")
	p.openTerminal()
	p.keys("x=kept; echo before\r")
	p.seesOnScreen("\nbefore")
	const renewed = "another-horse-battery-staple-3"
	if err := os.WriteFile(tokens, []byte("alice "+renewed+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.sees("not accepted any more")
	w.cut(false)
	p.typeInto("textbox", "Token", renewed+"\r")
	p.seesOnScreen("\nbefore")
	p.typeInto("textbox", terminalInput, "")
	p.keys("echo still $x\r")
	p.seesOnScreen("still kept")
}
