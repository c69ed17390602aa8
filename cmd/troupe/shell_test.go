//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// person is somebody in front of a terminal in which troupe runs.
type person struct {
	*program
	master, slave *os.File
	modes         unix.Termios // of the terminal before troupe

	mu   sync.Mutex
	seen strings.Builder
}

// sit starts troupe in a terminal of 90 by 30.
func sit(t *testing.T, env []string, args ...string) *person {
	t.Helper()
	p := &person{program: troupeCmd(t, append(env, "TERM=xterm"), args...)}
	p.master, p.slave = openTerminal(t)
	p.resize(90, 30)
	modes, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	p.modes = *modes
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.slave, p.slave, p.slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.start()
	go func() {
		buf := make([]byte, 4<<10)
		for {
			n, err := p.master.Read(buf)
			p.mu.Lock()
			p.seen.Write(buf[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *person) screen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

func (p *person) types(keys string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

// sees waits until the terminal shows text after what it showed before.
func (p *person) sees(text string) {
	p.t.Helper()
	defer func() {
		if p.t.Failed() {
			p.t.Logf("the terminal shows %q", p.screen())
		}
	}()
	eventually(p.t, fmt.Sprintf("%q", text), func() bool { return strings.Contains(p.screen(), text) })
}

func (p *person) resize(cols, rows uint16) {
	p.t.Helper()
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows}); err != nil {
		p.t.Fatal(err)
	}
}

// gone waits for the end of troupe, and checks that the terminal is as it was.
func (p *person) gone() (code int) {
	p.t.Helper()
	code = p.exit()
	modes, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	if *modes != p.modes {
		p.t.Errorf("troupe has left the terminal with %+v, it was %+v", *modes, p.modes)
	}
	return code
}

func TestTerminalIsPassedThrough(t *testing.T) {
	s := launch(t)
	p := sit(t, home(t, s.url), "exec", "-it", "--env", "PS1=ready> ", "--", "bash", "--norc", "-i")
	p.sees("ready> ")
	p.types("stty size; echo $TERM\r")
	p.sees("30 90\r\nxterm\r\n")
	p.resize(100, 40)
	p.types("until [ \"$(stty size)\" = '40 100' ]; do sleep .05; done; echo re''sized\r")
	p.sees("resized\r\n")
	p.types("sleep 1000\r")
	p.sees("sleep 1000\r\n")
	p.types("\x03")
	p.sees("^C")
	p.types("read -s -p 'Pass''word: ' secret; echo got $secret\r")
	p.sees("Password: ")
	p.types("hidden\r")
	p.sees("got hidden")
	if strings.Count(p.screen(), "hidden") != 1 {
		t.Errorf("the password is shown: %q", p.screen())
	}
	p.types("~?") // not at the beginning of a line for the shell, but for troupe
	p.sees("~. leaves the command running")
	p.types("exit 7\r")
	if code := p.gone(); code != 7 {
		t.Errorf("code %d", code)
	}
	if strings.Contains(p.screen(), "warning") {
		t.Errorf("it warns: %q", p.screen())
	}
}

// TestShellIsLeftAndFoundAgain by its name, from any machine, with its screen.
func TestShellIsLeftAndFoundAgain(t *testing.T) {
	s := launch(t)
	p := sit(t, home(t, s.url), "shell", "build")
	p.types("PS1='ready> '; X=kept; echo a''b\r")
	p.sees("ab\r\n")
	p.types("\r~.")
	p.sees("troupe shell build")
	if code := p.gone(); code != 0 {
		t.Errorf("leaving: code %d", code)
	}
	p = sit(t, home(t, s.url), "shell", "--keep", "1h", "-C", "/", "build") // another home: nothing is remembered there
	p.sees("--keep, --cwd: the shell build runs already, and only a new one would heed this")
	p.sees("X=kept")
	p.types("stty size; echo $X again\r")
	p.sees("30 90\r\nkept again")
	p.types("exit\r")
	if code := p.gone(); code != 0 {
		t.Errorf("code %d", code)
	}
}

// TestMissingOutputIsDrawnAgain: whoever comes to a terminal that has lost its oldest output, and more colours
// than the server keeps, sees what the program draws anew.
func TestMissingOutputIsDrawnAgain(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	p := sit(t, env, "exec", "-it", "--", "bash", "-c", `trap 'echo drawn at $(stty size)' WINCH
		yes $'\e[38;2;200;100;150mx\e[38;2;250;150;100my' | tr -d '\n' | head -c 6000000
		echo $'\e[0m'xover; while :; do sleep .05; done`)
	p.sees("xover")
	p.types("\r~.")
	p.sees("troupe attach ")
	if code := p.gone(); code != 0 {
		t.Fatalf("leaving: code %d", code)
	}
	id := strings.TrimSuffix(filepath.Base(records(t, env)[0]), ".json")
	p = sit(t, env, "attach", id)
	p.sees("xover")
	p.sees("drawn at ")
	if !strings.Contains(p.screen(), afterGap) {
		t.Error("an escape sequence may go on behind the gap")
	}
	p.signal(syscall.SIGTERM)
	p.gone()
}

// TestMissingOutputIsDrawnByTheServer: then the program is left alone.
func TestMissingOutputIsDrawnByTheServer(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	p := sit(t, env, "exec", "-it", "--", "bash", "-c", `echo title; printf '\e[2;20r\e[2;1H'
		trap 'echo drawn at $(stty size)' WINCH
		yes x | head -c 6000000; echo over; while :; do sleep .05; done`)
	p.sees("over")
	p.types("\r~.")
	p.sees("troupe attach ")
	p.gone()
	p = sit(t, env, "attach", strings.TrimSuffix(filepath.Base(records(t, env)[0]), ".json"))
	p.sees("title")
	p.sees("over")
	time.Sleep(3 * redrawPause)
	if strings.Contains(p.screen(), "drawn at ") {
		t.Error("the size was changed")
	}
	p.signal(syscall.SIGTERM)
	p.gone()
}

// line is a connection to a server that can be cut.
type line struct {
	net.Listener
	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

func layLine(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &line{Listener: l}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			c.mu.Lock()
			if c.conns = append(c.conns, in, out); c.down {
				in.Close()
				out.Close()
			}
			c.mu.Unlock()
			wg.Go(func() { io.Copy(out, in); out.Close() })
			wg.Go(func() { io.Copy(in, out); in.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); c.cut(true); wg.Wait() })
	return c
}

// cut ends all connections. With down, later ones fail until it is called without.
func (c *line) cut(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
	if down {
		for _, conn := range c.conns {
			conn.Close()
		}
	}
}

// TestTypingOverACut: what is typed while the connection is away arrives, once, and in order.
func TestTypingOverACut(t *testing.T) {
	s := launch(t)
	l := layLine(t, s.listen)
	env := home(t, "ws://"+l.Addr().String()+"/ws")
	p := sit(t, env, "exec", "-it", "--env", "PS1=ready> ", "--", "bash", "--norc", "-i")
	p.sees("ready> ")
	p.types("n=0; add() { n=$((n*10+$1)); echo n=$n; }\r")
	p.types("add 1\r")
	p.sees("n=1\r\n")
	for i := 2; i <= 5; i++ {
		l.cut(true)
		p.types(fmt.Sprintf("add %d\r", i))
		l.cut(false)
		p.sees(fmt.Sprintf("n=%s\r\n", "12345"[:i]))
	}
	if n := strings.Count(p.screen(), "resumed after"); n == 0 {
		t.Errorf("nothing says that the connection was lost: %q", p.screen())
	}
	l.cut(true)
	p.sees("connection lost")
	p.types("lost\r~.") // also while it is away
	if code := p.gone(); code != 0 {
		t.Errorf("leaving: code %d", code)
	}
	p.sees("the last bytes that were typed may not have arrived: 5")
}

// TestTerminalIsGivenBack whatever ends troupe.
func TestTerminalIsGivenBack(t *testing.T) {
	for name, end := range map[string]func(*person){
		"SIGTERM":          func(p *person) { p.signal(syscall.SIGTERM) },
		"SIGHUP":           func(p *person) { p.signal(syscall.SIGHUP) },
		"two SIGINTs":      func(p *person) { p.signal(syscall.SIGINT); p.sees("kill"); p.signal(syscall.SIGINT) },
		"a killed command": func(p *person) { p.types("\x1c") },
	} {
		t.Run(name, func(t *testing.T) {
			s := launch(t, "--cancel-grace", "1s")
			p := sit(t, home(t, s.url), "exec", "-it", "-c", `printf '\033[?1049h\033[?25l'; echo up; while :; do sleep 1; done`)
			p.sees("up")
			end(p)
			if code := p.gone(); code == 0 {
				t.Error("code 0")
			}
			if name != "SIGHUP" {
				p.sees(strings.TrimSpace(afterwards))
			}
		})
	}
}

// TestPipedInputIsTyped, and Ctrl-D at its end.
func TestPipedInputIsTyped(t *testing.T) {
	s := launch(t)
	p := shellCmd(t, home(t, s.url), `echo 'stty size; exit 3' | "$TROUPE" exec -it -- bash --norc`)
	p.start()
	if code := p.exit(); code != 3 || !strings.Contains(p.stdout.String(), "24 80") {
		t.Errorf("code %d, %q, %q", code, p.stdout.String(), p.stderr.String())
	}
	for text, want := range map[string]string{
		`hello\n`: "hello\r\nhello\r\n", "hello": "hellohello", "": "", `a\nb`: "a\r\nba\r\nb",
	} {
		p := shellCmd(t, home(t, s.url), `printf '`+text+`' | timeout 20 "$TROUPE" exec -it -- cat`)
		p.start()
		// What is echoed and what cat writes may be in another order.
		code, got := p.exit(), strings.Split(p.stdout.String(), "")
		slices.Sort(got)
		all := strings.Split(want, "")
		if slices.Sort(all); code != 0 || !slices.Equal(got, all) {
			t.Errorf("%q: code %d, %q, %q", text, code, p.stdout.String(), p.stderr.String())
		}
	}
}
