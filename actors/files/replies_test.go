//go:build linux

package files

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestListingsAreBoundedInBytes: the server holds a reply, however long names and links are.
func TestListingsAreBoundedInBytes(t *testing.T) {
	for _, c := range []string{"\xff", "<", "\"", "\u2028", "\x01"} { // JSON writes each in another way
		dir := t.TempDir()
		to := strings.Repeat(c, 4095/len(c))
		for i := range 50 {
			name := fmt.Sprintf("%s%03d", strings.Repeat(c, 252/len(c)), i)
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		listed := 0
		for after, more := Name(""), true; more; {
			r, _, said := exchange(t, dir, &Request{Op: OpList, Path: ".", After: after}, nil)
			if said > MaxReply {
				t.Fatalf("names of %q: a reply of %d bytes", c, said)
			}
			listed += len(r.Entries)
			after, more = r.Entries[len(r.Entries)-1].Name, r.More
		}
		if listed != 50 {
			t.Errorf("%d entries of 50", listed)
		}
	}
}

// TestErrorsAreBoundedInBytes: a path may be as long as a request.
func TestErrorsAreBoundedInBytes(t *testing.T) {
	for _, c := range []string{"\xff", "<", "\x01", "é"} {
		for _, op := range []string{OpStat, OpWatch, OpRead, OpMove} {
			r, _, said := exchange(t, t.TempDir(), &Request{Op: op, Path: Name(strings.Repeat(c, 20_000))}, nil)
			if said > MaxChange || r.Error == nil || r.Error.Code != CodeInvalid ||
				!strings.HasSuffix(r.Error.Message, ": file name too long") {
				t.Errorf("%s: %d bytes: %.100v", op, said, r.Error)
			}
		}
	}
}

// TestMoveBlamesThePathThatIsWrong of the two, and so does the unpacking of a hard link.
func TestMoveBlamesThePathThatIsWrong(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"f", "g"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		from, to Name
		code     Code
		want     string
	}{
		{"no", "x", CodeNotFound, "no: "},
		{"no/f", "x", CodeNotFound, "no/f: "},
		{"no", "g", CodeNotFound, "no: "},
		{"f/f", "x", CodeWrongKind, "f/f: "},
		{"f", "no/x", CodeNotFound, "no"},
		{"../f", "x", CodeOutside, "../f: "},
	} {
		for _, replace := range []bool{true, false} {
			req := &Request{Op: OpMove, Path: c.from, Target: c.to, New: !replace}
			if said := refused(t, dir, req, "", c.code); !strings.HasPrefix(said, c.want) {
				t.Errorf("%s to %s, new %v: %q", c.from, c.to, req.New, said)
			}
		}
	}
	if said := refused(t, dir, &Request{Op: OpMove, Path: "f", Target: "g", New: true}, "", CodeExists); said != "g: file exists" {
		t.Error(said)
	}
	var archive strings.Builder
	w := tar.NewWriter(&archive)
	link := &tar.Header{Name: "link", Typeflag: tar.TypeLink, Linkname: "no"}
	if err := errors.Join(w.WriteHeader(link), w.Close()); err != nil {
		t.Fatal(err)
	}
	if said := refused(t, dir, &Request{Op: OpUnpack, Path: "."}, archive.String(), CodeNotFound); !strings.HasPrefix(said, "no: ") {
		t.Errorf("hard link: %q", said)
	}
}
