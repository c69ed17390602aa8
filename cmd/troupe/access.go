package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// access is how a session's server was reached. The record keeps it, so that a later run uses for
// that server what was used when the session was started, and never another server's token. A token
// itself is not written down, only where it was, or its digest.
type access struct {
	TokenFile string `json:"token_file,omitempty"` // absolute path
	TokenHash string `json:"token_sha256,omitempty"`
	CAFile    string `json:"ca_file,omitempty"` // absolute path
}

// credentials are what one connection uses.
type credentials struct{ token, tokenFile, caFile string }

// configured returns the credentials that the settings give.
func (a *app) configured() credentials {
	c := credentials{a.settings.token, a.settings.tokenFile, a.settings.caFile}
	if c.token != "" {
		c.tokenFile = ""
	}
	return c
}

// access returns what a record keeps of c.
func (c credentials) access() *access {
	kept := &access{TokenFile: absolute(c.tokenFile), CAFile: absolute(c.caFile)}
	if c.token != "" {
		kept.TokenHash = tokenHash(c.token)
	}
	return kept
}

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return hex.EncodeToString(sum[:])
}

func absolute(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// credentialsFor returns what to use for a remembered session: what the command line gives, what
// the record says, or what is configured for the same server. one means that the run is about this
// session alone, so that its command line is, too.
func (a *app) credentialsFor(r *record, one bool) credentials {
	given := a.configured()
	url, err := serverURL(a.settings.server)
	// A record of troupe 0.1 does not say what was used.
	same := err == nil && url == r.URL || r.Access == nil && !a.settings.serverSet
	var c credentials
	switch known := r.Access; {
	case one && (a.settings.onLine("token") || a.settings.onLine("token-file")):
		c.token, c.tokenFile = given.token, given.tokenFile
	case known != nil && !r.elsewhere && known.TokenFile != "" && (exists(known.TokenFile) || !same):
		c.tokenFile = known.TokenFile
	case same, known != nil && given.token != "" && tokenHash(given.token) == known.TokenHash && !r.elsewhere:
		c.token, c.tokenFile = given.token, given.tokenFile
	}
	switch {
	case one && a.settings.onLine("ca-file"), same && (r.Access == nil || r.Access.CAFile == ""):
		c.caFile = given.caFile
	case r.Access != nil:
		c.caFile = r.Access.CAFile
	}
	return c
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// options returns the client's options for a connection with c.
func (a *app) options(c credentials) (troupe.Options, error) {
	opt := troupe.Options{DialRetry: a.settings.wait, OnNotice: a.notice}
	switch {
	case c.token != "":
		token, err := bearer(c.token)
		if err != nil {
			return opt, fmt.Errorf("the token %w", err)
		}
		opt.Token = token
	case c.tokenFile != "":
		token, err := readToken(c.tokenFile)
		if err != nil {
			return opt, err
		}
		opt.Token = token
		if info, err := os.Stat(c.tokenFile); err == nil && info.Mode().IsRegular() { // a pipe is read once
			opt.TokenFunc = func() (string, error) { return readToken(c.tokenFile) }
		}
	}
	if c.caFile != "" {
		pem, err := os.ReadFile(c.caFile)
		if err != nil {
			return opt, fmt.Errorf("ca file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return opt, fmt.Errorf("ca file %s holds no PEM certificate", c.caFile)
		}
		opt.TLS = &tls.Config{RootCAs: pool}
	}
	return opt, nil
}

func readToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token, err := bearer(string(b))
	if err != nil {
		return "", fmt.Errorf("token file %s: its content %w", file, err)
	}
	return token, nil
}

// bearer returns a token without the line break, or the byte order mark, that an editor put around
// it. A token that cannot stand in a header is refused here: the error of net/http would not say
// where it came from. Errors do not quote it.
func bearer(s string) (string, error) {
	s = strings.TrimSpace(strings.TrimPrefix(s, "\ufeff"))
	if s == "" {
		return "", errors.New("is empty")
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c == 0x7f {
			return "", fmt.Errorf("must be one word, but has a byte %#02x within", c)
		}
	}
	return s, nil
}
