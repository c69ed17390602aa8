package gateway

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEachTokenIsItsSubjects: every line of the file counts, and a subject may have several.
func TestEachTokenIsItsSubjects(t *testing.T) {
	f, err := NewTokenFile(tokenFile(t,
		"alice first-token-of-alice\nbob the-token-of-bob\n#carol the-token-of-carol\nalice second-token-of-alice\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]string{
		"first-token-of-alice": "alice", "second-token-of-alice": "alice", "the-token-of-bob": "bob",
		"the-token-of-carol": "", "the-token-of-bo": "", "the-token-of-bob ": "", "THE-TOKEN-OF-BOB": "", "bob": "", " ": "",
	} {
		subject, err := f.Authenticate(context.Background(), token)
		if subject != want || (want == "") != errors.Is(err, ErrBadToken) {
			t.Errorf("%q: %q %v, want %q", token, subject, err, want)
		}
	}
	if subject, err := f.Authenticate(context.Background(), ""); subject != "" || !errors.Is(err, ErrNoToken) {
		t.Errorf("no token: %q %v", subject, err)
	}
}

// TestManySubjects: no slots are kept for other subjects where there is one only, however many tokens
// it has. How many there are besides those of a file is not known.
func TestManySubjects(t *testing.T) {
	for content, want := range map[string]bool{
		"alice " + goodToken: false,
		"alice first-token-of-alice\nalice second-token-of-alice\n#bob the-token-of-bob\n": false,
		"alice first-token-of-alice\nalice second-token-of-alice\nbob the-token-of-bob\n":  true,
	} {
		f, err := NewTokenFile(tokenFile(t, content), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := ManySubjects(f); got != want {
			t.Errorf("%q: %v", content, got)
		}
	}
	if ManySubjects(NoAuth{}) {
		t.Error("without authentication there are several subjects")
	}
	if !ManySubjects(struct{ Authenticator }{NoAuth{}}) {
		t.Error("an authenticator that does not say has one subject")
	}
}

func TestTokenFileBounds(t *testing.T) {
	line := "alice " + strings.Repeat("t", minToken) + "\n"
	full := strings.Repeat("#\n", (maxTokenFile-len(line))/2) + strings.Repeat("\n", len(line)%2) + line
	for name, c := range map[string]struct {
		content string
		taken   bool
	}{
		"the shortest token":     {line, true},
		"a shorter token":        {"alice " + strings.Repeat("t", minToken-1), false},
		"the longest file":       {full, true},
		"a longer file":          {full + "\n", false},
		"a token without a name": {strings.Repeat("t", minToken), false},
	} {
		if _, err := NewTokenFile(tokenFile(t, c.content), nil); (err == nil) != c.taken {
			t.Errorf("%s (%d bytes): %v", name, len(c.content), err)
		}
	}
}

// TestTokenFileIsNobodyElses: one bit for every user of the machine is too many.
func TestTokenFileIsNobodyElses(t *testing.T) {
	for mode, taken := range map[os.FileMode]bool{
		0o600: true, 0o400: true, 0o640: true, 0o660: true,
		0o604: false, 0o602: false, 0o601: false, 0o644: false, 0o666: false,
	} {
		path := tokenFile(t, "alice "+goodToken)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := NewTokenFile(path, nil); (err == nil) != taken {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// TestTokenFileIsLookedAtOnceASecond: a client that tries tokens does not make the server read
// files.
func TestTokenFileIsLookedAtOnceASecond(t *testing.T) {
	path := tokenFile(t, "alice "+goodToken)
	f, err := NewTokenFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	authenticate := func(checked time.Time, want error) {
		t.Helper()
		f.mu.Lock()
		if !checked.IsZero() {
			f.checked = checked
		}
		f.mu.Unlock()
		if _, err := f.Authenticate(context.Background(), goodToken); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	authenticate(time.Now().Add(-time.Hour), nil) // looks, and notes that it did
	if err := os.Rename(tokenFile(t, "alice another-token-of-alice"), path); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	looked := f.checked
	f.mu.Unlock()
	if time.Since(looked) > time.Minute {
		t.Errorf("the last look was %v ago", time.Since(looked))
	}
	authenticate(time.Now().Add(time.Hour), nil) // the last look was not long ago
	authenticate(time.Now().Add(-tokenFileCheck), ErrBadToken)
}

// TestTokenFileVersions: what tells a changed file from the same one. Each way of changing it
// leaves all else as it was.
func TestTokenFileVersions(t *testing.T) {
	content := "alice " + goodToken
	when := time.Now().Add(-time.Hour).Truncate(time.Second)
	later := when.Add(time.Second)
	for name, change := range map[string]func(path string) error{
		"another file at the same path": func(path string) error { return os.Rename(tokenFile(t, content), path) },
		"another size":                  func(path string) error { return os.WriteFile(path, []byte(content+"\n"), 0o600) },
		"another mode":                  func(path string) error { return os.Chmod(path, 0o640) },
		"another time":                  func(path string) error { return os.Chtimes(path, later, later) },
		"nothing":                       func(string) error { return nil },
	} {
		path := tokenFile(t, content)
		stat := func() os.FileInfo {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			return info
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		before := fileVersion{stat()}
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		if name != "another time" {
			if err := os.Chtimes(path, when, when); err != nil {
				t.Fatal(err)
			}
		}
		if same := before.same(stat()); same != (name == "nothing") {
			t.Errorf("%s: the same: %v", name, same)
		}
	}
	info, err := os.Stat(filepath.Dir(tokenFile(t, content)))
	if err != nil {
		t.Fatal(err)
	}
	if (fileVersion{}).same(info) {
		t.Error("a file that was never read is the same")
	}
}

// TestRolesOfTokens: what each lets its token do, and nothing else. Roles do not include each other.
func TestRolesOfTokens(t *testing.T) {
	f, err := NewTokenFile(tokenFile(t, `alice the-token-of-alice
ulla  the-token-of-ulla   user
vera  the-token-of-vera   viewer
olga  the-token-of-olga   operator
aldo  the-token-of-aldo   auditor
both  the-token-of-both   user,auditor
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	for subject, want := range map[string]string{
		"alice": "create", "ulla": "create", "vera": "list get", "olga": "list get delete", "aldo": "list get read",
		"both": "create list get read",
	} {
		var got []string
		for _, verb := range []Verb{VerbCreate, VerbList, VerbGet, VerbDelete, VerbRead, "other"} {
			who, err := f.Authorize(t.Context(), "the-token-of-"+subject, verb)
			if err == nil {
				got = append(got, string(verb))
			}
			if err == nil && who != subject || err != nil && !errors.Is(err, ErrForbidden) {
				t.Errorf("%s: %q %v", subject, who, err)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s may %v, want %s", subject, got, want)
		}
	}
	for line, want := range map[string]string{
		"alice the-token-of-alice admin":       "line 1: role 1 is unknown: use auditor, operator, user, viewer, joined by commas",
		"alice the-token-of-alice user,":       "role 2 is unknown",
		"alice the-token-of-alice user viewer": "line 1 has 4 words, want two or three: subject token roles",
	} {
		if _, err := NewTokenFile(tokenFile(t, line), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", line, err, want)
		}
	}
	secret := "alice user the-token-of-alice"
	if _, err := NewTokenFile(tokenFile(t, secret+"-long"), nil); err == nil || strings.Contains(err.Error(), "the-token") {
		t.Errorf("%q: %v", secret, err)
	}
}

// TestTokenThatMayNotOpenSessionsIsRefusedAtTheSocket: whoever only watches runs nothing.
func TestTokenThatMayNotOpenSessionsIsRefusedAtTheSocket(t *testing.T) {
	auth, err := NewTokenFile(tokenFile(t, "vera "+goodToken+" viewer,operator,auditor"), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *Config) { c.Auth = auth })
	ws, h := f.dial(t, "/ws", as(goodToken))
	if ws != nil || h.status != 403 || !strings.Contains(h.body, "may not create sessions") {
		t.Errorf("%+v", h)
	}
}
