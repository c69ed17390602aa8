package console_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// control presses a key together with Ctrl, and perhaps Shift.
func (p *tab) control(key rune, modifiers chromedp.Modifier) {
	p.t.Helper()
	for _, kind := range []input.DispatchKeyEventType{
		input.DispatchKeyEventTypeRawKeyDown, input.DispatchKeyEventTypeKeyUp,
	} {
		_, err := chromedp.Call(p.ctx, input.DispatchKeyEvent, input.DispatchKeyEventParams{
			Type: kind, Key: string(key), Code: "Key" + strings.ToUpper(string(key)), Modifiers: int64(modifiers),
			WindowsVirtualKeyCode: int64(key) - 'a' + 'A',
		})
		p.check(err)
	}
}

// wordOnScreen is where a word stands that begins a line of the terminal.
func (p *tab) wordOnScreen(word string) (x, y float64) {
	p.t.Helper()
	var at []float64
	p.until("a line that begins with "+word, func() bool {
		at = eval[[]float64](p, fmt.Sprintf(`(() => {
			const row = [...document.querySelectorAll(".xterm-rows > div")].find((r) => r.textContent.startsWith(%q));
			if (!row) return [];
			const r = row.getBoundingClientRect();
			return [r.left, r.top + r.height / 2];
		})()`, word))
		return len(at) == 2
	})
	return at[0] + 12, at[1]
}

// TestScrollbackIsSearched: a line that has scrolled away is found and shown, what is not there is said to be so, and
// keys go to the terminal again.
func TestScrollbackIsSearched(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.openTerminal()
	p.keys("echo needle-$((40 + 2)); seq 3000\r")
	p.seesOnScreen("\n3000")
	if strings.Contains(p.screen(), "needle") {
		t.Fatal("the line has not scrolled away")
	}
	p.control('f', chromedp.ModifierCtrl|chromedp.ModifierShift)
	p.typeInto("searchbox", "Search the terminal", "needle-42\r")
	p.seesOnScreen("needle-42")
	p.typeInto("searchbox", "Search the terminal", "-nowhere")
	p.sees("Not found")
	p.press("\x1b")
	p.until("the search to close", func() bool { return len(p.all("searchbox", "Search the terminal")) == 0 })
	p.keys("echo on $((1 + 1))\r")
	p.seesOnScreen("on 2")
}

// TestSelectedTextIsCopied with Ctrl-Shift-C, and the program gets no key; Ctrl-C is the program's.
func TestSelectedTextIsCopied(t *testing.T) {
	p := open(t, serve(t).url("/"))
	_, err := chromedp.CallBrowser(p.ctx, browser.SetPermission, browser.SetPermissionParams{
		Permission: &browser.PermissionDescriptor{Name: "clipboard-read"}, Setting: browser.PermissionSettingGranted,
		BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID,
	})
	p.check(err)
	p.openTerminal()
	p.keys("echo copy-$((40 + 2)); cat -v\r")
	x, y := p.wordOnScreen("copy-42")
	p.must(chromedp.MouseClickXY(x, y), chromedp.MouseClickXY(x, y, chromedp.ClickCount(2)))
	p.control('c', chromedp.ModifierCtrl|chromedp.ModifierShift)
	p.until("the clipboard", func() bool { return eval[string](p, "navigator.clipboard.readText()") == "copy-42" })
	p.keys("still here\r")
	p.seesOnScreen("still here\nstill here")
	p.control('c', chromedp.ModifierCtrl)
	p.seesOnScreen("^C\nready>") // what is typed before is the tty's to lose
	p.keys("echo back $((1 + 1))\r")
	p.seesOnScreen("back 2")
}

// TestPlainHTTPIsEnough: behind an ingress without TLS, which a test has and a user may, a browser keeps parts of its
// interface from pages (https://developer.mozilla.org/docs/Web/Security/Secure_Contexts).
func TestPlainHTTPIsEnough(t *testing.T) {
	s := serve(t, "--auth=token", "--token-file="+tokenFile(t))
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, "http://"+net.JoinHostPort(plainHost, port)+"/")
	p.allow("401")
	p.allow("Cross-Origin-Opener-Policy") // which only secure pages have
	p.typeInto("textbox", "Token", aliceToken+"\r")
	if eval[bool](p, "isSecureContext") {
		t.Fatal("the page is secure")
	}
	p.typeInto("textbox", newPrompt, "echo a command; sleep 60\r")
	p.sees("running for")
	p.click("button", "Copy")
	p.sees("Output copied")
	p.click("link", "Terminals")
	p.click("button", "Open a terminal")
	p.typeInto("textbox", terminalInput, "")
	p.keys("clear; echo copy-$((40 + 2)); cat\r")
	x, y := p.wordOnScreen("copy-42")
	p.must(chromedp.MouseClickXY(x, y), chromedp.MouseClickXY(x, y, chromedp.ClickCount(2)))
	p.control('c', chromedp.ModifierCtrl|chromedp.ModifierShift)
	p.sees("Selection copied")
}

// TestLinksAskBeforeTheyOpen, name where they lead rather than what they say, and no program makes one that runs here.
func TestLinksAskBeforeTheyOpen(t *testing.T) {
	s := serve(t)
	p := open(t, s.url("/"))
	p.openTerminal()
	link := s.url("/console/linked")
	p.keys(`clear; echo ` + link + `; printf '\033]8;;` + s.url("/console/hidden") + `\033\\said-otherwise\033]8;;\033\\\n'; ` +
		`printf '\033]8;;javascript:window.owned=1\033\\scripted\033]8;;\033\\\n'` + "\r")
	follow := func(word string) {
		t.Helper()
		x, y := p.wordOnScreen(word)
		p.must(chromedp.MouseEvent(chromedp.MouseMoved, x, y), chromedp.MouseClickXY(x, y))
	}
	opened := func() (n int) {
		all, err := chromedp.CallBrowser(p.ctx, target.GetTargets, target.GetTargetsParams{})
		p.check(err)
		for _, info := range all.TargetInfos {
			if info.URL == link {
				n++
			}
		}
		return n
	}
	follow("scripted")
	follow("said-otherwise")
	p.sees("Open " + s.url("/console/hidden") + "?")
	p.click("button", "Stay here")
	follow(link)
	p.sees("Open " + link + "?")
	if n := opened(); n != 0 {
		t.Errorf("%d pages are open before the answer", n)
	}
	p.click("button", "Open")
	p.until("a page of its own", func() bool { return opened() == 1 })
	if eval[bool](p, "'owned' in window") {
		t.Error("a link ran a script")
	}
}

// TestPhoneHasTheKeysThatItsKeyboardLacks: as many as the row has, in the form that the program asks for.
func TestPhoneHasTheKeysThatItsKeyboardLacks(t *testing.T) {
	p := open(t, serve(t).url("/"))
	if len(p.all("toolbar", "Keys")) > 0 {
		t.Error("the row is there without a touch screen")
	}
	p.must(chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile, chromedp.EmulateTouch))
	p.openTerminal()
	p.keys("clear; cat -v\r")
	for _, key := range []string{"Escape", "Up", "Shift and Tab"} {
		p.click("button", key)
	}
	p.click("button", "Ctrl")
	p.keys("a")
	p.click("button", "Alt")
	p.keys("b")
	p.keys("c")
	p.seesOnScreen("^[^[[A^[[Z^A^[bc")
	p.click("button", "Ctrl and C")
	p.seesOnScreen("^C\nready>")
	p.keys(`printf '\033[?1h'; clear; cat -v` + "\r")
	p.click("button", "Up")
	p.seesOnScreen("^[OA")
	p.accessible("a terminal on a phone")
}
