package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// suite is the Debian release of the base. The runner image's default base is
// the same release.
const suite = "bookworm"

// baseImage is a minimal Debian in buildah's store: what Go compiles in, and
// what the runner image is made on.
type baseImage struct {
	ref string // in buildah's store
	key string // of the tarball
}

// base makes the base's tarball, once, and imports it.
func (b *builder) base(ctx context.Context) (baseImage, error) {
	tarball := filepath.Join(b.dir, "base.tar")
	if _, err := os.Stat(tarball); err != nil {
		// Not in place: a file of this name is always complete.
		part := filepath.Join(b.dir, "base.part.tar")
		defer os.Remove(part)
		if err := b.run(ctx, "mmdebstrap", "--quiet", "--variant=minbase", suite, part); err != nil {
			return baseImage{}, err
		}
		if err := os.Rename(part, tarball); err != nil {
			return baseImage{}, err
		}
	}
	info, err := os.Stat(tarball)
	if err != nil {
		return baseImage{}, err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d", info.Size(), info.ModTime().UnixNano()))
	key := hex.EncodeToString(sum[:6])
	base := baseImage{ref: "localhost/troupe-base:" + key, key: key}
	if b.buildah(ctx, "inspect", "--type", "image", "--format", "{{.FromImageID}}", base.ref) == nil {
		return base, nil
	}
	return base, b.importBase(ctx, tarball, base.ref)
}

func (b *builder) importBase(ctx context.Context, tarball, ref string) error {
	out, err := b.command(ctx, "from", "scratch").Output()
	if err != nil {
		return fmt.Errorf("buildah from scratch: %w", err)
	}
	container := strings.TrimSpace(string(out))
	defer func() { _ = b.buildah(context.WithoutCancel(ctx), "rm", container) }()
	if err := b.buildah(ctx, "add", "--quiet", container, tarball, "/"); err != nil {
		return err
	}
	return b.buildah(ctx, "commit", "--quiet", "--format", "docker", container, ref)
}

// build builds one target and writes its archive.
func (b *builder) build(ctx context.Context, base baseImage, target string, image *Image) error {
	goRoot, err := goEnv(ctx, "GOROOT")
	if err != nil {
		return err
	}
	// The build takes modules from this machine's download cache, as from a
	// proxy. This makes sure that they are there.
	download := exec.CommandContext(ctx, "go", "mod", "download")
	download.Dir, download.Stdout, download.Stderr = b.root, b.log, b.log
	if err := download.Run(); err != nil {
		return fmt.Errorf("go mod download: %w", err)
	}
	modules, err := goEnv(ctx, "GOMODCACHE")
	if err != nil {
		return err
	}
	err = b.buildah(ctx, "bud", "--isolation", "chroot", "--pull-never", "--layers", "--format", "docker",
		"--target", target, "--tag", image.Ref,
		"--volume", goRoot+":/usr/local/go:ro",
		"--volume", filepath.Join(modules, "cache", "download")+":/modules:ro",
		"--build-arg", "GOPROXY=file:///modules", "--build-arg", "GOSUMDB=off",
		"--build-arg", "GO_IMAGE="+base.ref, "--build-arg", "RUNNER_BASE="+base.ref,
		"--build-arg", "VERSION="+b.version, b.root)
	if err != nil {
		return err
	}
	part := image.Archive + ".part"
	os.Remove(part) // docker-archive: refuses to replace one
	defer os.Remove(part)
	if err := b.buildah(ctx, "push", "--quiet", image.Ref, "docker-archive:"+part+":"+image.Ref); err != nil {
		return err
	}
	return os.Rename(part, image.Archive)
}

// tidy leaves nothing of buildah behind but its store: no containers of a build
// that failed, no mounts, no layers that are no longer part of an image. The
// compiler's cache is kept apart from these. An error costs disk only.
func (b *builder) tidy(ctx context.Context) {
	if !b.used {
		return
	}
	err := b.buildah(ctx, "rm", "--all")
	if b.built {
		err = errors.Join(err, b.buildah(ctx, "rmi", "--prune"))
	}
	// Each buildah mounts this on itself, and leaves it so.
	overlay := filepath.Join(b.dir, "buildah", "root", "overlay")
	if m := unix.Unmount(overlay, unix.MNT_DETACH); m != unix.EINVAL && m != unix.ENOENT {
		err = errors.Join(err, m)
	}
	if err != nil {
		fmt.Fprintln(b.log, "tidying up after buildah:", err)
	}
}

// command is buildah with a store of its own, so that nothing of this touches
// the images of whoever runs it.
func (b *builder) command(ctx context.Context, args ...string) *exec.Cmd {
	b.used = true
	store := filepath.Join(b.dir, "buildah")
	driver := os.Getenv("STORAGE_DRIVER")
	if driver == "" {
		driver = "overlay"
	}
	cmd := exec.CommandContext(ctx, "buildah", append([]string{
		"--root", filepath.Join(store, "root"), "--runroot", filepath.Join(store, "run"), "--storage-driver", driver,
	}, args...)...)
	// Buildah keeps the contents of cache mounts below TMPDIR.
	tmp := filepath.Join(store, "tmp")
	if err := os.MkdirAll(tmp, 0o755); err == nil {
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	}
	// At a cancelled context it may still tidy its mounts.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func (b *builder) buildah(ctx context.Context, args ...string) error {
	return b.runCmd(b.command(ctx, args...), "buildah "+args[0])
}

func (b *builder) run(ctx context.Context, name string, args ...string) error {
	return b.runCmd(exec.CommandContext(ctx, name, args...), name)
}

// runCmd runs a program. Its error ends with the last lines that it printed.
func (b *builder) runCmd(cmd *exec.Cmd, what string) error {
	var tail lastBytes
	cmd.Stdout = io.MultiWriter(b.log, &tail)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", what, err, tail.kept)
	}
	return nil
}

// lastBytes keeps the last bytes that are written to it.
type lastBytes struct{ kept []byte }

const maxTail = 4096

func (t *lastBytes) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if n := len(t.kept) - maxTail; n > 0 {
		t.kept = append(t.kept[:0], t.kept[n:]...)
	}
	return len(p), nil
}

func goEnv(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", name).Output()
	if err != nil {
		return "", fmt.Errorf("go env %s: %w", name, err)
	}
	return string(bytes.TrimSpace(out)), nil
}
