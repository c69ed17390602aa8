//go:build linux

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// detached starts a command in a detached session at url and returns the session's id.
func detached(t *testing.T, env []string, url string, args ...string) string {
	t.Helper()
	args = append([]string{"exec", "--detach", "--server", url}, args...)
	code, stdout, stderr := runTroupe(t, env, append(args, "--", "sh", "-c", "echo up; exec sleep 60")...)
	id, _, ok := strings.Cut(stdout, " ")
	if code != 0 || !ok {
		t.Fatalf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	return id
}

// records returns the files of remembered sessions.
func records(t *testing.T, env []string) []string {
	t.Helper()
	found, err := filepath.Glob(strings.TrimPrefix(env[0], "HOME=") + "/.local/state/troupe/sessions/*.json")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestRecordedServerIsUsed: TROUPE_SERVER and the configuration file name the server of new
// sessions, not of those that were started elsewhere (docker/cli#3765).
func TestRecordedServerIsUsed(t *testing.T) {
	a, b := launch(t), launch(t)
	env := home(t, a.url)
	id := detached(t, env, b.url)

	if code, stdout, stderr := runTroupe(t, env, "sessions", "--local"); code != 0 || !strings.Contains(stdout, "running") {
		t.Errorf("sessions: %d, %q, %q", code, stdout, stderr)
	}
	p := troupeCmd(t, env, "attach", id).start()
	p.stdout.await(t, "up\n")
	p.signal(2)
	if code := p.exit(); code != 130 {
		t.Errorf("attach: %d, %q", code, p.stderr)
	}
	if code, _, stderr := runTroupe(t, env, "cancel", id[:len(id)-3]); code != 0 {
		t.Errorf("cancel: %d, %q", code, stderr)
	}
	if code, _, stderr := runTroupe(t, env, "attach", id); code != 143 || len(records(t, env)) != 0 {
		t.Errorf("attach to the end: %d, %q, %v", code, stderr, records(t, env))
	}
}

// TestRecordOutlivesTheWordOfOthers: only the recorded server's "no such session" removes a record.
func TestRecordOutlivesTheWordOfOthers(t *testing.T) {
	a, b := launch(t), launch(t)
	env := home(t, a.url)
	id := detached(t, env, b.url)
	ingress := httptest.NewServer(http.NotFoundHandler())
	defer ingress.Close()
	for _, args := range [][]string{
		{"attach", id, "--server", a.url},
		{"cancel", id, "--server", a.url},
		{"cancel", "--end", id, "--server", a.url},
		{"attach", id, "--server", ingress.URL},
		{"attach", id, "--resume-token", "wrong"},
		{"cancel", id, "--server", "127.0.0.1:1"},
	} {
		if code, _, stderr := runTroupe(t, env, args...); code != 125 || len(records(t, env)) != 1 {
			t.Fatalf("%v: code %d, %q, records %v", args, code, stderr, records(t, env))
		}
	}
	if code, _, stderr := runTroupe(t, append(env, "TROUPE_RESUME_TOKEN=another"), "cancel", "--end", id); code != 0 ||
		len(records(t, env)) != 0 {
		t.Errorf("cancel --end: %d, %q, %v", code, stderr, records(t, env))
	}
	id = detached(t, env, b.url)
	s := &store{dir: filepath.Dir(records(t, env)[0])}
	r, err := s.find(id, "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := troupe.Attach(t.Context(), r.URL, id, r.ResumeToken, nothing, troupe.Options{})
	if err != nil || c.Close() != nil {
		t.Fatal(err)
	}
	if code, _, stderr := runTroupe(t, env, "attach", id); code != 125 || !strings.Contains(stderr, "no such session") ||
		len(records(t, env)) != 0 {
		t.Errorf("the recorded server forgot it: %d, %q, %v", code, stderr, records(t, env))
	}
}

// TestServersWithEqualSessionIDs: neither record replaces the other.
func TestServersWithEqualSessionIDs(t *testing.T) {
	one, two := start(t, nil), start(t, nil) // their first session is pod.0
	two.state = one.state
	one.run("exec", "--detach", "--", "hang", "CANCEL")
	two.run("exec", "--detach", "--", "hang", "CANCEL")
	if r := one.run("sessions", "--local"); strings.Count(r.stdout.String(), "running") != 2 {
		t.Errorf("sessions: %q, %q", r.stdout, r.stderr)
	}
	here := *one
	here.url = ""
	if r := here.run("attach", "pod.0"); r.code != 125 || !strings.Contains(r.stderr.String(), "choose with --server") {
		t.Errorf("ambiguous: %d, %q", r.code, r.stderr)
	}
	if r := two.run("cancel", "--end", "pod.0"); r.code != 0 || two.engine.open() != 0 || one.engine.open() != 1 {
		t.Errorf("cancel: %d, %q", r.code, r.stderr)
	}
	if r := here.run("cancel", "--end", "pod.0"); r.code != 0 || one.engine.open() != 0 {
		t.Errorf("cancel: %d, %q", r.code, r.stderr)
	}
}

// TestTokensStayWithTheirServer: a token that was configured for one server is not sent to another
// that a record names; what was used when a session was started is used again.
func TestTokensStayWithTheirServer(t *testing.T) {
	var mu sync.Mutex
	heard := make(map[string]string) // host → Authorization
	spy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		heard[r.URL.Query().Get("session")] = r.Header.Get("Authorization")
		http.Error(w, "unauthorized", http.StatusUnauthorized)
	}))
	defer spy.Close()
	spyURL, err := serverURL(spy.URL)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("\ufefffrom-file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const other = "TROUPE_SERVER=ws://127.0.0.1:1/ws"
	for i, tc := range []struct {
		name string
		kept *access
		env  []string
		args []string
		want string
	}{
		{"another server's token", &access{}, []string{other, "TROUPE_TOKEN=theirs"}, nil, ""},
		{"another server's file", nil, []string{other, "TROUPE_TOKEN_FILE=" + file}, nil, ""},
		{"a token of no server", &access{TokenHash: tokenHash("ours")}, []string{"TROUPE_TOKEN=theirs"}, nil, ""},
		{
			"the same token",
			&access{TokenHash: tokenHash("ours")},
			[]string{other, "TROUPE_TOKEN=ours"},
			nil,
			"Bearer ours",
		},
		{"the same server", &access{}, []string{"TROUPE_SERVER=" + spy.URL, "TROUPE_TOKEN=new\n"}, nil, "Bearer new"},
		{
			"the recorded file",
			&access{TokenFile: file},
			[]string{other, "TROUPE_TOKEN=theirs"},
			nil,
			"Bearer from-file",
		},
		{"the command line", &access{}, []string{other}, []string{"--token", "mine"}, "Bearer mine"},
		{"a record of troupe 0.1", nil, []string{"TROUPE_TOKEN=ours"}, nil, "Bearer ours"},
		{
			"--server takes the configured token",
			&access{TokenFile: file},
			[]string{"TROUPE_TOKEN=ours"},
			[]string{"--server", spy.URL + "/x/ws"},
			"Bearer ours",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env := append(home(t, ""), tc.env...)
			id := "pod." + string(rune('a'+i))
			s := &store{dir: strings.TrimPrefix(env[0], "HOME=") + "/.local/state/troupe/sessions"}
			r := &record{Session: troupe.Session{URL: spyURL, ID: id, ResumeToken: "t"}, Access: tc.kept}
			if err := s.save(r); err != nil {
				t.Fatal(err)
			}
			code, _, stderr := runTroupe(t, env, append([]string{"attach", id}, tc.args...)...)
			mu.Lock()
			defer mu.Unlock()
			if tc.want == "" && !strings.Contains(stderr, "was not sent; give its own with --token-file") {
				t.Errorf("%q", stderr)
			}
			if got, asked := heard[id]; got != tc.want || !asked || code != 125 || len(records(t, env)) != 1 {
				t.Errorf("sent %q (%v), want %q; code %d, %q", got, asked, tc.want, code, stderr)
			}
		})
	}
}

// TestDetachedSessionKeepsItsTokenFile, also where the environment knows another server.
func TestDetachedSessionKeepsItsTokenFile(t *testing.T) {
	dir := t.TempDir()
	users, token := filepath.Join(dir, "users"), filepath.Join(dir, "token")
	const secret = "0123456789abcdef0123456789abcdef\n"
	for path, text := range map[string]string{users: "me " + secret, token: secret} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, b := launch(t), launch(t, "--auth", "token", "--token-file", users)
	env := append(home(t, a.url), "TROUPE_TOKEN=of-a")
	id := detached(t, env, b.url, "--token-file", token)
	if code, _, stderr := runTroupe(t, env, "cancel", "--end", id); code != 0 {
		t.Errorf("code %d, %q", code, stderr)
	}
}

// TestBrokenRecordsAreNamed: a record that cannot be read is neither taken for a session nor skipped
// in silence.
func TestBrokenRecordsAreNamed(t *testing.T) {
	env := home(t, "127.0.0.1:1")
	dir := strings.TrimPrefix(env[0], "HOME=") + "/.local/state/troupe/sessions"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cut.json": `{"url":"ws`, "empty.json": "", "list.json": "[]",
		"other.json": `{"session_id":"pod.1","resume_token":"t"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr := runTroupe(t, env, "sessions", "--local")
	if code != 0 || stdout != "" || strings.Count(stderr, "is not the record of a session") != 4 ||
		len(records(t, env)) != 4 {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
	if code, _, stderr := runTroupe(t, env, "attach", "cut"); code != 125 || !strings.Contains(stderr, "cut.json is not") {
		t.Errorf("attach: %d, %q", code, stderr)
	}
}

// TestConcurrentRunsKeepTheirRecords: they share the directory without a lock.
func TestConcurrentRunsKeepTheirRecords(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions", "--local")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s := &store{dir: dir}
			r := &record{Session: troupe.Session{URL: "ws://h/ws", ID: "pod." + string(rune('a'+i)), ResumeToken: "t"}}
			for range 50 {
				if err := s.save(r); err != nil {
					t.Error(err)
				}
				if _, broken, err := s.list(); len(broken) > 0 || err != nil {
					t.Error(broken, err)
				}
			}
		})
	}
	wg.Wait()
	if all, _, err := (&store{dir: dir}).list(); len(all) != 8 || err != nil {
		t.Errorf("%d records, %v", len(all), err)
	}
}

// TestExecNeedsNoHome: only what must remember a session refuses without a place for it
// (fosrl/cli#44).
func TestExecNeedsNoHome(t *testing.T) {
	s := launch(t)
	server := "TROUPE_SERVER=" + s.url
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	note := "troupe: cannot remember the session: "
	for _, tc := range []struct {
		name, env string
		note      bool
		why       string
	}{
		{"none", "X=", false, "HOME is not set"},
		{"empty", "HOME=", false, "HOME is not set"},
		{"relative", "HOME=x", false, "HOME is not an absolute path"},
		{"a file", "HOME=" + file, true, "not a directory"},
		{"read-only", "HOME=/proc/self", true, "/proc/self/.local"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, quiet := range []bool{false, true} {
				args := []string{"exec", "--", "echo", "hi"}
				if quiet {
					args = []string{"exec", "-q", "--", "echo", "hi"}
				}
				code, stdout, stderr := runTroupe(t, []string{tc.env, server}, args...)
				noted := strings.HasPrefix(stderr, note) && strings.Count(stderr, "\n") == 1
				if code != 0 || stdout != "hi\n" || noted != (tc.note && !quiet) || !noted && stderr != "" {
					t.Errorf("code %d, %q, %q", code, stdout, stderr)
				}
			}
			started := filepath.Join(t.TempDir(), "started")
			for _, args := range [][]string{
				{"exec", "-d", "--", "touch", started},
				{"exec", "--on-exit", "keep", "--", "touch", started},
				{"sessions", "--local"},
				{"attach", "pod.1"},
			} {
				if tc.name == "read-only" && args[0] != "exec" {
					continue // there is nothing to read there, which is no error
				}
				code, stdout, stderr := runTroupe(t, []string{tc.env, server}, args...)
				if _, err := os.Stat(started); err == nil {
					t.Fatalf("%v was started", args)
				}
				if code != 125 || stdout != "" || !strings.Contains(stderr, tc.why) || strings.Count(stderr, "\n") != 1 ||
					!tc.note && !strings.Contains(stderr, "set HOME or XDG_STATE_HOME, or give --state-dir") {
					t.Errorf("%v: code %d, %q, %q", args, code, stdout, stderr)
				}
			}
		})
	}
	t.Run("the state directory alone", func(t *testing.T) {
		env := []string{"HOME=x", "XDG_STATE_HOME=" + t.TempDir()}
		id := detached(t, env, s.url)
		if code, _, stderr := runTroupe(t, env, "cancel", "--end", id); code != 0 {
			t.Errorf("code %d, %q", code, stderr)
		}
	})
	t.Run("a session of elsewhere", func(t *testing.T) {
		env := home(t, s.url)
		id := detached(t, env, s.url)
		b, err := os.ReadFile(records(t, env)[0])
		var r record
		if err != nil || json.Unmarshal(b, &r) != nil {
			t.Fatal(err)
		}
		code, _, stderr := runTroupe(t, []string{server, "TROUPE_RESUME_TOKEN=" + r.ResumeToken}, "cancel", "--end", id)
		if code != 0 {
			t.Errorf("code %d, %q", code, stderr)
		}
	})
}

// TestDetachReservesRoomForItsRecord: a disk that is full before the command starts is found then.
func TestDetachReservesRoomForItsRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions", "--local")
	s := &store{dir: dir}
	r := &record{Command: strings.Repeat("x", 1000), Started: time.Now()}
	if err := s.reserve(r); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.spare)
	if err != nil || info.Size() < 5000 || info.Mode().Perm() != 0o600 {
		t.Errorf("%+v, %v", info, err)
	}
	r.Session = troupe.Session{URL: "ws://h/ws", ID: "pod.1", ResumeToken: "t"}
	if err := s.save(r); err != nil {
		t.Fatal(err)
	}
	if got, err := s.find("pod.1", ""); err != nil || got.Command != r.Command {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.reserve(r); err != nil {
		t.Fatal(err)
	}
	s.release()
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// TestRelativeHomesDoNotCount: the working directory must not choose the server.
func TestRelativeHomesDoNotCount(t *testing.T) {
	isolate(t)
	dir := t.TempDir()
	t.Chdir(dir)
	for _, below := range []string{"x/troupe", "x/.config/troupe", "home/.config/troupe"} {
		if err := os.MkdirAll(below, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(below+"/config.yaml", []byte("server: "+below+":1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("XDG_CONFIG_HOME", "x")
	t.Setenv("HOME", "x")
	if s, err := parse(t); err != nil || s.server != defaultServer {
		t.Errorf("server %q, %v", s.server, err)
	}
	t.Setenv("HOME", dir+"/home")
	if s, err := parse(t); err != nil || s.server != "home/.config/troupe:1" {
		t.Errorf("server %q, %v", s.server, err)
	}
}
