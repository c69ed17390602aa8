package console_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// keys presses keys as a keyboard does: the text of a key that the page has handled is not inserted.
// chromedp.KeyEvent inserts it in any case, so that a terminal gets it twice.
func (p *tab) keys(text string) {
	p.t.Helper()
	for _, r := range text {
		key := input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: string(r), Text: string(r)}
		if r == '\r' {
			key.Key, key.WindowsVirtualKeyCode = "Enter", 13
		}
		_, err := chromedp.Call(p.ctx, input.DispatchKeyEvent, key)
		p.check(err)
		key.Type, key.Text = input.DispatchKeyEventTypeKeyUp, ""
		_, err = chromedp.Call(p.ctx, input.DispatchKeyEvent, key)
		p.check(err)
	}
}

const terminalInput = "Terminal input"

// screen is the text of the terminal that is shown.
func (p *tab) screen() string {
	p.t.Helper()
	return eval[string](p, "[...document.querySelectorAll('.xterm-rows > div')].map((r) => r.textContent).join('\\n')")
}

// seesOnScreen waits for a text in the terminal.
func (p *tab) seesOnScreen(text string) {
	p.t.Helper()
	p.until("on the screen "+text, func() bool {
		return strings.Contains(strings.ReplaceAll(p.screen(), "\u00a0", " "), text)
	})
}

// openTerminal opens one in a new session.
func (p *tab) openTerminal() {
	p.t.Helper()
	p.click("button", "Terminal")
	p.find("textbox", terminalInput)
	p.typeInto("textbox", terminalInput, "")
	p.keys("PS1='ready> '; clear\r")
	p.seesOnScreen("ready>")
}

// TestTerminalIsStyledUnderThePolicy: colours and the size of rows, which xterm.js sets by means that the policy
// refuses; that it refused nothing is seen at the end of each test.
func TestTerminalIsStyledUnderThePolicy(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.openTerminal()
	p.keys("printf '\\033[31mred\\033[0m \\033[38;2;1;200;2mtrue\\033[0m %s\\n' $((40 + 2)); stty size\r")
	p.seesOnScreen("red true 42")
	colours := eval[int](p, `new Set([...document.querySelectorAll(".xterm-rows span")].map((s) =>
		getComputedStyle(s).color)).size`)
	if colours < 3 {
		t.Errorf("%d colours are on the screen", colours)
	}
	height := eval[float64](p, "document.querySelector('.xterm-rows > div').getBoundingClientRect().height")
	if height < 10 {
		t.Errorf("a row is %v px high", height)
	}
	p.accessible("a terminal")
}

// TestTerminalFollowsItsWindow: the program is told of the new size.
func TestTerminalFollowsItsWindow(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.openTerminal()
	p.must(chromedp.EmulateViewport(700, 400))
	p.until("a smaller screen", func() bool {
		p.keys("clear; echo $(stty size).\r")
		rows := eval[int](p, "document.querySelectorAll('.xterm-rows > div').length")
		return rows < 20 && strings.Contains(p.screen(), fmt.Sprintf("%d ", rows))
	})
}

// TestTerminalGoesOnAfterACutDuringTyping: each key arrives once, on the same screen, with a note.
func TestTerminalGoesOnAfterACutDuringTyping(t *testing.T) {
	w := newCable(t, serve(t).address)
	p := open(t, "http://"+w.address+"/")
	p.allow("ERR_")
	p.allow("WebSocket connection")
	p.allow("426") // the client asks why it was refused
	p.openTerminal()
	p.keys("echo one-")
	p.seesOnScreen("echo one-")
	w.cut(true)
	p.keys("two-")
	p.sees("econnecting")
	p.keys("three")
	w.mend()
	p.sees("Reconnected after")
	p.keys("\r")
	p.seesOnScreen("\none-two-three")
	if n := eval[int](p, "document.querySelectorAll('.xterm').length"); n != 1 {
		t.Errorf("there are %d screens", n)
	}
}

// TestCharactersThatComeInPartsAreWhole: so many dashes fill rows to their ends, although messages end within some.
func TestCharactersThatComeInPartsAreWhole(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.openTerminal()
	p.keys("clear; head -c $(($(stty size | cut -d' ' -f2)*3000)) /dev/zero | LC_ALL=C sed 's/\\x00/\\xe2\\x80\\x94/g'; echo end\r")
	p.seesOnScreen("—\nend")
}

// TestTerminalIsFoundAgainAfterAReload, with what runs in it.
func TestTerminalIsFoundAgainAfterAReload(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.openTerminal()
	p.keys("x=kept; echo before\r")
	p.seesOnScreen("\nbefore")
	p.reload()
	p.seesOnScreen("\nbefore")
	p.typeInto("textbox", terminalInput, "")
	p.keys("echo still $x\r")
	p.seesOnScreen("still kept")
	p.keys("exit 7\r")
	p.sees("exit code 7")
}

// TestHostileTitleIsText: a program may set the title of its tab, and nothing else.
func TestHostileTitleIsText(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.openTerminal()
	const title = `<img src=x onerror=window.owned=1>`
	p.keys(`printf '\033]0;%s\007' '` + title + "'\r")
	p.find("tab", title)
	p.keys(`printf '\033]52;c;b3duZWQ=\007\033]0;a\342\200\256b\007'` + "\r") // the clipboard, and text that turns
	p.find("tab", "a\ufffdb")
	if eval[bool](p, "'owned' in window || document.querySelector('#app img') !== null") {
		t.Error("a title became part of the page")
	}
}

// TestTwentyTerminalsAreOpen while the first of them is flooded: the last takes what is typed, and in the first Ctrl-C
// ends the flood.
func TestTwentyTerminalsAreOpen(t *testing.T) {
	p := open(t, serve(t, "--max-executions=24").url("/"))
	p.openTerminal()
	p.keys("yes flooded\r")
	p.seesOnScreen("flooded\nflooded")
	for range 19 {
		p.click("button", "Open a terminal")
	}
	p.find("tab", "Terminal 20")
	p.typeInto("textbox", terminalInput, "")
	p.keys("echo last $((19 + 1))\r")
	p.seesOnScreen("last 20")
	p.click("tab", "Terminal 1")
	p.typeInto("textbox", terminalInput, "")
	p.control('c', chromedp.ModifierCtrl)
	p.seesOnScreen("^C\nready>")
	p.keys("echo first $((0 + 1))\r")
	p.seesOnScreen("first 1")
}
