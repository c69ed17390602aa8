//go:build linux

package fileserver

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// response is what the document of the API says of an answer.
type response struct {
	Ref     string `json:"$ref"`
	Content map[string]json.RawMessage
}

// described are the answers of the paths of files, by "method path" and status.
var described = sync.OnceValue(func() map[string]map[string]response {
	text, err := os.ReadFile("../../gateway/api/openapi.json")
	if err != nil {
		panic(err)
	}
	var d struct {
		Paths      map[string]map[string]struct{ Responses map[string]response }
		Components struct{ Responses map[string]response }
	}
	if err := json.Unmarshal(text, &d); err != nil {
		panic(err)
	}
	all := map[string]map[string]response{}
	for path, operations := range d.Paths {
		kind := pathKind(path)
		if kind == "" {
			continue
		}
		for method, o := range operations {
			for status, r := range o.Responses {
				if name, ok := strings.CutPrefix(r.Ref, "#/components/responses/"); ok {
					o.Responses[status] = d.Components.Responses[name]
				}
			}
			all[strings.ToUpper(method)+" "+kind] = o.Responses
		}
	}
	return all
})

// pathKind returns "files" or "uploads".
func pathKind(path string) string {
	for _, kind := range []string{"files", "uploads"} {
		if strings.Contains(path, "/"+kind+"/") {
			return kind
		}
	}
	return ""
}

// seen are the answers that came, likewise.
var seen = struct {
	sync.Mutex
	answers map[string]map[string]bool
}{answers: map[string]map[string]bool{}}

// documented fails for an answer that the document does not have.
func documented(t *testing.T, resp *http.Response) {
	t.Helper()
	operation := resp.Request.Method + " " + pathKind(resp.Request.URL.Path)
	answers, status := described()[operation], fmt.Sprint(resp.StatusCode)
	if answers == nil { // of HEAD, or of a method that the path does not have
		return
	}
	r, ok := answers[status]
	if !ok {
		t.Errorf("%s: the document has no %s", operation, status)
	}
	kind := resp.Header.Get("Content-Type")
	if _, ok := r.Content[kind]; !ok && kind != "" && resp.StatusCode != http.StatusNotModified {
		t.Errorf("%s: the document has no %s of the type %s", operation, status, kind)
	}
	seen.Lock()
	defer seen.Unlock()
	if seen.answers[operation] == nil {
		seen.answers[operation] = map[string]bool{}
	}
	seen.answers[operation][status] = true
}

// unseen writes the answers that the document has and that did not come. The gateway gives some of them, and 500 is
// for defects.
func unseen(w io.Writer) (n int) {
	elsewhere := []string{"401", "403", "429", "500", "503"}
	for operation, answers := range described() {
		for _, status := range slices.Sorted(maps.Keys(answers)) {
			if !seen.answers[operation][status] && !slices.Contains(elsewhere, status) {
				fmt.Fprintf(w, "the document has %s for %s, and it never came\n", status, operation)
				n++
			}
		}
	}
	return n
}

// TestDocumentHasTheMethods: those of each path, and no others.
func TestDocumentHasTheMethods(t *testing.T) {
	var have []string
	for path, serve := range methods {
		for method := range serve {
			if !(method == http.MethodHead && serve[http.MethodGet] != nil) { // GET serves it, too
				have = append(have, method+" "+pathKind(path))
			}
		}
	}
	if want := slices.Sorted(maps.Keys(described())); !slices.Equal(slices.Sorted(slices.Values(have)), want) {
		t.Errorf("the paths have %v, the document %v", have, want)
	}
}
