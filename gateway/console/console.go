// Package console serves the page with which people use troupe in a browser: sessions, commands, files. Its sources are
// TypeScript, in web; dist has the bundle that `make console` makes of them, so that building trouped takes Go alone.
//
// It lies in gateway/ because it is one of the server's doors, and under clients/ would be a client that the server
// imports. The page itself is a client like any other: it stands on clients/typescript and the HTTP API, and has no
// right that its user has not.
package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed dist/app.js dist/app.css dist/licenses.txt web/index.html web/icon.svg
var files embed.FS

// Prefix is the path below which everything but the page itself lies.
const Prefix = "/console/"

// policy is the page's Content-Security-Policy. Scripts and styles are files of this server and nothing else, neither
// inline nor made of strings; requests go to this server alone; images may be made of bytes that the page has
// (blob:), which is how those of a session are shown; no page may frame this one. Trusted types
// (https://www.w3.org/TR/trusted-types/) make assignments such as innerHTML throw.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// headers are those of each answer.
var headers = map[string]string{
	"Content-Security-Policy":      policy,
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY", // what frame-ancestors says, for older browsers
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}

// asset is a file as it is served.
type asset struct {
	contentType string
	cache       string
	tag         string
	plain, gzip []byte
}

// assets are all files by their paths. They are made when the first is asked for: compressed, they hold memory, which
// a server that no browser visits does not pay.
var assets = sync.OnceValue(func() map[string]asset {
	all := make(map[string]asset)
	var names []string // old, new: of the template
	for name, contentType := range map[string]string{
		"dist/app.js":       "text/javascript; charset=utf-8",
		"dist/app.css":      "text/css; charset=utf-8",
		"dist/licenses.txt": "text/plain; charset=utf-8",
		"web/icon.svg":      "image/svg+xml",
	} {
		content := read(name)
		base := path.Base(name)
		ext := path.Ext(base)
		served := fmt.Sprintf("%s-%s%s", strings.TrimSuffix(base, ext), digest(content)[:12], ext)
		names = append(names, "{{"+base+"}}", served)
		all[Prefix+served] = newAsset(content, contentType, "public, max-age=31536000, immutable")
	}
	page := strings.NewReplacer(names...).Replace(string(read("web/index.html")))
	all["/"] = newAsset([]byte(page), "text/html; charset=utf-8", "no-cache")
	return all
})

func newAsset(content []byte, contentType, cache string) asset {
	var compressed bytes.Buffer
	w, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is valid
	}
	_, _ = w.Write(content) // a Buffer takes everything
	_ = w.Close()
	return asset{contentType, cache, `"` + digest(content)[:32] + `"`, content, compressed.Bytes()}
}

func read(name string) []byte {
	content, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return content
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// Handler serves the page at / and its files below Prefix. They are the same for everybody, so it asks for no token:
// the page asks its user for one, if the API wants it.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		for name, value := range headers {
			header.Set(name, value)
		}
		a, ok := assets()[r.URL.Path]
		if !ok {
			header.Set("Cache-Control", "no-store") // another version of the server may have it
			http.Error(w, "there is no such file: load the console again", http.StatusNotFound)
			return
		}
		header.Set("Content-Type", a.contentType)
		header.Set("Cache-Control", a.cache)
		header.Set("ETag", a.tag)
		header.Set("Vary", "Accept-Encoding")
		if r.Header.Get("If-None-Match") == a.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		content := a.plain
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			header.Set("Content-Encoding", "gzip")
			content = a.gzip
		}
		header.Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content) // the client may be gone
	})
}
