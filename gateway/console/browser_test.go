package console_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"
)

// The tests drive Debian's Chromium, without a window, against a real trouped. They address what is on a
// page by role and name, as a screen reader does: what has none fails.

// patience is how long a test waits for something to appear on a page, on a loaded machine.
const patience = 20 * time.Second

// binaries builds trouped and what it starts, once.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "troupe-console-")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", dir+"/", "./cmd/trouped", "./cmd/troupe-runner", "./cmd/troupe-files")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

// chromium starts Chromium, once.
var chromium = sync.OnceValues(func() (context.Context, func()) {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox,
		chromedp.Flag("host-resolver-rules", "MAP "+plainHost+" 127.0.0.1"))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}))
	return ctx, func() { cancel(); stop() }
})

func TestMain(m *testing.M) {
	code := m.Run()
	if started {
		_, stop := chromium()
		stop()
	}
	if dir, _ := binaries(); built && dir != "" {
		os.RemoveAll(dir)
	}
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var started, built bool

// plainHost leads to this machine. For a browser it does not: what comes from there over HTTP is not secure, and lacks
// what pages of https, and of loopback addresses, have.
const plainHost = "console.test"

// server is a trouped of its own process.
type server struct {
	address string
	process *exec.Cmd
}

func (s *server) url(path string) string { return "http://" + s.address + path }

// serve starts a server that ends with the test.
func serve(t *testing.T, args ...string) *server {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the tests of the console need Debian's chromium")
		}
		t.Skip("chromium is not installed")
	}
	built = true
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{process: exec.Command(dir+"/trouped", append([]string{
		"--listen=127.0.0.1:0", "--admin-listen=", "--log-format=json", "--cancel-grace=1s",
		"--data-dir=" + t.TempDir(), "--workdir=" + t.TempDir(),
	}, args...)...)}
	output, err := s.process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	ready, said := regexp.MustCompile(`"msg":"ready".*?"listen":"([^"]+)"`), ""
	buffer := make([]byte, 64<<10)
	for s.address == "" {
		n, err := output.Read(buffer)
		said += string(buffer[:n])
		if found := ready.FindStringSubmatch(said); found != nil {
			s.address = found[1]
		} else if err != nil {
			t.Fatalf("trouped did not start: %s", said)
		}
	}
	go func() {
		for {
			if _, err := output.Read(buffer); err != nil {
				return
			}
		}
	}()
	return s
}

// stop kills the server, whose runner then kills what it has started: a drain would wait for commands.
func (s *server) stop() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

// tokenFile is one of alice, who is a user, of olga, who sees and ends everybody's sessions as well, and of aldo, who
// sees and reads them.
func tokenFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	lines := "alice " + aliceToken + "\nolga " + olgaToken + " user,operator\naldo " + aldoToken + " auditor\n"
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	aliceToken = "correct-horse-battery-staple-1"
	olgaToken  = "correct-horse-battery-staple-2"
	aldoToken  = "correct-horse-battery-staple-4"
)

// tab is a page in a profile of its own. At the end of the test it must have reported no error, and sent no request
// to anywhere but its server.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	troubles []string
	allowed  []string // parts of troubles that the test expects
}

// open opens a page.
func open(t *testing.T, address string) *tab {
	t.Helper()
	started = true
	parent, _ := chromium()
	if err := chromedp.Do(parent); err != nil {
		t.Fatal(err)
	}
	p := &tab{t: t}
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.listen(address)))
	p.ctx = ctx
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.Failed() {
			p.shoot(filepath.Join(os.TempDir(), "failed-"+strings.ReplaceAll(t.Name(), "/", "-")+".png"))
		}
		for _, trouble := range p.troubles {
			t.Errorf("the page: %s", trouble)
		}
		cancel()
	})
	p.must(chromedp.EmulateViewport(1180, 720))
	_, err := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	p.check(err)
	_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	p.check(err)
	p.must(chromedp.Navigate(address))
	return p
}

// listen notes what no page of ours does.
func (p *tab) listen(address string) func(any) {
	home, err := url.Parse(address)
	if err != nil {
		p.t.Fatal(err)
	}
	return func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			p.trouble("exception: %s %s", e.ExceptionDetails.Text, e.ExceptionDetails.Exception.Description)
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError || strings.Contains(e.Entry.Text, "Content Security Policy") {
				p.trouble("log: %s %s", e.Entry.Text, e.Entry.URL)
			}
		case *network.EventRequestWillBeSent:
			u, err := url.Parse(e.Request.URL)
			if err != nil || u.Host != home.Host && u.Scheme != "blob" && u.Scheme != "data" {
				p.trouble("a request to %s", e.Request.URL)
			}
		}
	}
}

func (p *tab) trouble(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.allowed {
		if strings.Contains(text, part) {
			return
		}
	}
	p.troubles = append(p.troubles, text)
}

// allow expects troubles that contain the text, also those that the page has had while it loaded.
func (p *tab) allow(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allowed = append(p.allowed, text)
	p.troubles = slices.DeleteFunc(p.troubles, func(t string) bool { return strings.Contains(t, text) })
}

func (p *tab) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *tab) must(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	p.check(chromedp.Do(p.ctx, steps...))
}

// eval evaluates an expression in the page.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for a condition.
func (p *tab) until(what string, met func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !met(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("not within %v: %s; the page says: %q", patience, what, p.text())
		}
	}
}

// reload loads the page again.
func (p *tab) reload() {
	p.t.Helper()
	eval[bool](p, "window.old = true, setTimeout(() => location.reload(), 0), true")
	p.until("the page to load again", func() bool {
		loaded, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool]("!window.old && document.body !== null"))
		return err == nil && loaded
	})
}

// text is what the page shows.
func (p *tab) text() string {
	p.t.Helper()
	return eval[string](p, "document.body.innerText")
}

// sees waits for a text.
func (p *tab) sees(text string) {
	p.t.Helper()
	p.until("the text "+text, func() bool { return strings.Contains(p.text(), text) })
}

// sawNot fails if the page shows a text.
func (p *tab) sawNot(text string) {
	p.t.Helper()
	if shown := p.text(); strings.Contains(shown, text) {
		p.t.Errorf("the page shows %q: %q", text, shown)
	}
}

// find waits for an element of a role and a name.
func (p *tab) find(role, name string) cdp.BackendNodeID {
	p.t.Helper()
	var found cdp.BackendNodeID
	p.until("a "+role+" called "+name, func() bool {
		all := p.all(role, name)
		if len(all) > 0 {
			found = all[0]
		}
		return len(all) > 0
	})
	return found
}

// all are the elements of a role and a name.
func (p *tab) all(role, name string) (found []cdp.BackendNodeID) {
	p.t.Helper()
	document, err := chromedp.Call(p.ctx, dom.GetDocument, dom.GetDocumentParams{})
	p.check(err)
	tree, err := chromedp.Call(p.ctx, accessibility.QueryAXTree, accessibility.QueryAXTreeParams{
		BackendNodeID: document.Root.BackendNodeID, Role: role, AccessibleName: name,
	})
	if err != nil {
		return nil // the document was replaced meanwhile
	}
	for _, node := range tree.Nodes {
		if !node.Ignored {
			found = append(found, node.BackendDOMNodeID)
		}
	}
	return found
}

// click clicks in the middle of an element.
func (p *tab) click(role, name string) {
	p.t.Helper()
	p.until("to click "+name, func() bool {
		node := p.find(role, name)
		if _, err := chromedp.Call(p.ctx, dom.ScrollIntoViewIfNeeded, dom.ScrollIntoViewIfNeededParams{
			BackendNodeID: node,
		}); err != nil {
			return false // it was drawn again meanwhile
		}
		where := func() []dom.Quad {
			box, err := chromedp.Call(p.ctx, dom.GetContentQuads, dom.GetContentQuadsParams{BackendNodeID: node})
			if err != nil {
				return nil
			}
			return box.Quads
		}
		before := where()
		eval[bool](p, "new Promise((done) => setTimeout(() => done(true), 50))")
		if now := where(); len(now) == 0 || !reflect.DeepEqual(before, now) {
			return false // it moves, and a click would come where it was
		}
		q := before[0]
		p.must(chromedp.MouseClickXY((q[0]+q[4])/2, (q[1]+q[5])/2))
		return true
	})
}

// typeInto sets the focus on an element and presses keys; "\r" is Enter.
func (p *tab) typeInto(role, name, keys string) {
	p.t.Helper()
	p.until("to type into "+name, func() bool {
		_, err := chromedp.Call(p.ctx, dom.Focus, dom.FocusParams{BackendNodeID: p.find(role, name)})
		return err == nil
	})
	p.press(keys)
}

func (p *tab) press(keys string, modifiers ...chromedp.Modifier) {
	p.t.Helper()
	p.must(chromedp.KeyEvent(keys, chromedp.KeyModifiers(modifiers...)))
}

// shoot writes a picture of the page.
func (p *tab) shoot(file string) {
	picture, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(file, picture, 0o644)
	}
	if err != nil {
		p.t.Logf("no picture: %v", err)
	}
}

// cable is a TCP proxy whose connections can be cut, and which can refuse new ones.
type cable struct {
	address string
	mu      sync.Mutex
	to      string
	conns   map[net.Conn]struct{}
	down    bool
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &cable{address: l.Addr().String(), to: to, conns: make(map[net.Conn]struct{})}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		w.cut(true)
		wg.Wait()
	})
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", w.leadsTo())
			if err != nil || !w.add(near, far) {
				near.Close()
				continue
			}
			wg.Go(func() { pipe(near, far) })
			wg.Go(func() { pipe(far, near) })
		}
	})
	return w
}

// add registers both ends of a connection, unless the wire is down.
func (w *cable) add(ends ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range ends {
		if w.down {
			c.Close()
			continue
		}
		w.conns[c] = struct{}{}
	}
	return !w.down
}

// cut ends all connections; down: no others are made until mend.
func (w *cable) cut(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
	for c := range w.conns {
		c.Close()
	}
	clear(w.conns)
}

func (w *cable) leadsTo() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to
}

// lead leads new connections to another server, and ends those to the one before.
func (w *cable) lead(to string) {
	if w.leadsTo() == to {
		return
	}
	w.mu.Lock()
	w.to = to
	w.mu.Unlock()
	w.cut(false)
}

func (w *cable) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
}

func pipe(from, to net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
