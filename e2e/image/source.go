package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// key names everything that the images are made of: the sources that the build
// gets to see, the build's own files, the compiler, the base and the names.
func (b *builder) key(ctx context.Context, base baseImage) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00", b.tag, b.version, base.key)
	goVersion, err := exec.CommandContext(ctx, "go", "version").Output()
	if err != nil {
		return "", fmt.Errorf("go version: %w", err)
	}
	h.Write(goVersion)
	ignored, err := readIgnore(filepath.Join(b.root, ".dockerignore"))
	if err != nil {
		return "", err
	}
	for _, name := range []string{"Dockerfile", ".dockerignore"} {
		if err := addFile(h, b.root, name); err != nil {
			return "", err
		}
	}
	err = filepath.WalkDir(b.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == b.root {
			return err
		}
		rel, err := filepath.Rel(b.root, path)
		switch {
		case err != nil:
			return err
		case ignored.match(rel) && d.IsDir():
			return filepath.SkipDir
		case ignored.match(rel) || d.IsDir():
			return nil
		}
		return addFile(h, b.root, rel)
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

func addFile(h hash.Hash, root, rel string) error {
	f, err := os.Open(filepath.Join(root, rel))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	fmt.Fprintf(h, "%s\x00%d\x00", rel, info.Size())
	_, err = io.Copy(h, f)
	return err
}

// ignore holds the patterns of a .dockerignore, which may be of two forms only:
// a name at the top, or a name anywhere (**/NAME, with * in NAME).
type ignore struct {
	top      map[string]bool
	anywhere []string
}

func readIgnore(path string) (ignore, error) {
	ig := ignore{top: map[string]bool{}}
	b, err := os.ReadFile(path)
	if err != nil {
		return ig, err
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		name, anywhere := strings.CutPrefix(line, "**/")
		switch {
		case line == "" || line[0] == '#':
		case strings.ContainsAny(name, "/!") || !anywhere && strings.Contains(name, "*"):
			return ig, fmt.Errorf("%s: the pattern %q is neither NAME nor **/NAME", path, line)
		case anywhere:
			ig.anywhere = append(ig.anywhere, name)
		default:
			ig.top[name] = true
		}
	}
	return ig, nil
}

// match says whether a path, relative to the root, is ignored, given that the
// directories above it are not.
func (ig ignore) match(rel string) bool {
	if ig.top[rel] {
		return true
	}
	for _, pattern := range ig.anywhere {
		if ok, _ := filepath.Match(pattern, filepath.Base(rel)); ok {
			return true
		}
	}
	return false
}

func keyFile(archive string) string { return archive + ".key" }

func upToDate(archive, key string) bool {
	if _, err := os.Stat(archive); err != nil {
		return false
	}
	old, err := os.ReadFile(keyFile(archive))
	return err == nil && string(old) == key
}
