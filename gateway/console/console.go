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
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
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

// asset is a file as it is served. The page and the compressed form of every file are in memory, the rest is part of
// the program.
type asset struct {
	contentType string
	cache       string
	digest      string
	plain       func() io.ReadSeeker
	gzip        []byte
}

// MaxHeld bounds the bytes of all assets that are in memory once a browser has come.
const MaxHeld = 256 << 10

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
		a := newAsset(embedded(name), contentType, "public, max-age=31536000, immutable")
		base := path.Base(name)
		ext := path.Ext(base)
		served := fmt.Sprintf("%s-%s%s", strings.TrimSuffix(base, ext), a.digest[:12], ext)
		names = append(names, "{{"+base+"}}", served)
		all[Prefix+served] = a
	}
	template, err := files.ReadFile("web/index.html")
	if err != nil {
		panic(err) // it is embedded
	}
	page := strings.NewReplacer(names...).Replace(string(template))
	all["/"] = newAsset(func() io.ReadSeeker { return strings.NewReader(page) }, "text/html; charset=utf-8", "no-cache")
	return all
})

// embedded opens a file without copying it.
func embedded(name string) func() io.ReadSeeker {
	return func() io.ReadSeeker {
		file, err := files.Open(name)
		content, ok := file.(io.ReadSeeker) // https://pkg.go.dev/embed#FS.Open
		if err != nil || !ok {
			panic(fmt.Sprintf("%s is not embedded: %v", name, err))
		}
		return content
	}
}

func newAsset(plain func() io.ReadSeeker, contentType, cache string) asset {
	var compressed bytes.Buffer
	w, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is valid
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, sum), plain()); err != nil {
		panic(err) // neither memory nor a Buffer fails
	}
	_ = w.Close()
	return asset{contentType, cache, hex.EncodeToString(sum.Sum(nil)), plain, bytes.Clone(compressed.Bytes())}
}

// acceptsGzip reports whether a client takes what is compressed (RFC 9110, section 12.5.3).
func acceptsGzip(r *http.Request) bool {
	for _, header := range r.Header.Values("Accept-Encoding") {
		for coding := range strings.SplitSeq(header, ",") {
			name, weight, _ := strings.Cut(strings.ReplaceAll(coding, " ", ""), ";")
			if strings.EqualFold(name, "gzip") {
				return strings.Trim(weight, "q=0.") != "" || weight == ""
			}
		}
	}
	return false
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
		header.Add("Vary", "Accept-Encoding")
		tag, content := a.digest[:32], a.plain()
		if acceptsGzip(r) {
			tag += "-gzip" // other bytes, so another tag
			content = bytes.NewReader(a.gzip)
			header.Set("Content-Encoding", "gzip")
			header.Set("Content-Length", strconv.Itoa(len(a.gzip))) // ServeContent leaves it out beside an encoding
		}
		header.Set("ETag", `"`+tag+`"`)
		http.ServeContent(w, r, "", time.Time{}, content)
	})
}
