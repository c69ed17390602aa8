package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// maxBundle bounds what a browser loads before it shows the console, compressed.
const maxBundle = 500 << 10

func get(t *testing.T, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) []byte {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// linked are the files that the page names.
func linked(t *testing.T) []string {
	t.Helper()
	page := string(body(t, get(t, "/")))
	if strings.Contains(page, "{{") {
		t.Fatalf("a name was not filled in: %s", page)
	}
	var paths []string
	for _, m := range regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		paths = append(paths, "/"+m[1])
	}
	if len(paths) != 3 {
		t.Fatalf("the page names %q", paths)
	}
	return paths
}

// TestEveryAnswerForbidsWhatThePageDoesNotNeed: scripts and styles that are not files of the server, other
// servers, frames, guesses about types; also with an answer that is an error.
func TestEveryAnswerForbidsWhatThePageDoesNotNeed(t *testing.T) {
	for _, path := range append(linked(t), "/", "/console/nothing.js") {
		h := get(t, path).Header
		csp := h.Get("Content-Security-Policy")
		for _, part := range []string{
			"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'",
			"require-trusted-types-for 'script'",
		} {
			if !strings.Contains(csp, part) {
				t.Errorf("%s: the policy has no %s: %s", path, part, csp)
			}
		}
		for _, part := range []string{"unsafe-", "http:", "https:", "*", "data:"} {
			if strings.Contains(csp, part) {
				t.Errorf("%s: the policy has %s: %s", path, part, csp)
			}
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		if cookie := h.Get("Set-Cookie"); cookie != "" {
			t.Errorf("%s sets the cookie %s", path, cookie)
		}
	}
}

// TestCachesKeepFilesAndAskForThePage: a file's name changes with its content, so a browser may keep it; the
// page, which names the files of this version, it must ask for.
func TestCachesKeepFilesAndAskForThePage(t *testing.T) {
	page := get(t, "/")
	if got := page.Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("the page: %q", got)
	}
	if again := get(t, "/", "If-None-Match", page.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("the page, asked for again: %d", again.StatusCode)
	}
	for _, path := range linked(t) {
		resp := get(t, path)
		if got := resp.Header.Get("Cache-Control"); resp.StatusCode != 200 || !strings.Contains(got, "immutable") {
			t.Errorf("%s: %d, %q", path, resp.StatusCode, got)
		}
		sum := sha256.Sum256(body(t, resp))
		if !regexp.MustCompile(`-` + hex.EncodeToString(sum[:])[:12] + `\.`).MatchString(path) {
			t.Errorf("%s is not named by its content", path)
		}
	}
	old := get(t, "/console/app-000000000000.js")
	if old.StatusCode != http.StatusNotFound || old.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("a file of another version: %d, %q", old.StatusCode, old.Header.Get("Cache-Control"))
	}
}

// TestBundleIsBelow500KiB, compressed as a browser gets it.
func TestBundleIsBelow500KiB(t *testing.T) {
	total := 0
	for _, path := range append(linked(t), "/") {
		compressed := get(t, path, "Accept-Encoding", "gzip, br")
		if compressed.Header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("%s is not compressed", path)
		}
		b := body(t, compressed)
		total += len(b)
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := io.ReadAll(r); err != nil || !bytes.Equal(plain, body(t, get(t, path))) {
			t.Errorf("%s differs when it is compressed: %v", path, err)
		}
	}
	t.Logf("%d bytes", total)
	if total > maxBundle {
		t.Errorf("a browser loads %d bytes, more than %d", total, maxBundle)
	}
}

// TestAnswersFollowHTTP: compressed and plain bytes have tags of their own, which a client may send back weakly or
// in a list; what others have said the answer varies with stays; a client that excludes gzip gets none.
func TestAnswersFollowHTTP(t *testing.T) {
	plain, compressed := get(t, "/"), get(t, "/", "Accept-Encoding", "br, gzip;q=0.5")
	tag := compressed.Header.Get("ETag")
	if plain.Header.Get("ETag") == tag {
		t.Errorf("two representations have the tag %s", tag)
	}
	if got := compressed.Header.Get("Content-Length"); got != strconv.Itoa(len(body(t, compressed))) {
		t.Errorf("the length of what is compressed: %q", got)
	}
	for _, known := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
		again := get(t, "/", "Accept-Encoding", "gzip", "If-None-Match", known)
		if again.StatusCode != http.StatusNotModified || len(body(t, again)) > 0 {
			t.Errorf("If-None-Match: %s: %d", known, again.StatusCode)
		}
	}
	for _, excluded := range []string{"gzip;q=0", "br, gzip; q=0.000", "identity", "gzipped"} {
		if got := get(t, "/", "Accept-Encoding", excluded).Header.Get("Content-Encoding"); got != "" {
			t.Errorf("Accept-Encoding: %s: %s", excluded, got)
		}
	}
	w := httptest.NewRecorder()
	w.Header().Set("Vary", "Origin")
	Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if got := w.Result().Header.Values("Vary"); !slices.Equal(got, []string{"Origin", "Accept-Encoding"}) {
		t.Errorf("the answer varies with %q", got)
	}
}

// TestAssetsHoldNoMoreThanMaxHeld: what they hold is the compressed bytes, and the page.
func TestAssetsHoldNoMoreThanMaxHeld(t *testing.T) {
	held := 0
	for path, a := range assets() {
		held += cap(a.gzip)
		if path == "/" {
			n, err := a.plain().Seek(0, io.SeekEnd)
			if err != nil {
				t.Fatal(err)
			}
			held += int(n)
		}
	}
	t.Logf("%d bytes", held)
	if held > MaxHeld {
		t.Errorf("the assets hold %d bytes, more than %d", held, MaxHeld)
	}
}

// TestNoMarkupOrCodeIsMadeOfStrings: what a session prints, and what its files are called, reaches the
// page as text only. The page's policy has the browser refuse the same, in the libraries too.
func TestNoMarkupOrCodeIsMadeOfStrings(t *testing.T) {
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySetInnerHTML|` +
		`DOMParser|createContextualFragment|setHTMLUnsafe|srcdoc|javascript:|\beval\(|new Function\(`)
	sources := 0
	err := filepath.WalkDir("web", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == "node_modules" {
				return filepath.SkipDir
			}
			return err
		}
		if !regexp.MustCompile(`\.(ts|tsx|html)$`).MatchString(path) {
			return nil
		}
		sources++
		text, err := os.ReadFile(path)
		if found := forbidden.Find(text); found != nil {
			t.Errorf("%s has %s", path, found)
		}
		return err
	})
	if err != nil || sources < 10 {
		t.Fatalf("%d sources: %v", sources, err)
	}
}
