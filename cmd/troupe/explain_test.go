//go:build linux

package main

import (
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// answering is a server that gives every request one answer.
func answering(t *testing.T, code int, header, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if header != "" {
			w.Header().Set("Location", strings.ReplaceAll(header, "SELF", "http://"+r.Host))
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// saying is a TCP server that says one thing to every connection, before it hears anything.
func saying(t *testing.T, text string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	greet(t, l, func(c net.Conn) {
		_, _ = c.Write([]byte(text))
		_, _ = c.Read(make([]byte, 1024))
	})
	return l.Addr().String()
}

// greet serves l until the test ends.
func greet(t *testing.T, l net.Listener, serve func(net.Conn)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// TestWrongServerIsNamed: whatever is at the other end, one line says what it is and what to do.
func TestWrongServerIsNamed(t *testing.T) {
	s := launch(t)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}
	if err := os.WriteFile(authority, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	mail, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: secure.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	greet(t, mail, func(c net.Conn) {
		_, _ = c.Write([]byte("220 mail ESMTP\r\n"))
		_, _ = c.Read(make([]byte, 1024))
	})
	closed, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	greet(t, closed, func(net.Conn) {})
	plain := answering(t, 200, "", "<html>\x1b[31mhello</html>")
	for _, tc := range []struct{ name, server, want string }{
		{"a web page", plain, "is not troupe's endpoint: it answered 200 OK instead of opening a WebSocket"},
		{"another path", s.listen + "/x", "it answered 404 Not Found instead"},
		{"a proxy without a server", answering(t, 502, "", ""), "is not ready (502 Bad Gateway )"},
		{
			"a subject with too many connections", answering(t, 429, "", `{"error":"the last 20 are for others: close one"}`),
			"takes no more connections of yours (429 Too Many Requests the last 20 are for others: close one)",
		},
		{"ssh", saying(t, "SSH-2.0-OpenSSH_9.2\r\n"), "does not speak HTTP"},
		{"mail over TLS", "wss://" + mail.Addr().String(), "does not speak HTTP"},
		{"a closed door", closed.Addr().String(), "closed the connection without an answer"},
		{"nothing", saying(t, ""), "closed the connection without an answer; if it expects TLS"},
		{"TLS to plain text", strings.Replace(plain, "http:", "https:", 1), "does not speak TLS: use ws://"},
		{"TLS to troupe", "wss://" + s.listen, "does not speak TLS: use ws://"},
		{"plain text to TLS", strings.Replace(secure.URL, "https:", "http:", 1), "expects TLS: use wss://"},
		{"a foreign authority", secure.URL, "not signed by an authority that is trusted here: name the authority's"},
		{"a closed port", "127.0.0.1:1", "cannot reach ws://127.0.0.1:1/ws: dial tcp"},
		{"no such name", "troupe.invalid", "cannot reach ws://troupe.invalid/ws: lookup"},
		{"a redirect elsewhere", answering(t, 302, "http://127.0.0.1:1/ws", ""), "redirects to http://127.0.0.1:1"},
		{"a redirect in circles", answering(t, 302, "SELF/again", ""), "stopped after 10 redirects"},
		{"a redirect to the server", answering(t, 307, s.url, ""), "redirects to http://127.0.0.1"},
		{"IPv6 without brackets", "::1:8003", "write an IPv6 address in brackets"},
		{"a port out of range", "localhost:99999", "the port must be from 1 to 65535"},
		{"a port that is a word", "ws://h:port", "the URL is not valid"},
		{"another scheme", "unix:///run/x.sock", "the scheme must be ws, wss, http or https"},
		{"a password", "ws://me:geheim@" + s.listen, "must not hold a user name or password"},
		{"a broken URL with a password", "ws://me:geheim@[", "the URL is not valid"},
		{"no host", "ws://:8003", "names no host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env := home(t, tc.server)
			if tc.name == "mail over TLS" {
				env = append(env, "TROUPE_CA_FILE="+authority)
			}
			code, stdout, stderr := runTroupe(t, env, "exec", "--", "echo", "hi")
			if code != 125 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, tc.want) ||
				strings.Contains(stderr, "geheim") || strings.Contains(stderr, "WebSocket dial") {
				t.Errorf("code %d, %q, %q", code, stdout, stderr)
			}
		})
	}
	for _, server := range []string{
		s.url + "/", " " + s.listen + "\n", "http://" + s.listen, s.url + "?x=1", s.url + "#x",
	} {
		if code, stdout, stderr := runTroupe(t, home(t, server), "exec", "--", "echo", "hi"); code != 0 || stdout != "hi\n" {
			t.Errorf("%q: %d, %q", server, code, stderr)
		}
	}
}

// TestTokensAreReadAsWritten: a line break around a token does no harm, and what cannot be one is
// named by its source, not by net/http.
func TestTokensAreReadAsWritten(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	s := launch(t, "--auth", "token", "--token-file", file("users", "me "+secret+"\n"))
	for _, tc := range []struct {
		name, env, want string // want empty: it works
	}{
		{"CRLF", "TROUPE_TOKEN_FILE=" + file("crlf", secret+"\r\n"), ""},
		{"byte order mark", "TROUPE_TOKEN_FILE=" + file("bom", "\ufeff"+secret), ""},
		{"newline in the variable", "TROUPE_TOKEN=" + secret + "\n", ""},
		{"two lines", "TROUPE_TOKEN=" + secret + "\nx", "the token must be one word, but has a byte 0x0a"},
		{"the server's file", "TROUPE_TOKEN_FILE=" + dir + "/users", "users: its content must be one word"},
		{"empty file", "TROUPE_TOKEN_FILE=" + file("empty", "\n"), "empty: its content is empty"},
		{"no file", "TROUPE_TOKEN_FILE=" + dir + "/none", "token file: open " + dir + "/none: no such file"},
		{"a directory", "TROUPE_TOKEN_FILE=" + dir, "is a directory"},
		{"unreadable", "TROUPE_TOKEN_FILE=/proc/self/mem", "token file: read /proc/self/mem"},
		{"none", "X=", "did not authenticate you (401"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stdout, stderr := runTroupe(t, append(home(t, s.url), tc.env), "exec", "--wait", "1m", "--", "echo", "hi")
			if tc.want == "" && (code != 0 || stdout != "hi\n" || stderr != "") ||
				tc.want != "" && (code != 125 || !strings.Contains(stderr, tc.want) || strings.Contains(stderr, secret)) {
				t.Errorf("code %d, %q, %q", code, stdout, stderr)
			}
		})
	}
}

// TestServerCrashIsNotAWrongToken: the client had the right one.
func TestServerCrashIsNotAWrongToken(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	id := detached(t, env, s.url)
	p := troupeCmd(t, env, "exec", "--quiet", "--", "sh", "-c", "echo up; exec sleep 60").start()
	p.stdout.await(t, "up\n")
	s.kill()
	again := launch(t, "--listen", s.listen)
	if again.url != s.url {
		t.Fatal(again.url)
	}
	for _, r := range []struct {
		code   int
		stderr string
	}{{p.exit(), p.stderr.String()}, run(t, env, "attach", id)} {
		if r.code != 125 || !strings.Contains(r.stderr, "any more") ||
			!strings.Contains(r.stderr, "the server was restarted") ||
			strings.Contains(r.stderr, "token") || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("code %d, %q", r.code, r.stderr)
		}
	}
	if left := records(t, env); len(left) != 0 {
		t.Errorf("remembered: %v", left)
	}
}

func run(t *testing.T, env []string, args ...string) struct {
	code   int
	stderr string
} {
	t.Helper()
	code, _, stderr := runTroupe(t, env, args...)
	return struct {
		code   int
		stderr string
	}{code, stderr}
}

// TestLongOutageIsSaid: --quiet silences notes, not the reason for waiting; the end says how long.
func TestLongOutageIsSaid(t *testing.T) {
	defer func(d time.Duration) { slowAfter = d }(slowAfter)
	slowAfter = 300 * time.Millisecond
	isolate(t)
	s := launch(t, "--resume-window", "1500ms")
	f := &fixture{t: t, url: s.url, state: t.TempDir(), signals: make(chan os.Signal)}
	cut := f.begin("exec", "--quiet", "--", "sh", "-c", "echo up; exec sleep 60")
	cut.stdout.await(t, "up\n")
	s.kill()
	f.url = "127.0.0.1:1"
	never := f.begin("exec", "--quiet", "--wait", "1500ms", "--", "true")
	for r, end := range map[*result]string{cut: "for 2s, which is the session's resume window", never: "(tried for"} {
		<-r.done
		lines := strings.Split(strings.TrimSuffix(r.stderr.String(), "\n"), "\n")
		last := lines[len(lines)-1]
		if r.code != 125 || len(lines) > 2 || !strings.Contains(last, end) || !strings.Contains(last, "connection refused") {
			t.Errorf("code %d, %q", r.code, r.stderr)
		}
		if r == cut && (!strings.HasPrefix(lines[0], "troupe: no connection for ") || len(lines) != 2 ||
			!strings.HasSuffix(lines[0], "connection refused; still trying")) { // the other one may end before it is slow
			t.Errorf("%q", lines)
		}
	}
}

// TestArgumentsThatCannotBe: each failure has its exit code and its words.
func TestArgumentsThatCannotBe(t *testing.T) {
	s := launch(t)
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"exec", "--"}, 125, "exec needs a command"},
		{[]string{"exec", "--", ""}, 125, "the name of the command is empty"},
		{[]string{"exec", "", "x"}, 125, "the name of the command is empty"},
		{[]string{"exec", "-c", ""}, 125, "--command is empty"},
		{[]string{"exec", "-c", "", "x"}, 125, "--command is empty"},
		{[]string{"exec", "-c", " "}, 125, "command is blank"},
		{[]string{"exec", "--", "--", "ls"}, 127, "--: command not found"},
		{[]string{"exec", "--", "/"}, 126, "Is a directory"},
		{
			append([]string{"exec", "--", "echo"}, strings.Fields(strings.Repeat(strings.Repeat("x", 100_000)+" ", 12))...), 125,
			"larger than the server accepts (its --max-message)",
		},
		{[]string{"exec", "--", "sh", "-c", "kill -9 $$"}, 137, ""},
		{[]string{"exec", "--", "printf", "%s|", "", "a b", "-x"}, 0, ""},
	} {
		code, stdout, stderr := runTroupe(t, home(t, s.url), tc.args...)
		if code != tc.code || !strings.Contains(stderr, tc.want) || strings.Count(stderr, "\n") > 1 ||
			code == 0 && stdout != "|a b|-x|" {
			t.Errorf("%.60q: code %d, %q, %q", tc.args, code, stdout, stderr)
		}
	}
	long := refusal(wire.ExecuteParams{Env: map[string]string{"A": strings.Repeat("x", maxArgument)}},
		&wire.Error{Code: wire.CodeStartFailed, Message: "true: Argument list too long"})
	code, message := verdict(long)
	if code != 126 || !strings.Contains(message, "one argument or variable has 131074 bytes") {
		t.Errorf("code %d, %q", code, message)
	}
}

// TestClosedStandardStreams: a command runs without any of them.
func TestClosedStandardStreams(t *testing.T) {
	s := launch(t)
	for script, want := range map[string]string{
		`"$TROUPE" exec -- sh -c 'cat; echo out' <&-`:       "out\n",
		`"$TROUPE" exec -i -- sh -c 'cat; echo out' <&-`:    "out\n",
		`"$TROUPE" exec -- sh -c 'echo out; exit 3' >&-`:    "",
		`"$TROUPE" exec -- sh -c 'echo e >&2; echo o' 2>&-`: "o\n",
		`"$TROUPE" exec -- true <&- >&- 2>&-`:               "",
	} {
		p := shellCmd(t, home(t, s.url), script).start()
		code := p.exit()
		if want2 := strings.Contains(script, "exit 3"); want2 != (code == 3) || !want2 && code != 0 ||
			p.stdout.String() != want || p.stderr.String() != "" {
			t.Errorf("%s: code %d, %q, %q", script, code, p.stdout, p.stderr)
		}
	}
}

// TestTerminalThatGoesAway: SIGHUP detaches, with the exit code of the signal and a record.
func TestTerminalThatGoesAway(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	p := troupeCmd(t, env, "exec", "--", "sh", "-c", "echo up; exec sleep 60").start()
	p.stdout.await(t, "up\n")
	p.signal(syscall.SIGHUP)
	if code := p.exit(); code != 129 || len(records(t, env)) != 1 {
		t.Errorf("code %d, %q, records %v", code, p.stderr, records(t, env))
	}
	id := strings.TrimSuffix(filepath.Base(records(t, env)[0]), ".json")
	if r := run(t, env, "cancel", "--end", id); r.code != 0 {
		t.Errorf("%+v", r)
	}
}
