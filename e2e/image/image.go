// Package image builds the two images of troupe with buildah: without a daemon,
// without a registry, and with Go, its modules and Debian's packages from this
// machine. It is what docs/images.md describes, for tests and for the cluster.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/troupe-dev/troupe/e2e/cluster"
	"github.com/troupe-dev/troupe/e2e/filelock"
)

// Names of the images. The domain is reserved for tests (RFC 6761), so no pull
// of them can reach a registry by mistake.
const (
	ServerName = "troupe.test/trouped"
	RunnerName = "troupe.test/runner"
)

// Config says what to build and where to.
type Config struct {
	// Root is the product's tree. Empty means the tree that the working
	// directory is in.
	Root string
	// Dir gets the archives, the base's root file system and buildah's store,
	// about 1.5 GB in all. Empty means images in the test cluster's directory,
	// where a node that starts finds them: see cluster.Config.
	Dir string
	// Tag is the tag of both images. Empty means e2e.
	Tag string
	// Version is what the programs say of themselves. Empty means Tag.
	Version string
	// Log gets the output of the programs that build. Nil discards it.
	Log io.Writer
}

// Image is one image in a file.
type Image struct {
	Ref     string // name:tag
	Archive string // its path, in the form of docker save. ctr, buildah and skopeo read it
	Built   bool   // this Build made it; otherwise it was there already
}

// Images are what the tree of a Config makes.
type Images struct{ Server, Runner Image }

// ErrNoBuildah means that this machine lacks what building needs: buildah,
// mmdebstrap, and the rights of root to use them.
var ErrNoBuildah = errors.New(
	"images are built with buildah and mmdebstrap as root: apt-get install buildah mmdebstrap")

// Build builds both images unless they are there and nothing that they are made
// of has changed, which takes a few milliseconds to find out. Builds that run
// at the same time, in other processes too, take turns.
func Build(ctx context.Context, cfg Config) (Images, error) {
	b, err := newBuilder(cfg)
	if err != nil {
		return Images{}, err
	}
	unlock, err := filelock.Lock(ctx, filepath.Join(b.dir, "lock"), func() {
		fmt.Fprintln(b.log, "waiting for another build of images")
	})
	if err != nil {
		return Images{}, fmt.Errorf("image: %w", err)
	}
	defer unlock()
	defer b.tidy(context.WithoutCancel(ctx))
	base, err := b.base(ctx)
	if err != nil {
		return Images{}, fmt.Errorf("image: the base: %w", err)
	}
	key, err := b.key(ctx, base)
	if err != nil {
		return Images{}, fmt.Errorf("image: %w", err)
	}
	var out Images
	for _, t := range []struct {
		target, name, file string
		image              *Image
	}{
		{"server", ServerName, "trouped", &out.Server},
		{"runner", RunnerName, "runner", &out.Runner},
	} {
		*t.image = Image{Ref: t.name + ":" + b.tag, Archive: b.archive(t.file)}
		if upToDate(t.image.Archive, key) {
			continue
		}
		if err := b.build(ctx, base, t.target, t.image); err != nil {
			return Images{}, fmt.Errorf("image: target %s: %w", t.target, err)
		}
		if err := os.WriteFile(keyFile(t.image.Archive), []byte(key), 0o644); err != nil {
			return Images{}, fmt.Errorf("image: %w", err)
		}
		t.image.Built = true
	}
	b.built = out.Server.Built || out.Runner.Built
	return out, nil
}

// builder is a Config with every default filled in.
type builder struct {
	root, dir, tag, version string
	log                     io.Writer
	used, built             bool // buildah was run; it made an image
}

func newBuilder(cfg Config) (*builder, error) {
	for _, tool := range []string{"buildah", "mmdebstrap"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, ErrNoBuildah
		}
	}
	if os.Geteuid() != 0 {
		return nil, ErrNoBuildah
	}
	b := &builder{root: cfg.Root, dir: cfg.Dir, tag: cfg.Tag, version: cfg.Version, log: cfg.Log}
	var err error
	if b.root == "" {
		if b.root, err = findRoot(); err != nil {
			return nil, err
		}
	}
	if b.dir == "" {
		if b.dir, err = defaultDir(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if b.tag == "" {
		b.tag = "e2e"
	}
	if b.version == "" {
		b.version = b.tag
	}
	if b.log == nil {
		b.log = io.Discard
	}
	return b, nil
}

// archive is where an image goes. Only the tag e2e has the short name that a
// cluster looks for.
func (b *builder) archive(name string) string {
	if b.tag != "e2e" {
		name += "-" + b.tag
	}
	return filepath.Join(b.dir, name+".tar")
}

// defaultDir is where a cluster looks for images.
func defaultDir() (string, error) {
	c, err := cluster.Open(cluster.Config{})
	if err != nil {
		return "", fmt.Errorf("image: no directory for images: %w", err)
	}
	return filepath.Join(c.Dir(), "images"), nil
}

// findRoot looks upwards for the Dockerfile beside a go.mod.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		_, noDockerfile := os.Stat(filepath.Join(at, "Dockerfile"))
		_, noModule := os.Stat(filepath.Join(at, "go.mod"))
		if noDockerfile == nil && noModule == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("image: no Dockerfile beside a go.mod in %s or above", dir)
		}
	}
}
