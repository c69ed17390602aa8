package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Versions of what e2e/programs/go.mod builds.
const (
	containerdVersion = "v2.4.2"
	traefikVersion    = "v3.7.13"
)

// debianSuite is the release of the Debian image.
const debianSuite = "bookworm"

// Images of a cluster. Nothing can be pulled: use them with imagePullPolicy
// IfNotPresent or Never.
const (
	imagePause         = "troupe.test/pause:1"
	imageTraefik       = "troupe.test/traefik:3.7.13"
	imageMetricsServer = "troupe.test/metrics-server:0.9.0"
	// ImageDebian is a minimal Debian, for pods of tests.
	ImageDebian = "troupe.test/debian:" + debianSuite
)

// systemImage is an image that every node has: one program in an otherwise
// empty image, or Debian.
type systemImage struct {
	file, ref string
	program   string
}

var systemImages = []systemImage{
	{"pause", imagePause, "pause"},
	{"debian", ImageDebian, ""},
	{"traefik", imageTraefik, "traefik"},
	{"metrics-server", imageMetricsServer, "metrics-server"},
}

// imageTarballs are the files that a node imports when it starts: every image
// in the directory, those of the system first. Debian's root file system, base,
// is none, even if it is about to be made.
func (c *Cluster) imageTarballs() []string {
	var files []string
	for _, i := range systemImages {
		files = append(files, c.image(i.file))
	}
	others, _ := filepath.Glob(c.image("*"))
	for _, file := range others {
		if !strings.HasPrefix(filepath.Base(file), "base.") && !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	return files
}

// Images makes the images of the system that are missing or older than their
// programs. Debian takes a minute, once, and a Debian mirror.
func (c *Cluster) Images(ctx context.Context) error {
	release, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := os.MkdirAll(filepath.Join(c.dir, "images"), 0o755); err != nil {
		return err
	}
	for _, i := range systemImages {
		content := c.Program(i.program)
		if i.program == "" {
			if content, err = c.debian(ctx); err != nil {
				return err
			}
		}
		info, err := os.Stat(content)
		if err != nil {
			return fmt.Errorf("image %s: %w: %w", i.ref, ErrNotBuilt, err)
		}
		key := fmt.Sprintf("%s %d %d", i.ref, info.Size(), info.ModTime().UnixNano())
		stamp := c.image(i.file) + ".key"
		if old, _ := os.ReadFile(stamp); string(old) == key && exists(c.image(i.file)) {
			continue
		}
		err = c.step("image "+i.ref, func() error { return i.write(content, c.image(i.file)) })
		if err != nil {
			return err
		}
		if err := os.WriteFile(stamp, []byte(key), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// debian makes the root file system of the Debian image, once.
func (c *Cluster) debian(ctx context.Context) (string, error) {
	file := c.image("base")
	if exists(file) {
		return file, nil
	}
	part := c.image("base") + ".part"
	defer os.Remove(part)
	err := c.step("Debian "+debianSuite, func() error {
		cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", debianSuite, part)
		_, err := output(cmd)
		return err
	})
	if err != nil {
		return "", err
	}
	return file, os.Rename(part, file)
}

// write makes the image from a program or, without one, from a tarball of a
// root file system. Its layer is not compressed: it is read back on the same
// machine.
func (i systemImage) write(content, file string) error {
	data, err := os.ReadFile(content)
	if err != nil {
		return err
	}
	config := v1.Config{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
	if i.program == "" {
		config.Cmd = []string{"/bin/bash"}
	} else {
		config.Entrypoint = []string{"/" + i.program}
		if data, err = archive(i.program, data); err != nil {
			return err
		}
	}
	image, err := mutate.AppendLayers(empty.Image, static.NewLayer(data, types.DockerUncompressedLayer))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, Config: config,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}}},
	})
	if err != nil {
		return err
	}
	ref, err := name.NewTag(i.ref)
	if err != nil {
		return err
	}
	part := file + ".part"
	defer os.Remove(part)
	if err := tarball.WriteToFile(part, ref, image); err != nil {
		return err
	}
	return os.Rename(part, file)
}

// archive is a tar archive of one executable, and of a /tmp for programs that
// expect one.
func archive(program string, data []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: program, Mode: 0o755, Size: int64(len(data))},
	} {
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

// Load imports image tarballs, as docker save, buildah push and Images make
// them, on every node that is on.
func (c *Cluster) Load(ctx context.Context, tarballs ...string) error {
	for _, t := range tarballs {
		t, err := filepath.Abs(t)
		if err != nil {
			return err
		}
		if err := readable(t); err != nil {
			return err
		}
		loaded := 0
		for _, n := range c.Nodes() {
			argv := importCommand(t)
			cmd, err := n.Command(ctx, argv[0], argv[1:]...)
			if errors.Is(err, ErrOff) {
				continue
			}
			if err != nil {
				return err
			}
			if _, err := output(cmd); err != nil {
				return fmt.Errorf("%s: %w", n.Name(), err)
			}
			loaded++
		}
		if loaded == 0 {
			return fmt.Errorf("the cluster: %w", ErrOff)
		}
	}
	return nil
}

// readable fails early and with the name of the file. The node reads it by its
// path, so it cannot lie where a node has a directory of its own.
func readable(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	f.Close()
	for _, hidden := range []string{"/run/", "/var/run/", "/var/log/"} {
		if strings.HasPrefix(file, hidden) {
			return fmt.Errorf("%s: nodes have a %s of their own: copy it elsewhere", file, hidden)
		}
	}
	return nil
}

func exists(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Size() > 0
}
