package troupe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Files reaches the files of a session, by HTTP beside its WebSocket. Paths are relative to the
// session's working directory; an absolute one must lie beneath it. Its methods may be called from
// several goroutines, and fail with a *FileError where the server refuses.
type Files struct {
	id   string // of the session
	base string // URL of the session's files, without a slash at its end
	root string // scheme and host
	opt  Options
	http *http.Client
}

// NewFiles returns the files of a session of the server at url, as Dial takes it. opt says who the
// client is and how it connects. A server without authentication that separates sessions wants the session's
// resume token in opt.Header, as wire.ResumeTokenHeader.
func NewFiles(url, sessionID string, opt Options) (*Files, error) {
	root, prefix, err := apiOf(url)
	if err != nil {
		return nil, err
	}
	if opt.HTTPClient == nil {
		opt = opt.withDefaults()
		transport := newTunnel(opt)
		transport.DisableKeepAlives = false
		transport.IdleConnTimeout = 30 * time.Second
		transport.ExpectContinueTimeout = expectTimeout
		opt.HTTPClient = &http.Client{CheckRedirect: sameServer, Transport: transport}
	}
	opt = opt.withDefaults()
	return &Files{
		id: sessionID,
		base: root + prefix + "/api/v1/sessions/" + pathEscape(
			sessionID,
		) + "/files",
		root: root,
		opt:  opt,
		http: opt.HTTPClient,
	}, nil
}

// expectTimeout is how long a server may take to say that it wants the content of an upload, before that is
// sent anyway: a proxy may not pass the answer on.
const expectTimeout = 2 * time.Second

// apiOf splits the URL of a WebSocket into where its server is and the path that its API is below.
func apiOf(ws string) (root, prefix string, err error) {
	u, err := url.Parse(ws)
	if err != nil {
		return "", "", err
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	}
	prefix = strings.TrimSuffix(strings.TrimSuffix(u.EscapedPath(), "/"), "/ws")
	return u.Scheme + "://" + u.Host, prefix, nil
}

// SessionID returns the session's id.
func (f *Files) SessionID() string { return f.id }

// Close gives up idle connections.
func (f *Files) Close() { f.http.CloseIdleConnections() }

// What the server says of files. See package wire.
type (
	FileInfo   = wire.FileInfo
	FileChange = wire.FileChange
	FileName   = wire.FileName
)

// FileError is the server's refusal of a request for files (RFC 9457).
type FileError struct {
	StatusCode int    `json:"status"`
	Code       string `json:"code"` // such as not_found, outside, no_space; docs/files.md lists them
	Detail     string `json:"detail"`
}

func (e *FileError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("the server answered with %d %s", e.StatusCode, http.StatusText(e.StatusCode))
	}
	return e.Detail
}

// temporary reports whether trying again may help.
func temporary(err error) bool {
	var content *contentError
	if errors.As(err, &content) {
		return false
	}
	var e *FileError
	if !errors.As(err, &e) {
		return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
	}
	switch e.StatusCode {
	case http.StatusConflict:
		return e.Code == "offset" // what an earlier connection brought has arrived meanwhile
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// target returns the URL of a path with a query.
func (f *Files) target(path string, query url.Values) string {
	u := f.base + "/" + escapePath(path)
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	return u
}

// escapePath escapes each name of a path. The first slash of an absolute path is escaped, too:
// servers and proxies join two slashes.
func escapePath(path string) string {
	names := strings.Split(path, "/")
	for i, n := range names {
		names[i] = pathEscape(n)
	}
	escaped := strings.Join(names, "/")
	if rest, ok := strings.CutPrefix(escaped, "/"); ok {
		return "%2F" + rest
	}
	return escaped
}

// pathEscape escapes a name. Proxies resolve names of dots alone.
func pathEscape(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

func (f *Files) request(ctx context.Context, method, target string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	token, err := f.opt.TokenFunc()
	if err != nil {
		return nil, err
	}
	for name, values := range f.opt.Header {
		req.Header[name] = values
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// do makes a request. An answer of 400 and above is a *FileError.
func (f *Files) do(req *http.Request) (*http.Response, error) {
	resp, err := f.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL, which is long and says nothing
		}
		return nil, err
	}
	if resp.StatusCode < 400 {
		return resp, nil
	}
	defer resp.Body.Close()
	e := new(FileError)
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	if json.Unmarshal(body, e) != nil {
		e.Detail = ""
	}
	e.StatusCode = resp.StatusCode
	return resp, e
}

// json makes a request whose answer is JSON.
func (f *Files) json(ctx context.Context, method, target string, result any) error {
	req, err := f.request(ctx, method, target, nil)
	if err != nil {
		return err
	}
	resp, err := f.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if result == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(result)
}

// Stat describes a file. Of a symbolic link it describes the link.
func (f *Files) Stat(ctx context.Context, path string) (*FileInfo, error) {
	info := new(FileInfo)
	if err := f.json(ctx, http.MethodGet, f.target(path, url.Values{"stat": {""}}), info); err != nil {
		return nil, err
	}
	return info, nil
}

// List returns the entries of a directory, in the order of their bytes.
func (f *Files) List(ctx context.Context, path string) ([]FileInfo, error) {
	var all []FileInfo
	query := url.Values{"list": {""}}
	for {
		var page struct {
			wire.FileList
			Continue string `json:"continue"` // as it is, for the query
		}
		if err := f.json(ctx, http.MethodGet, f.target(path, query), &page); err != nil {
			return nil, err
		}
		all = append(all, page.Entries...)
		if page.Continue == "" {
			return all, nil
		}
		query.Set("continue", page.Continue)
	}
}

// Mkdir makes a directory and its parents. One that is there already is no error.
func (f *Files) Mkdir(ctx context.Context, path string) error {
	return f.json(ctx, http.MethodPost, f.target(path, url.Values{"mkdir": {""}, "parents": {""}}), nil)
}

// Move gives a file another path, and replaces what is there.
func (f *Files) Move(ctx context.Context, path, to string) error {
	return f.json(ctx, http.MethodPost, f.target(path, url.Values{"move": {to}}), nil)
}

// Remove removes a file or an empty directory; with recursive, a directory with everything in it.
func (f *Files) Remove(ctx context.Context, path string, recursive bool) error {
	query := url.Values{}
	if recursive {
		query.Set("recursive", "")
	}
	return f.json(ctx, http.MethodDelete, f.target(path, query), nil)
}

// Watch calls changed for each change in a directory, and with recursive below it, until ctx ends or
// changed fails. The first has the kind ready: what happens after it is told. After overflow changes
// are missing, and the caller should list what it needs to know.
func (f *Files) Watch(ctx context.Context, path string, recursive bool, changed func(FileChange) error) error {
	query := url.Values{"watch": {""}}
	if recursive {
		query.Set("recursive", "")
	}
	req, err := f.request(ctx, http.MethodGet, f.target(path, query), nil)
	if err != nil {
		return err
	}
	resp, err := f.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	for {
		var c FileChange
		if err := lines.Decode(&c); err != nil {
			return err
		}
		if c.Kind == "" {
			continue // the server says that it is there
		}
		if err := changed(c); err != nil {
			return err
		}
	}
}

// retry calls try until it succeeds, fails for good, or has made no progress for the time that a
// session is kept. try returns how far it has come.
func (f *Files) retry(ctx context.Context, try func() (int64, error)) error {
	window := f.opt.ResumeWindow
	if window == 0 {
		window = DefaultResumeWindow
	}
	last, since := int64(-1), time.Now()
	for attempt := 0; ; attempt++ {
		at, err := try()
		if err == nil || ctx.Err() != nil || !temporary(err) {
			return err
		}
		if at > last {
			last, since, attempt = at, time.Now(), 0
		}
		delay := f.opt.Backoff.delay(attempt)
		if time.Since(since)+delay > window {
			return err
		}
		f.opt.Logger.Info("a transfer was interrupted and is tried again", "at", at, "err", err)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return err
		}
	}
}
