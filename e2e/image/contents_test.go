package image

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

var build = sync.OnceValues(func() (Images, error) { return Build(context.Background(), Config{Log: os.Stderr}) })

// built returns the images of this tree. Where nothing can build them the test
// is skipped, but not where E2E says that it is wanted.
func built(t *testing.T) Images {
	t.Helper()
	images, err := build()
	if errors.Is(err, ErrNoBuildah) && os.Getenv("E2E") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return images
}

// entry is one file of an image.
type entry struct {
	*tar.Header
	data []byte // of regular files of the server image
}

// files returns what an image consists of by path, without the slash in front.
func files(t *testing.T, i Image, keep bool) (map[string]entry, v1.Config) {
	t.Helper()
	img, err := tarball.ImageFromPath(i.Archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	stream := mutate.Extract(img)
	defer stream.Close()
	all := map[string]entry{}
	for r := tar.NewReader(stream); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, config.Config
		}
		if err != nil {
			t.Fatal(err)
		}
		e := entry{Header: h}
		if keep && h.Typeflag == tar.TypeReg {
			if e.data, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
		all[path.Clean(strings.TrimPrefix(h.Name, "/"))] = e
	}
}

// TestServerImageHoldsItsPrograms: no shell, no library, no user database, no
// package list: nothing that a scanner could find or an intruder use. The
// programs are those of make build, to the byte.
func TestServerImageHoldsItsPrograms(t *testing.T) {
	all, config := files(t, built(t).Server, true)
	if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, []string{"troupe-files", "troupe-runner", "trouped"}) {
		t.Fatalf("the image holds %q", got)
	}
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range all {
		if e.Mode&0o7777 != 0o555 || e.Uid != 0 || e.Gid != 0 {
			t.Errorf("%s has mode %o and belongs to %d:%d", name, e.Mode, e.Uid, e.Gid)
		}
		binary, err := elf.NewFile(bytes.NewReader(e.data))
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(binary.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			t.Errorf("%s needs a dynamic linker", name)
		}
		own := filepath.Join(t.TempDir(), name)
		cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-trimpath", "-ldflags",
			"-s -w -X main.version=e2e", "-o", own, "./cmd/"+name)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if want, err := os.ReadFile(own); err != nil || !bytes.Equal(e.data, want) {
			t.Errorf("%s differs from one that is built here (%d and %d bytes, %v)", name, len(e.data), len(want), err)
		}
	}
	if config.User != "65532:65532" || !slices.Equal(config.Entrypoint, []string{"/trouped"}) || len(config.Cmd) > 0 {
		t.Errorf("user %q, entry point %q, arguments %q", config.User, config.Entrypoint, config.Cmd)
	}
	if _, ok := config.ExposedPorts["8003/tcp"]; !ok || len(config.Volumes) > 0 {
		t.Errorf("ports %v, volumes %v", config.ExposedPorts, config.Volumes)
	}
	if config.Labels["org.opencontainers.image.version"] != "e2e" {
		t.Errorf("labels %v", config.Labels)
	}
}

// TestRunnerImageIsAUsableEnvironment: what people expect to find, for a user
// that is not root and has a home, and no runner: that comes from elsewhere.
func TestRunnerImageIsAUsableEnvironment(t *testing.T) {
	all, config := files(t, built(t).Runner, false)
	for _, program := range []string{
		"bash", "cat", "curl", "env", "git", "grep", "less", "ps", "python3", "sed", "sh",
		"sleep", "tar", "troupe", "unzip", "xz",
	} {
		if !executable(all, program) {
			t.Errorf("there is no %s", program)
		}
	}
	if bundle, ok := all["etc/ssl/certs/ca-certificates.crt"]; !ok || bundle.Size < 100_000 {
		t.Errorf("certificates: %+v", bundle.Header)
	}
	if home := all["workspace"]; home.Header == nil || home.Uid != 1000 || home.Gid != 1000 || home.Mode&0o700 != 0o700 {
		t.Errorf("/workspace: %+v", home.Header)
	}
	for name := range all {
		if path.Base(name) == "troupe-runner" || path.Base(name) == "troupe-files" || path.Base(name) == "trouped" ||
			strings.HasPrefix(name, "var/lib/apt/lists/deb") {
			t.Errorf("/%s does not belong here", name)
		}
	}
	if config.User != "1000:1000" || config.WorkingDir != "/workspace" {
		t.Errorf("user %q, directory %q", config.User, config.WorkingDir)
	}
	for _, v := range []string{"HOME=/workspace", "LANG=C.UTF-8"} {
		if !slices.Contains(config.Env, v) {
			t.Errorf("%s is not in %q", v, config.Env)
		}
	}
}

// executable follows links, as Debian's alternatives are.
func executable(all map[string]entry, program string) bool {
	for _, dir := range []string{"usr/local/bin", "usr/bin", "bin"} {
		name := path.Join(dir, program)
		for range 8 {
			e, ok := all[name]
			switch {
			case !ok:
			case e.Typeflag == tar.TypeSymlink && path.IsAbs(e.Linkname):
				name = path.Clean(e.Linkname)[1:]
				continue
			case e.Typeflag == tar.TypeSymlink:
				name = path.Join(path.Dir(name), e.Linkname)
				continue
			case e.Typeflag == tar.TypeLink, e.Typeflag == tar.TypeReg && e.Mode&0o111 == 0o111:
				return true
			}
			break
		}
	}
	return false
}

// TestUnchangedTreeIsNotBuiltAgain, and a changed one is: the key is of all that
// goes into an image.
func TestUnchangedTreeIsNotBuiltAgain(t *testing.T) {
	images := built(t)
	again, err := Build(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if again.Server.Built || again.Runner.Built || again.Server.Archive != images.Server.Archive {
		t.Errorf("%+v", again)
	}
}
