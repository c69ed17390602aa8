package gateway

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// guarded serves h as an endpoint beside /ws.
func guarded(t *testing.T, change func(*Config), h http.HandlerFunc) (g *Gateway, url string) {
	t.Helper()
	cfg := Config{Engine: newFakeEngine(), Auth: anyone{}, MaxMessage: 1 << 20}
	if change != nil {
		change(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewHTTPServer(g.Guard(h), nil)
	s.Start()
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return g, s.URL
}

func post(t *testing.T, url, subject string, body io.Reader) handshake {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+subject)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return handshake{resp.StatusCode, resp.Header, string(b)}
}

func TestGuardTellsTheSubject(t *testing.T) {
	_, url := guarded(t, nil, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, Subject(r.Context())+" says "+string(b))
	})
	if h := post(t, url, "alice", strings.NewReader("hello")); h.body != "alice says hello" {
		t.Errorf("%+v", h)
	}
	if h := post(t, url, "", nil); h.status != http.StatusUnauthorized || h.header.Get("WWW-Authenticate") == "" {
		t.Errorf("without a token: %+v", h)
	}
}

// TestGuardedRequestsAreBounded: in number and in bytes, and one subject leaves half to the others.
func TestGuardedRequestsAreBounded(t *testing.T) {
	release, began := make(chan struct{}), make(chan struct{}, 2*MaxCalls)
	_, url := guarded(t, nil, func(http.ResponseWriter, *http.Request) {
		began <- struct{}{}
		<-release
	})
	ended := make(chan int, 2*MaxCalls)
	call := func(subject string, body io.Reader) {
		go func() { ended <- post(t, url, subject, body).status }()
		select {
		case <-began:
		case <-time.After(testTimeout):
			t.Error("a request was not let through")
		}
	}
	for range MaxCalls / 2 {
		call("greedy", nil)
	}
	if h := post(t, url, "greedy", nil); h.status != http.StatusTooManyRequests || h.header.Get("Retry-After") == "" ||
		!strings.Contains(h.body, `"limit":"calls"`) {
		t.Errorf("beyond half: %+v", h)
	}
	call("large", bytes.NewReader(make([]byte, 1<<20)))
	if h := post(t, url, "large", strings.NewReader("x")); !strings.Contains(h.body, `"limit":"call-bytes"`) {
		t.Errorf("beyond half of the bytes: %+v", h)
	}
	for range MaxCalls/2 - 1 {
		call("other", nil)
	}
	if h := post(t, url, "third", nil); h.status != http.StatusServiceUnavailable {
		t.Errorf("beyond all: %+v", h)
	}
	close(release)
	for range MaxCalls {
		if status := <-ended; status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	}
	if h := post(t, url, "greedy", nil); h.status != http.StatusOK {
		t.Errorf("afterwards: %+v", h)
	}
}

func TestGuardBoundsABody(t *testing.T) {
	_, url := guarded(t, func(c *Config) { c.MaxMessage = 100 }, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		}
	})
	for name, body := range map[string]io.Reader{
		"with a length": strings.NewReader(strings.Repeat("x", 101)),
		"without":       io.MultiReader(strings.NewReader(strings.Repeat("x", 101))),
	} {
		if h := post(t, url, "alice", body); h.status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %+v", name, h)
		}
	}
	if h := post(t, url, "alice", strings.NewReader(strings.Repeat("x", 100))); h.status != http.StatusOK {
		t.Errorf("%+v", h)
	}
}
