package console_test

import (
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

const axeFile = "web/node_modules/axe-core/axe.min.js"

// accessible runs axe-core (https://github.com/dequelabs/axe-core) on what the page shows, dark and light.
func (p *tab) accessible(what string) {
	p.t.Helper()
	axe, err := os.ReadFile(axeFile)
	if err != nil {
		if os.Getenv("CI") != "" {
			p.t.Fatal(err)
		}
		p.t.Skip("axe-core is not installed: run make console")
	}
	for _, scheme := range []string{"light", "dark"} {
		p.scheme(scheme)
		eval[bool](p, string(axe)+"; true")
		found := eval[string](p, `axe.run(document, {resultTypes: ["violations"]}).then((r) => r.violations.map((v) =>
			v.id + ": " + v.help + v.nodes.map((n) => "\n  " + n.html + "\n  " + n.failureSummary).join("")).join("\n"))`)
		if found != "" {
			p.t.Errorf("%s, %s: %s", what, scheme, found)
		}
	}
	p.scheme("light")
}

// scheme has the browser prefer dark or light.
func (p *tab) scheme(scheme string) {
	p.t.Helper()
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	p.check(err)
}

// TestPagesAreAccessible: names, roles, contrast and the rest of what axe-core knows, on each page.
func TestPagesAreAccessible(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.find("textbox", newPrompt)
	p.accessible("no sessions")
	p.typeInto("textbox", newPrompt, "echo out; echo err >&2; sleep 1000\r")
	p.sees("err")
	p.accessible("a running command")
	p.typeInto("textbox", prompt, "exit 3\r")
	p.sees("exit code 3")
	p.accessible("a failed command")
	p.click("link", "About")
	p.sees("Its limits")
	p.accessible("about a session")
	p.press("k", chromedp.ModifierCtrl)
	p.find("combobox", "Find an action or a session")
	p.accessible("the palette")
	p.press("\x1b")
	p.click("link", "Sessions")
	p.sees("sleep 1000")
	p.accessible("sessions")
	p.click("button", "End session "+eval[string](p, "document.querySelector('tbody th a').textContent"))
	p.find("button", "Keep it")
	p.accessible("a question")
}

// TestSignInIsAccessible likewise.
func TestSignInIsAccessible(t *testing.T) {
	p := open(t, serve(t, "--auth=token", "--token-file="+tokenFile(t)).url("/"))
	p.allow("401")
	p.find("textbox", "Token")
	p.accessible("sign-in")
}

// TestPhoneShowsEverything: at a width of 360 px nothing is cut off, nor does the page scroll sideways.
func TestPhoneShowsEverything(t *testing.T) {
	p := open(t, serve(t).url("/"))
	p.must(chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile, chromedp.EmulateTouch))
	fits := func(what string) {
		t.Helper()
		p.until(what+" to fit", func() bool {
			return eval[bool](p, "document.documentElement.scrollWidth <= 360 && document.body.scrollWidth <= 360")
		})
		p.accessible(what + " on a phone")
	}
	p.find("textbox", newPrompt)
	fits("the empty list")
	p.typeInto("textbox", newPrompt, "echo "+strings.Repeat("long-", 60)+"; sleep 1000\r")
	p.sees("long-long")
	p.find("button", "Cancel")
	fits("a command")
	p.click("link", "About")
	fits("about")
	p.click("link", "Sessions")
	p.sees("1 session")
	fits("the list")
}
