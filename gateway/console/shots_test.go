package console_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// populate opens sessions as other clients would.
func populate(t *testing.T, s *server, token string, sessions map[string]string) {
	t.Helper()
	for name, command := range sessions {
		opt := troupe.Options{Token: token}
		opt.Session = wire.SessionOptions{Name: name, Labels: map[string]string{"team": "build"}}
		c, err := troupe.Dial(t.Context(), "ws://"+s.address+"/ws", opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Detach() })
		if command == "" {
			continue
		}
		if _, err := c.Execute(context.WithoutCancel(t.Context()), wire.ExecuteParams{Command: command}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPicturesOfThePages makes those of the docs, with TROUPE_PICTURES=1.
func TestPicturesOfThePages(t *testing.T) {
	if os.Getenv("TROUPE_PICTURES") == "" {
		t.Skip("TROUPE_PICTURES is not set")
	}
	picture := func(p *tab, name string) {
		t.Helper()
		eval[bool](p, "document.activeElement?.blur(), new Promise((r) => setTimeout(() => r(true), 1200))")
		p.shoot(filepath.Join("../../docs", "console-"+name+".png"))
	}
	s := serve(t, "--auth=token", "--token-file="+tokenFile(t), "--pod=troupe-0")
	populate(t, s, aliceToken, map[string]string{
		"nightly": "make -j4 test; sleep 900", "pull-4711": "go test ./...; sleep 900", "docs": "",
	})
	populate(t, s, olgaToken, map[string]string{"migration": "pg_dump shop | gzip > shop.gz; sleep 900"})
	p := open(t, s.url("/"))
	p.allow("401")
	p.typeInto("textbox", "Token", olgaToken+"\r")
	p.sees("nightly")
	picture(p, "sessions")
	p.scheme("dark")
	p.typeInto("textbox", newPrompt, `mkdir -p src docs && printf 'package main\n\nfunc main() {\n\tprintln("hello")\n}\n' > src/main.go && `+
		`for i in 1 2 3 4 5 6; do echo "step $i of 6: compiled"; sleep 0.1; done; echo "warning: two tests were skipped" >&2`+"\r")
	p.sees("exit code 0")
	p.typeInto("textbox", prompt, "go vet ./... ; exit 2\r")
	p.sees("exit code 2")
	p.typeInto("textbox", prompt, "for i in $(seq 200); do echo \"ok   package/$i   0.$i s\"; sleep 0.02; done; sleep 600\r")
	p.sees("package/60 ")
	picture(p, "session")
	p.scheme("light")
	p.click("link", "Files")
	p.choose("src")
	p.choose("main.go")
	p.sees("println")
	picture(p, "files")
	p.scheme("dark")
	p.must(chromedp.EmulateViewport(900, 430))
	p.click("link", "Terminals")
	p.click("button", "Open a terminal")
	p.typeInto("textbox", terminalInput, "")
	p.keys(`PS1='\[\e[1;32m\]alice@troupe-0\[\e[0m\]:\[\e[1;34m\]\w\[\e[0m\]\$ '; cd ~+; clear` + "\r")
	p.seesOnScreen("alice@troupe-0")
	p.keys("ls -l --color\r")
	p.keys("top -b -n 1 -w 100 | head -12\r")
	p.seesOnScreen("PID")
	p.click("button", "Open a terminal")
	p.typeInto("textbox", terminalInput, "")
	p.keys("vim -N -u NONE -c 'syntax on' -c 'set background=dark number ruler' src/main.go\r")
	p.seesOnScreen("println")
	eval[bool](p, "new Promise((r) => setTimeout(() => r(true), 800))")
	p.shoot(filepath.Join("../../docs", "console-terminal.png"))
	p.must(chromedp.EmulateViewport(1180, 720))
	p.scheme("light")
	p.click("link", "Pods")
	p.sees("troupe-0 is ready")
	eval[bool](p, "new Promise((r) => setTimeout(() => r(true), 12_000))") // some samples
	picture(p, "pods")
	p.must(chromedp.NavigateBack())
	p.must(chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile, chromedp.EmulateTouch))
	p.click("link", "Commands (1)")
	p.sees("package/")
	picture(p, "phone")
}
