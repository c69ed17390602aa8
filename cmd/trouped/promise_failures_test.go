package main

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/troupe-dev/troupe/gateway"
)

// TestWrongTokensAreSlowedDownAtAllDoors, by the address that they come from, and a right one from the same address is
// not: see gateway.failures.
func TestWrongTokensAreSlowedDownAtAllDoors(t *testing.T) {
	s := launch(t, "--auth", "token", "--token-file", tokensWithRoles(t, "alice"))
	ask := func(method, path, token string) (status int, header http.Header) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.http+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	const wrong = "wrong-wrong-wrong-wrong"
	for i := range gateway.MaxFailures {
		if got, _ := ask("GET", "/api/v1/sessions", wrong+strconv.Itoa(i)); got != http.StatusUnauthorized {
			t.Fatalf("wrong token %d: %d", i, got)
		}
	}
	for _, door := range []struct {
		method, path string
		passes       int // the status for a right token
	}{
		{"GET", "/ws", http.StatusUpgradeRequired},
		{"GET", "/ws/mcp", http.StatusUpgradeRequired},
		{"GET", "/api/v1/sessions", http.StatusOK},
		{"DELETE", "/api/v1/sessions/none", http.StatusNotFound},
		{"GET", "/api/v1/pods", http.StatusOK},
		{"GET", "/api/v1/sessions/none/files/f", http.StatusNotFound},
		{"PATCH", "/api/v1/sessions/none/uploads/upload-x", http.StatusBadRequest},
		{"POST", "/mcp", http.StatusUnsupportedMediaType},
	} {
		// One may fail each 2 s: of two right after each other at least the second is one too many.
		ask(door.method, door.path, wrong)
		status, header := ask(door.method, door.path, wrong)
		wait, err := strconv.Atoi(header.Get("Retry-After"))
		if status != http.StatusTooManyRequests || err != nil || wait < 1 || wait > 2 {
			t.Errorf("%s %s: %d, Retry-After %d (%v)", door.method, door.path, status, wait, err)
		}
		if got, _ := ask(door.method, door.path, tokenOf("alice")); got != door.passes {
			t.Errorf("%s %s with a right token: %d, want %d", door.method, door.path, got, door.passes)
		}
	}
}
