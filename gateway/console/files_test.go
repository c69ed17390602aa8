package console_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// choose clicks on an entry of the tree.
func (p *tab) choose(name string) {
	p.t.Helper()
	p.until("the entry "+name, func() bool {
		return eval[bool](p, fmt.Sprintf(`[...document.querySelectorAll("[role=treeitem] .name")].some((n) =>
			n.textContent === %q && (n.click(), true))`, name))
	})
}

// drop drops files of this machine on the middle of an element.
func (p *tab) drop(selector string, files ...string) {
	p.t.Helper()
	at := eval[[]float64](p, fmt.Sprintf(`(() => { const r = document.querySelector(%q).getBoundingClientRect();
		return [r.x + r.width / 2, r.y + r.height / 2] })()`, selector))
	send := func(kind input.DispatchDragEventType) {
		_, err := chromedp.Call(p.ctx, input.DispatchDragEvent, input.DispatchDragEventParams{
			Type: kind, X: at[0], Y: at[1],
			Data: &input.DragData{Items: []*input.DragDataItem{}, Files: files, DragOperationsMask: 1},
		})
		p.check(err)
	}
	send(input.DispatchDragEventTypeDragEnter)
	p.until("the page to offer a place for it", func() bool {
		send(input.DispatchDragEventTypeDragOver)
		return eval[bool](p, "document.querySelector('.files.over') !== null")
	})
	send(input.DispatchDragEventTypeDrop)
}

// TestFilesAreUploadedByDropShownAndSaved: a directory that is dropped, what the tree shows of it, text,
// a download, and that nothing is replaced or removed without a question.
func TestFilesAreUploadedByDropShownAndSaved(t *testing.T) {
	dir, downloads := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "project/src"), 0o755); err != nil {
		t.Fatal(err)
	}
	const source = "package main // 100 % <b>text</b>\n"
	for name, content := range map[string]string{
		"project/src/main.go": source, "project/100%.txt": "all\n", "note.txt": "one\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, serve(t).url("/"))
	p.allow("412") // the file exists
	_, err := chromedp.CallBrowser(p.ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: downloads,
		BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID,
	})
	p.check(err)
	p.click("button", "New session")
	p.click("link", "Files")
	p.sees("No files")
	p.drop(".files", filepath.Join(dir, "project"), filepath.Join(dir, "note.txt"))
	p.sees("3 files uploaded")
	p.choose("project")
	p.choose("src")
	p.choose("main.go")
	p.sees(source)
	p.accessible("the files")
	p.click("button", "Download")
	p.until("the download", func() bool {
		saved, _ := os.ReadFile(filepath.Join(downloads, "main.go"))
		return string(saved) == source
	})
	p.reload()
	p.sees(source) // the link leads to the file, in the open tree
	p.choose("100%25.txt")
	p.sees("all")

	if err := os.WriteFile(filepath.Join(dir, "note.txt"), []byte("two\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.drop(".files", filepath.Join(dir, "note.txt"))
	p.sees("note.txt exists. Replace it?")
	p.click("button", "Keep it")
	p.choose("note.txt")
	p.sees("one")
	p.drop(".files", filepath.Join(dir, "note.txt"))
	p.click("button", "Replace")
	p.sees("1 file uploaded")
	p.click("button", "Remove")
	p.sees("Remove note.txt?")
	p.press("\x1b")
	p.click("button", "Remove")
	p.find("button", "Keep it")
	p.press("\t\r") // to Remove: the dialog keeps the focus
	p.until("the file to be gone", func() bool { return !strings.Contains(p.text(), "note.txt") })
}

// TestHostileFilesStayFiles: neither their names nor their content become part of the page, whatever they claim to be.
func TestHostileFilesStayFiles(t *testing.T) {
	const script = `<svg xmlns="http://www.w3.org/2000/svg" onload="window.owned=1"><script>window.owned=1</script></svg>`
	const name = `<img src=x onerror=window.owned=1>`
	p := open(t, serve(t).url("/"))
	p.typeInto("textbox", newPrompt, `printf '%s' '`+script+`' | tee page.html picture.svg '`+name+
		`' > fake.png; touch "$(printf 'turn\342\200\256gpj.exe')" "$(printf 'esc\033[31m.txt')"; `+
		`printf '\211PNG\r\n\032\n<script>window.owned=1</script>' > broken.png`+"\r")
	p.sees("exit code 0")
	p.click("link", "Files")
	for _, file := range []string{"page.html", "picture.svg", "fake.png", name} {
		p.choose(file)
		p.sees(script)
	}
	p.choose("broken.png")
	p.until("an image", func() bool { return eval[bool](p, "document.querySelector('.image img') !== null") })
	p.choose("turn\ufffdgpj.exe")
	p.choose("esc%1B[31m.txt")
	if eval[bool](p, "'owned' in window") {
		t.Error("a file ran a script")
	}
	if eval[bool](p, "document.querySelector('iframe, object, embed, #app script, #app svg[onload]') !== null") {
		t.Error("a file became part of the page")
	}
}
