package console_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// connections is how many the server has in all sessions of the token's subject.
func (s *server) connections(t *testing.T, token string) (n int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("/api/v1/sessions"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct{ Sessions []struct{ Connections int } }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d, %v", resp.StatusCode, err)
	}
	for _, session := range list.Sessions {
		n += session.Connections
	}
	return n
}

// TestFollowingAnotherClientTakesOneConnectionUntilItsEnd, however often somebody asks.
func TestFollowingAnotherClientTakesOneConnectionUntilItsEnd(t *testing.T) {
	s := serve(t)
	c, err := troupe.Dial(t.Context(), "ws://"+s.address+"/ws", troupe.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Detach() })
	release := filepath.Join(t.TempDir(), "release")
	e, err := c.Execute(t.Context(), wire.ExecuteParams{
		Command: "echo theirs; until [ -e " + release + " ]; do sleep 0.05; done; echo over",
	})
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, s.url("/#/sessions/"+c.ID()+"/commands/"+e.ID()))
	p.find("button", "Show its output")
	eval[bool](p, `(() => { const b = [...document.querySelectorAll("button")].find((b) => b.textContent === "Show its output");
		b.click(); b.click(); return true })()`)
	p.sees("theirs")
	p.until("one connection of the test and two of the page", func() bool { return s.connections(t, "") == 3 })
	if n := eval[int](p, "document.querySelectorAll('.rail li').length"); n != 1 {
		t.Errorf("the command is listed %d times", n)
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.sees("over")
	p.until("the connection to end with the command", func() bool { return s.connections(t, "") == 2 })
}

// TestSigningOutEndsConnectionsThatAreBeingMade, too: whoever signs in next has none of them.
func TestSigningOutEndsConnectionsThatAreBeingMade(t *testing.T) {
	s := serve(t, "--auth=token", "--token-file="+tokenFile(t))
	p := open(t, s.url("/"))
	p.allow("401")
	p.allow("WebSocket") // it is closed before it is open
	p.typeInto("textbox", "Token", aliceToken+"\r")
	p.find("button", "New session")
	const click = `[...document.querySelectorAll("button")].find((b) => b.textContent === %q).click()`
	eval[bool](p, `(async () => {
		window.sockets = [];
		const Platform = window.WebSocket;
		window.WebSocket = function (url, protocols) { sockets.push(new Platform(url, protocols)); return sockets.at(-1) };
		`+fmt.Sprintf(click, "New session")+`;
		while (sockets.length === 0) await null;
		`+fmt.Sprintf(click, "Sign out")+`; return true })()`)
	p.find("textbox", "Token")
	p.until("the WebSocket to close", func() bool { return eval[bool](p, "sockets.every((s) => s.readyState === 3)") })
	p.until("no connection", func() bool { return s.connections(t, aliceToken) == 0 })
	p.typeInto("textbox", "Token", olgaToken+"\r")
	p.find("button", "New session")
	if n := eval[int](p, "sockets.length"); n != 1 {
		t.Errorf("%d WebSockets were made", n)
	}
}

// TestLateRefusalOfAnOldTokenAsksForNoNewOne: an upload was sent with the old one, and another was given since.
func TestLateRefusalOfAnOldTokenAsksForNoNewOne(t *testing.T) {
	tokens := tokenFile(t)
	p := open(t, serve(t, "--auth=token", "--token-file="+tokens).url("/"))
	p.allow("401")
	p.typeInto("textbox", "Token", aliceToken+"\r")
	p.click("button", "New session")
	p.click("link", "Files")
	p.sees("No files")
	eval[bool](p, `(() => {
		const send = XMLHttpRequest.prototype.send;
		XMLHttpRequest.prototype.send = function (body) {
			this.addEventListener("loadend", () => window.answered = this.status);
			window.release = () => send.call(this, body);
		};
		return true })()`)
	file := filepath.Join(t.TempDir(), "late.txt")
	const renewed = "another-horse-battery-staple-3"
	for name, content := range map[string]string{file: "late", tokens: "alice " + renewed + "\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.drop(".files", file)
	p.sees("not accepted any more")
	p.typeInto("textbox", "Token", renewed+"\r")
	p.sees("No files")
	eval[bool](p, "release(), true")
	p.until("the answer to the upload", func() bool { return eval[int](p, "window.answered ?? 0") == http.StatusUnauthorized })
	eval[bool](p, "new Promise((done) => setTimeout(() => done(true), 200))") // for what the page may do then
	p.sawNot("Sign in")
}

// TestPageKeepsTheLast60000Lines, and says how many came before.
func TestPageKeepsTheLast60000Lines(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.typeInto("textbox", newPrompt, "seq 71000\r")
	p.sees("exit code 0")
	p.sees("earlier lines are not shown here")
	var lines []string
	p.until("the last line", func() bool {
		lines = strings.Fields(eval[string](p, "document.querySelector('.output').textContent"))
		return len(lines) > 0 && lines[len(lines)-1] == "71000"
	})
	if len(lines) < 60_000 {
		t.Errorf("%d lines are shown", len(lines))
	}
}

// TestTwoThousandFilesAreUploadedFromOneDrop, and of more none.
func TestTwoThousandFilesAreUploadedFromOneDrop(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "many")
	if err := os.MkdirAll(filepath.Join(dir, "z-empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	add := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 2000 {
		add(fmt.Sprintf("f%04d", n))
	}
	p := open(t, serve(t).url("/"))
	p.click("button", "New session")
	p.click("link", "Files")
	p.sees("No files")
	// What is sent is answered here: the bound is the page's, and 2,000 uploads take long.
	eval[bool](p, `XMLHttpRequest.prototype.send = function () {
		Object.defineProperty(this, "status", { value: 201 });
		window.uploaded = (window.uploaded ?? 0) + 1;
		this.onload();
	}, true`)
	p.drop(".files", dir)
	p.until("2,000 uploads", func() bool { return eval[int](p, "window.uploaded ?? 0") == 2000 })
	add("g2000")
	p.drop(".files", dir)
	p.sees("more than 2000 files")
	time.Sleep(100 * time.Millisecond)
	if n := eval[int](p, "window.uploaded"); n != 2000 {
		t.Errorf("%d files were sent", n)
	}
}
