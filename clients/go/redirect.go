package troupe

import (
	"errors"
	"fmt"
	"net/http"
)

// maxRedirects is that of net/http's default client.
const maxRedirects = 10

// sameServer follows a redirect only to the same host and never from TLS to plain text: an ingress
// may send http to https, or one path to another. Anything else would start the command on a server
// that the user has not named.
func sameServer(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	from, to := via[0].URL, req.URL
	switch {
	case from.Scheme == "https" && to.Scheme != "https":
		return errors.New("the server redirects from TLS to plain text, which would disclose the token")
	case from.Host == to.Host, from.Hostname() == to.Hostname() && from.Scheme != to.Scheme:
		return nil
	}
	return fmt.Errorf("the server redirects to %s://%s, which is not followed: name that server if it is meant",
		to.Scheme, to.Host)
}
