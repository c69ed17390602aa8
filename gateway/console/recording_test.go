package console_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// TestRecordingOfATerminalIsPlayed: what it has shown comes again, in its time but for long pauses, at any position,
// and can be downloaded. The terminal goes on.
func TestRecordingOfATerminalIsPlayed(t *testing.T) {
	downloads := t.TempDir()
	p := open(t, serve(t).url("/"))
	_, err := chromedp.CallBrowser(p.ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: downloads,
		BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID,
	})
	p.check(err)
	p.openTerminal()
	p.keys("clear; echo first-$((1 + 0)); sleep 1.5; clear; echo second-$((1 + 1))\r")
	p.seesOnScreen("second-2")
	p.click("button", "Recording")
	p.seesOnScreen("first-1")
	p.seesOnScreen("second-2")
	p.find("button", "Play") // it has stopped at the end
	p.accessible("a recording")
	seek := func(to string) {
		t.Helper()
		eval[bool](p, `((r) => (r.value = `+to+`, r.dispatchEvent(new Event("input", { bubbles: true })), true))(
			document.querySelector(".player input[type=range]"))`)
	}
	seek("Number(r.max) - 1")
	p.seesOnScreen("first-1")
	if strings.Contains(p.screen(), "second-2") {
		t.Error("the position before the end shows the end")
	}
	seek("r.max")
	p.seesOnScreen("second-2")
	seek("Number(r.max) - 1")
	p.click("button", "4×")
	p.click("button", "Play")
	p.seesOnScreen("second-2")
	p.click("button", "Download")
	p.until("the download", func() bool {
		saved, _ := os.ReadFile(filepath.Join(downloads, "recording.cast"))
		return strings.HasPrefix(string(saved), `{"version":2,`) && strings.Contains(string(saved), "second-2")
	})
	p.click("button", "Close the recording")
	p.typeInto("textbox", terminalInput, "")
	p.keys("echo on $((1 + 1))\r")
	p.seesOnScreen("on 2")
}

// TestTerminalsOfOthersAreWatched: an auditor sees what the terminal of another subject has shown, and shows from then
// on. Its programs reach nothing of the page.
func TestTerminalsOfOthersAreWatched(t *testing.T) {
	s := serve(t, "--auth=token", "--token-file="+tokenFile(t))
	c, err := troupe.Dial(t.Context(), "ws://"+s.address+"/ws", troupe.Options{Token: aliceToken})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Detach() })
	release := filepath.Join(t.TempDir(), "release")
	_, err = c.Execute(t.Context(), wire.ExecuteParams{
		Command:  `printf 'hers\033]52;c;b3duZWQ=\007\033]0;title\007 shown'; until [ -e ` + release + ` ]; do sleep 0.05; done; echo and more`,
		Terminal: &wire.Terminal{Cols: 60, Rows: 12, Term: "xterm-256color"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, s.url("/"))
	p.allow("401")
	p.allow("403")
	p.allow("404")
	p.typeInto("textbox", "Token", aldoToken+"\r")
	p.must(chromedp.Navigate(s.url("/#/sessions/" + c.ID())))
	p.chooseFirst()
	p.click("button", "Watch it")
	p.seesOnScreen("hers shown")
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.seesOnScreen("and more")
	p.find("button", "Play") // it has ended
	if rows := eval[int](p, "document.querySelectorAll('.xterm-rows > div').length"); rows != 12 {
		t.Errorf("%d rows, want 12", rows)
	}
}
