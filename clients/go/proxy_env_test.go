package troupe

import (
	"net/http"
	"testing"
)

// The environment names proxies as for curl and for the rest of Go.
func TestProxyOfTheEnvironment(t *testing.T) {
	for _, name := range []string{
		"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy",
		"REQUEST_METHOD",
	} {
		t.Setenv(name, "")
	}
	for _, tc := range []struct {
		env       map[string]string
		url, want string
	}{
		{nil, "http://a.example/ws", ""},
		{map[string]string{"HTTP_PROXY": "http://p:1"}, "http://a.example/ws", "http://p:1"},
		{map[string]string{"HTTP_PROXY": "http://p:1"}, "https://a.example/ws", ""},
		{map[string]string{"HTTPS_PROXY": "q:2"}, "https://a.example/ws", "http://q:2"},
		{map[string]string{"HTTPS_PROXY": "q:2", "ALL_PROXY": "socks5://r:3"}, "https://a.example/ws", "http://q:2"},
		{map[string]string{"HTTPS_PROXY": "q:2", "ALL_PROXY": "socks5://r:3"}, "http://a.example/ws", "socks5://r:3"},
		{map[string]string{"all_proxy": "http://r:3", "NO_PROXY": ".example"}, "http://a.example/ws", ""},
		{map[string]string{"ALL_PROXY": "http://r:3"}, "http://127.0.0.1:8003/ws", ""},
	} {
		for name, value := range tc.env {
			t.Setenv(name, value)
		}
		req, err := http.NewRequest(http.MethodGet, tc.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		u, err := proxyFromEnvironment(req)
		if u != nil {
			got = u.String()
		}
		if got != tc.want || err != nil {
			t.Errorf("%v: %s goes through %q (%v), want %q", tc.env, tc.url, got, err, tc.want)
		}
		for name := range tc.env {
			t.Setenv(name, "")
		}
	}
}
