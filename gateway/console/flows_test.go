package console_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

const (
	newPrompt = "Command for a new session"
	prompt    = "Command"
)

// TestFirstVisitorRunsACommandWithin10Seconds: from the address to output and exit code, with nothing to set up.
func TestFirstVisitorRunsACommandWithin10Seconds(t *testing.T) {
	s := serve(t)
	p := open(t, s.url("/"))
	p.find("textbox", newPrompt)
	p.until("the focus to be where the command is typed", func() bool {
		return eval[bool](p, "document.activeElement?.placeholder === 'Run a command in a new session'")
	})
	p.press("echo hello, $((40 + 2)); echo oops >&2; exit 3\r")
	p.sees("hello, 42")
	p.sees("oops")
	p.sees("exit code 3")
	if took := eval[float64](p, "performance.now() / 1000"); took > 10 { // since the address was asked for
		t.Errorf("it took %v s", took)
	}
	p.click("link", "Sessions")
	p.sees("1 session")
	p.sees("attached")
}

// TestCommandIsPausedResumedAndCanceled, and the page says so in words.
func TestCommandIsPausedResumedAndCanceled(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.typeInto("textbox", newPrompt, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done\r")
	p.sees("line 3")
	p.click("button", "Pause")
	p.sees("paused for")
	p.click("button", "Resume")
	p.sees("running for")
	p.click("button", "Cancel")
	p.sees("canceled")
	if buttons := p.all("button", "Pause"); len(buttons) > 0 {
		t.Error("what has ended can be paused")
	}
}

// TestPageSaysWhatTheOutputLacks: lines that were dropped, and lines that were cut.
func TestPageSaysWhatTheOutputLacks(t *testing.T) {
	p := open(t, serve(t, "--max-output=64KiB", "--max-line=1KiB").url("/"))
	p.typeInto("textbox", newPrompt, "head -c 5000 /dev/zero | tr '\\0' x; echo; seq 30000\r")
	p.sees("dropped: past the output limit")
	p.sees("1 line was cut")
}

// TestPageSaysThatTheOutputLimitIsReached while the command still runs.
func TestPageSaysThatTheOutputLimitIsReached(t *testing.T) {
	p := open(t, serve(t, "--max-output=64KiB").url("/"))
	p.typeInto("textbox", newPrompt, "seq 30000; sleep 60\r")
	p.sees("running for")
	p.sees("output limit")
}

// TestReloadFindsTheCommandAgain: its output, its state, and the page that was open.
func TestReloadFindsTheCommandAgain(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.typeInto("textbox", newPrompt, "echo before; sleep 2; echo after\r")
	p.sees("before")
	p.reload()
	p.sees("before")
	p.sees("after")
	p.sees("exit code 0")
	p.typeInto("textbox", prompt, "echo one more\r")
	p.sees("one more")
}

// TestLostConnectionIsMendedInPlace: output goes on where it was, nothing is missing or doubled, and what is typed
// meanwhile stays.
func TestLostConnectionIsMendedInPlace(t *testing.T) {
	w := newCable(t, serve(t).address)
	p := open(t, "http://"+w.address+"/")
	p.allow("ERR_") // requests that were cut
	p.allow("WebSocket connection")
	p.typeInto("textbox", newPrompt, "for i in $(seq 100); do echo line $i; sleep 0.03; done\r")
	p.sees("line 10")
	p.typeInto("textbox", prompt, "echo ty")
	w.cut(true)
	p.sees("econnecting")
	p.press("ped")
	w.mend()
	p.sees("Reconnected after")
	p.sees("exit code 0")
	p.press("\r")
	p.sees("typed")
	p.press("\t") // anywhere: the output of the first command is what is read below
	p.click("link", "for i in $(seq 100); do echo line $i; sleep 0.03; done exit code 0")
	p.sees("line 100")
	lines := eval[string](p, "document.querySelector('.output').innerText")
	for i := range 100 {
		if n := strings.Count("\n"+lines, fmt.Sprintf("\nline %d\n", i+1)); n != 1 {
			t.Errorf("line %d is there %d times", i+1, n)
		}
	}
}

// TestTypingStaysQuickBeside50000Lines: each key is on the page within 200 ms while output comes in.
func TestTypingStaysQuickBeside50000Lines(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.typeInto("textbox", newPrompt, "seq -f 'this is line number %g of fifty thousand' 50000; echo done\r")
	p.find("textbox", prompt)
	p.typeInto("textbox", prompt, "")
	eval[bool](p, `window.slowest = 0, document.activeElement.addEventListener("input", (e) => {
		requestAnimationFrame(() => window.slowest = Math.max(window.slowest, performance.now() - e.timeStamp));
	}), true`)
	for _, r := range "echo still quick" {
		p.press(string(r))
	}
	p.sees("exit code 0")
	p.until("the last line", func() bool {
		return eval[bool](p, "document.querySelector('.output').textContent.includes('number 50000 of')")
	})
	if typed := eval[string](p, "document.activeElement.value"); typed != "echo still quick" {
		t.Errorf("typed: %q", typed)
	}
	slowest := eval[float64](p, "window.slowest")
	t.Logf("the slowest key took %.0f ms", slowest)
	if slowest > 200 {
		t.Errorf("a key took %.0f ms", slowest)
	}
	if lines := eval[int](p, "document.querySelector('.output').textContent.split('\\n').length"); lines < 50_000 {
		t.Errorf("%d lines are shown", lines)
	}
}

// TestTokenIsAskedForAndForgotten: it is kept in memory, in sessionStorage only if its owner asks for
// that, and never in the URL.
func TestTokenIsAskedForAndForgotten(t *testing.T) {
	s := serve(t, "--auth=token", "--token-file="+tokenFile(t))
	p := open(t, s.url("/"))
	p.allow("401")
	p.typeInto("textbox", "Token", "wrong-wrong-wrong-wrong\r")
	p.sees("not valid")
	p.press("a", chromedp.ModifierCtrl)
	p.press(aliceToken + "\r")
	p.sees("No sessions")
	stored := "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
	if text := eval[string](p, stored); strings.Contains(text, "staple") {
		t.Errorf("the token is kept: %s", text)
	}
	p.typeInto("textbox", newPrompt, "echo signed in\r")
	p.sees("signed in")
	p.reload()
	p.find("textbox", "Token") // it was forgotten
	p.click("checkbox", "Keep it in this tab until it is closed, also over a reload")
	p.typeInto("textbox", "Token", aliceToken+"\r")
	p.sees("signed in") // the page that the URL names
	p.reload()
	p.sees("signed in")
	elsewhere := "JSON.stringify([{...localStorage}, document.cookie, location.href])"
	if text := eval[string](p, elsewhere); strings.Contains(text, "staple") {
		t.Errorf("the token is kept elsewhere: %s", text)
	}
	p.click("button", "Sign out")
	p.find("textbox", "Token")
	if text := eval[string](p, stored); strings.Contains(text, "staple") {
		t.Errorf("the token is kept after the end: %s", text)
	}
}

// TestExpiredTokenIsAskedForAgain, and the page goes on where it was.
func TestExpiredTokenIsAskedForAgain(t *testing.T) {
	tokens := tokenFile(t)
	p := open(t, serve(t, "--auth=token", "--token-file="+tokens).url("/"))
	p.allow("401")
	p.typeInto("textbox", "Token", aliceToken+"\r")
	p.typeInto("textbox", newPrompt, "echo here\r")
	p.sees("exit code 0")
	const renewed = "another-horse-battery-staple-3"
	if err := os.WriteFile(tokens, []byte("alice "+renewed+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.sees("not accepted any more")
	p.typeInto("textbox", "Token", renewed+"\r")
	p.sees("here")
}

// TestHostileOutputIsText: no markup of it is markup, no script runs, no escape sequence reaches the page.
func TestHostileOutputIsText(t *testing.T) {
	p := open(t, serve(t).url("/"))
	const hostile = `<img src=x onerror="window.owned=1"><script>window.owned=1</script>`
	const format = `'%s\033]0;title\007 \033[31mred\033[0m \033[8mhidden\033[0m\n'`
	p.typeInto("textbox", newPrompt, "printf "+format+" '"+hostile+"'; exit 1\r")
	p.sees(hostile + " red hidden")
	p.sees("exit code 1")
	p.click("link", "About")
	p.sees("This session")
	p.click("link", "Sessions")
	p.sees("1 session")
	if eval[bool](p, "'owned' in window || document.querySelector('#app img, #app script') !== null") {
		t.Error("output became part of the page")
	}
}

// chooseFirst shows the command of the session that has started last.
func (p *tab) chooseFirst() {
	p.t.Helper()
	p.until("a command", func() bool {
		return eval[bool](p, "((a) => a !== null && (a.click(), true))(document.querySelector('.rail a'))")
	})
}

// TestAuditorReadsTheOutputOfOthers as it comes, and cannot do anything else.
func TestAuditorReadsTheOutputOfOthers(t *testing.T) {
	s := serve(t, "--auth=token", "--token-file="+tokenFile(t))
	populate(t, s, aliceToken, map[string]string{"build": "echo first; sleep 2; printf 'bytes \\377\\n'; echo second"})
	p := open(t, s.url("/"))
	p.allow("401")
	p.allow("403") // that he cannot attach
	p.allow("404")
	p.typeInto("textbox", "Token", aldoToken+"\r")
	p.click("link", "build")
	p.sees("session of another subject")
	p.chooseFirst()
	p.click("button", "Show its output")
	p.sees("first")
	p.sees("bytes \ufffd\nsecond")
	if boxes := p.all("textbox", prompt); len(boxes) > 0 {
		t.Error("an auditor is asked for a command")
	}
}

// TestOperatorSeesEverybodysSessions and ends them, and gets nobody's output.
func TestOperatorSeesEverybodysSessions(t *testing.T) {
	s := serve(t, "--auth=token", "--token-file="+tokenFile(t))
	alice := open(t, s.url("/"))
	alice.allow("401")
	alice.allow("404") // her session, once it is gone
	alice.typeInto("textbox", "Token", aliceToken+"\r")
	alice.typeInto("textbox", newPrompt, "echo secret; sleep 60\r")
	alice.sees("secret")
	id := eval[string](alice, "location.hash.split('/')[2]")

	olga := open(t, s.url("/"))
	olga.allow("401")
	olga.allow("404") // that she cannot attach, or read
	olga.typeInto("textbox", "Token", olgaToken+"\r")
	olga.sees("alice")
	olga.click("button", "Own")
	olga.sees("No sessions")
	olga.click("button", "All")
	olga.must(chromedp.Navigate(s.url("/#/sessions/" + id)))
	olga.sees("session of another subject")
	olga.chooseFirst()
	olga.click("button", "Show its output")
	olga.sees("no such session, or it is not yours")
	olga.sawNot("secret")
	olga.click("button", "End")
	olga.click("button", "End session")
	olga.sees("No sessions")
	alice.sees("has ended")
}

// TestPodsAreShownWithTheirDrain: what they hold, as numbers and plots, and what happens to them.
func TestPodsAreShownWithTheirDrain(t *testing.T) {
	s := serve(t, "--pod=troupe-0", "--max-executions=1")
	p := open(t, s.url("/"))
	p.typeInto("textbox", newPrompt, "yes | head -c 100000; sleep 60\r")
	p.sees("running for")
	p.click("link", "Pods")
	p.sees("1 of 100")
	p.sees("troupe-0 is ready")
	p.until("six plots", func() bool { return eval[bool](p, "document.querySelectorAll('.plot canvas').length === 6") })
	p.accessible("the pods")
	c, err := troupe.Dial(t.Context(), "ws://"+s.address+"/ws", troupe.Options{})
	p.check(err)
	t.Cleanup(func() { c.Detach() })
	for _, id := range []string{"one", "two", "three"} { // of which one runs
		_, _ = c.Execute(t.Context(), wire.ExecuteParams{ExecutionID: id, Argv: []string{"sleep", "60"}})
	}
	p.sees("troupe-0 has refused")
	p.until("the number of refusals", func() bool {
		return eval[string](p, "document.querySelector('tbody tr').lastElementChild.textContent") == "2"
	})
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.sees("troupe-0 is draining")
}

// TestPaletteWorksWithKeysAlone: Ctrl-K, a few letters, Enter.
func TestPaletteWorksWithKeysAlone(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.find("textbox", newPrompt)
	p.press("k", chromedp.ModifierCtrl)
	p.find("combobox", "Find an action or a session")
	p.press("new sess\r")
	p.sees("Nothing has run here")
	p.press("k", chromedp.ModifierCtrl)
	p.find("combobox", "Find an action or a session")
	p.press("light\r")
	if theme := eval[string](p, "document.documentElement.dataset.theme"); theme != "light" {
		t.Errorf("the theme is %q", theme)
	}
	p.press("k", chromedp.ModifierCtrl)
	p.find("combobox", "Find an action or a session")
	p.press("\x1b")
	p.until("the palette to close", func() bool { return len(p.all("dialog", "Command palette")) == 0 })
}

// TestNoOtherPageMayFrameTheConsole: a page that lies over it cannot steal clicks.
func TestNoOtherPageMayFrameTheConsole(t *testing.T) {
	s := serve(t)
	other := newSite(t, `<!doctype html><title>other</title><iframe id="f" src="`+s.url("/")+`"></iframe>`)
	p := open(t, other)
	p.allow("") // all that this page does is refused
	p.until("the frame to be refused", func() bool {
		return eval[bool](p, `new Promise((r) => setTimeout(() => {
			try { void document.getElementById("f").contentWindow.location.href; r(false) } catch { r(true) } }, 200))`)
	})
	p.sawNot("Sessions")
}

// TestOtherOriginsGetNothing: their pages cannot read the list, nor open a session.
func TestOtherOriginsGetNothing(t *testing.T) {
	s := serve(t)
	p := open(t, newSite(t, "<!doctype html><title>other</title>"))
	p.allow("") // see what is asserted
	got := eval[string](p, `fetch("`+s.url("/api/v1/sessions")+`").then((r) => r.text(), () => "refused")`)
	if got != "refused" {
		t.Errorf("another origin's page gets %s", got)
	}
	got = eval[string](p, `new Promise((r) => { const w = new WebSocket("ws://`+s.address+`/ws");
		w.onopen = () => r("open"); w.onerror = () => r("refused") })`)
	if got != "refused" {
		t.Errorf("another origin's page opens a session: %s", got)
	}
}

// newSite serves one page from an origin of its own.
func newSite(t *testing.T, page string) string {
	t.Helper()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, page)
	}))
	t.Cleanup(site.Close)
	return site.URL
}
