package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/gateway"
)

// TestFilesOfSeparatedSessionsNeedTheirToken: without authentication every client, also a command of another
// session, is the same subject. What opens a session is its resume token, as at /ws.
func TestFilesOfSeparatedSessionsNeedTheirToken(t *testing.T) {
	s := launch(t, "--auth", "none", "--isolation", "session")
	c, files := room(t, s, s.ws, quick())
	sh(t, c, "echo mine >f")
	another, _ := room(t, s, s.ws, quick())
	with := func(token string) *troupe.Files {
		t.Helper()
		opt := quick()
		opt.Header = http.Header{wire.ResumeTokenHeader: {token}}
		f, err := troupe.NewFiles(s.ws, c.ID(), opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(f.Close)
		return f
	}
	for name, c := range map[string]struct {
		files  *troupe.Files
		status int
	}{
		"no token":           {files, http.StatusForbidden},
		"a wrong token":      {with("wrong"), http.StatusNotFound},
		"of another session": {with(another.Connected().ResumeToken), http.StatusNotFound},
	} {
		var refused *troupe.FileError
		err := c.files.Download(t.Context(), "f", io.Discard, nil)
		if !errors.As(err, &refused) || refused.StatusCode != c.status {
			t.Errorf("%s: %v, want %d", name, err, c.status)
		}
	}
	var got strings.Builder
	err := with(c.Connected().ResumeToken).Download(t.Context(), "f", &got, nil)
	if err != nil || got.String() != "mine\n" {
		t.Errorf("with its token: %q, %v", got.String(), err)
	}
}

// TestWatchesLeaveRoomForTransfers: watches last as long as their clients like, and have a bound of their own.
func TestWatchesLeaveRoomForTransfers(t *testing.T) {
	s := launch(t)
	c, files := room(t, s, s.ws, quick())
	sh(t, c, "echo content >f")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// watch returns the status and the first line.
	watch := func() (status int, header http.Header, line string) {
		t.Helper()
		url := s.http + "/api/v1/sessions/" + c.ID() + "/files/?watch"
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		line, err = bufio.NewReader(resp.Body).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, line
	}
	for range gateway.MaxWatches {
		if status, _, line := watch(); status != http.StatusOK || line != "{\"kind\":\"ready\"}\n" {
			t.Fatalf("%d %q", status, line)
		}
	}
	if status, header, line := watch(); status < 400 || header.Get("Retry-After") == "" {
		t.Errorf("one watch more: %d %q", status, line)
	}
	var got strings.Builder
	if err := files.Download(t.Context(), "f", &got, nil); err != nil || got.String() != "content\n" {
		t.Errorf("a download beside all watches: %q, %v", got.String(), err)
	}
}

// TestRefusedFilesAreProblems: also where the gateway refuses, before anything looks at a file.
func TestRefusedFilesAreProblems(t *testing.T) {
	s := launchFor(t, []string{"alice"})
	for name, want := range map[string]int{"Authorization": http.StatusUnauthorized, "Origin": http.StatusForbidden} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.http+"/api/v1/sessions/x/files/f", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(name, "http://evil.example")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var p struct{ Title, Detail string }
		err = json.NewDecoder(resp.Body).Decode(&p)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want || resp.Header.Get("Content-Type") != "application/problem+json" ||
			p.Title != http.StatusText(want) || p.Detail == "" {
			t.Errorf("%s: %d %v %+v", name, resp.StatusCode, resp.Header, p)
		}
		if (want == http.StatusUnauthorized) != (resp.Header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: %v", name, resp.Header)
		}
	}
}
