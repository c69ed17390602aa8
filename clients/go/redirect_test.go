package troupe

import (
	"net/http"
	"testing"
)

// TestRedirectsStayWithTheServer: a redirect must start no command on a server that the user has not
// named, and must not send the token in plain text.
func TestRedirectsStayWithTheServer(t *testing.T) {
	request := func(url string) *http.Request {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"http://h/ws", "https://h/ws", true},
		{"http://h:80/ws", "https://h:443/ws", true},
		{"https://h/ws", "https://h/x/ws", true},
		{"https://h/ws", "http://h/ws", false},
		{"http://h/ws", "http://h:81/ws", false},
		{"https://h/ws", "https://other/ws", false},
		{"http://h/ws", "https://other.h/ws", false},
	} {
		if err := sameServer(request(c.to), []*http.Request{request(c.from)}); (err == nil) != c.ok {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
	}
	if sameServer(request("http://h/ws"), make([]*http.Request, maxRedirects)) == nil {
		t.Error("redirects are followed forever")
	}
}
