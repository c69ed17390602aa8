package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// browser is a page of the console, reached through the ingress.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// open opens the console of a release in Debian's Chromium, without a window.
func (r *release) open(t *testing.T) *browser {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the test of the console needs Debian's chromium")
		}
		t.Skip("chromium is not installed")
	}
	host, port, err := net.SplitHostPort(suite.ingress)
	if err != nil {
		t.Fatal(err)
	}
	allocator, stop := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, chromedp.Flag("host-resolver-rules", "MAP "+r.host+" "+host))...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	b := &browser{t, ctx}
	b.must(chromedp.EmulateViewport(1000, 600))
	b.must(chromedp.Navigate("http://" + net.JoinHostPort(r.host, port) + "/"))
	return b
}

func (b *browser) must(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// sees waits until a script finds what it looks for, for at most a minute.
func (b *browser) sees(what, script string) {
	b.t.Helper()
	eventually(b.t, time.Minute, what, func(context.Context) error {
		found, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](script))
		if err == nil && !found {
			text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText"))
			err = fmt.Errorf("the page says %.300q", text)
		}
		return err
	})
}

// clicks presses a button of the page.
func (b *browser) clicks(name string) {
	b.t.Helper()
	b.sees("the button "+name, fmt.Sprintf(
		`((found) => found !== undefined && (found.click(), true))([...document.querySelectorAll("button")].find((e) => e.textContent === %q))`,
		name))
}

// types presses keys where the focus is.
func (b *browser) types(text string) {
	b.t.Helper()
	for _, r := range text {
		key := input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: string(r), Text: string(r)}
		if r == '\r' {
			key.Key, key.WindowsVirtualKeyCode = "Enter", 13
		}
		up := key
		up.Type, up.Text = input.DispatchKeyEventTypeKeyUp, ""
		for _, event := range []input.DispatchKeyEventParams{key, up} {
			if _, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, event); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// shows waits for a line of the terminal.
func (b *browser) shows(line string) {
	b.t.Helper()
	b.sees("the line "+line, fmt.Sprintf(
		`[...document.querySelectorAll(".xterm-rows > div")].some((r) => r.textContent.replaceAll("\u00a0", " ").trim() === %q)`, line))
}

// TestTerminalInABrowserOutlivesARollout: somebody opens a terminal in the console, through the ingress, and types on
// while all pods are replaced. Protects from: an ingress that does not carry the console or its WebSocket, a page whose
// policy or origin fails behind one, and a shell that a rollout takes from its user without a word.
func TestTerminalInABrowserOutlivesARollout(t *testing.T) {
	t.Parallel()
	const values = "replicaCount: 3\nconsole: {enabled: true}\ndrain: {timeoutSeconds: 120}"
	r := install(t, "console", values)
	before := r.readyPods(t, replicas)
	b := r.open(t)
	b.sees("the question for a token", `document.querySelector("input[name=token]") !== null && document.activeElement.name === "token"`)
	b.types(r.token + "\r")
	b.clicks("Terminal")
	b.sees("a terminal", `document.activeElement?.classList.contains("xterm-helper-textarea") ?? false`)
	b.types("PS1=; stty -echo; pod=$(hostname); x=kept; clear; echo opened $((40 + 2))\r")
	b.shows("opened 42")

	rolled := make(chan error, 1)
	go func() {
		rolled <- r.upgrade(t.Context(), values, fmt.Sprintf("podAnnotations: {e2e.troupe.dev/rollout: %q}", time.Now()))
	}()
	typed := 0
	for pending := true; pending; {
		select {
		case err := <-rolled:
			if err != nil {
				t.Fatal(err)
			}
			pending = false
		default:
			typed++
			b.types(fmt.Sprintf("echo typed %d\r", typed))
			b.shows(fmt.Sprintf("typed %d", typed))
		}
	}
	b.types("echo $x on $pod after all $((40 + 2))\r")
	b.sees("the pod of the shell", `document.querySelector(".xterm-rows").textContent.replaceAll("\u00a0", " ").includes("after all 42")`)
	screen, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.querySelector(".xterm-rows").textContent.replaceAll("\u00a0", " ")`))
	if err != nil {
		t.Fatal(err)
	}
	owner := ""
	for i := range before {
		if strings.Contains(screen, "kept on "+before[i].Name+" after all 42") {
			owner = before[i].Name
		}
	}
	if owner == "" {
		t.Fatalf("the shell is on none of the pods that were: %q", screen)
	}
	for i := range before {
		if before[i].Name != owner { // which drains, since the shell runs
			gone(t, &before[i])
		}
	}
	b.types("echo still $x\r")
	b.shows("still kept")
	b.types("exit\r")
	b.sees("the end of the shell", `document.body.innerText.includes("exit code 0")`)
	t.Logf("%d lines were typed while the pods were replaced", typed)
}
