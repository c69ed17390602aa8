package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

const cpHelp = `Copy files between this machine and a session.

A path in a session is written SESSION:PATH; PATH is relative to the session's
working directory. Directories are copied with everything in them. A target that
is a directory gets the source below it, under its own name; any other target is
the name of the copy. - is the standard input or output.

A copy of a file appears under its name only when it is whole: its digest is
checked. After a lost connection a copy goes on where it was; that of a directory
from a session begins again. Modes, times and symbolic links are kept.

  troupe cp data.csv SESSION:input/
  troupe cp SESSION:results .
  pg_dump shop | troupe cp - SESSION:shop.sql`

func (a *app) cpCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "cp SOURCE TARGET",
		Short: "Copy files to and from a session",
		Long:  cpHelp,
		Args:  rangeArgs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			c := &copying{app: a, quiet: quiet}
			return orInterrupted(ctx, c.copy(ctx, args[0], args[1]))
		},
	}
	settings.Bool(cmd.Flags(), &quiet, "quiet", "q", "show no progress")
	return cmd
}

// copying is one run of troupe cp.
type copying struct {
	app   *app
	quiet bool
	files *troupe.Files
	bar   *progressBar
}

// place is an argument: a path in a session, or here if session is empty.
type place struct {
	session string
	path    string
}

// parsePlace takes SESSION:PATH for a place in a session. A path of this machine with a colon is
// written ./a:b.
func parsePlace(arg string) place {
	session, rest, found := strings.Cut(arg, ":")
	if !found || session == "" || strings.ContainsAny(session, `/\`) || filepath.VolumeName(arg) != "" {
		return place{path: arg}
	}
	return place{session, rest}
}

func (c *copying) copy(ctx context.Context, source, target string) error {
	from, to := parsePlace(source), parsePlace(target)
	switch {
	case from.session != "" && to.session != "":
		return usageError(errors.New("cp copies between a session and this machine: one of the paths must have no session"))
	case from.session == "" && to.session == "":
		return usageError(errors.New("name the session: SESSION:PATH, see troupe sessions"))
	}
	var err error
	if c.files, err = c.app.filesOf(from.session + to.session); err != nil {
		return err
	}
	defer c.files.Close()
	c.bar = newProgressBar(c.app, c.quiet)
	defer c.bar.end()
	if from.session != "" {
		return c.download(ctx, from.path, to.path)
	}
	return c.upload(ctx, from.path, to.path)
}

// filesOf returns the files of a session: of the server that its record here names, or of the
// configured one.
func (a *app) filesOf(session string) (*troupe.Files, error) {
	url, err := serverURL(a.settings.server)
	if err != nil {
		return nil, err
	}
	use := a.configured()
	named, resumeToken := "", ""
	if a.settings.onLine("server") {
		named = url
	}
	switch r, err := a.store().find(session, named); {
	case err == nil && (named == "" || r.URL == named):
		url, session, use, resumeToken = r.URL, r.ID, a.credentialsFor(r, true), r.ResumeToken
	case err != nil && !errors.Is(err, errUnknownSession):
		return nil, err
	}
	opt, err := a.options(use)
	if err != nil {
		return nil, err
	}
	if resumeToken != "" {
		opt.Header = http.Header{wire.ResumeTokenHeader: {resumeToken}}
	}
	return troupe.NewFiles(url, session, opt)
}

func (c *copying) upload(ctx context.Context, source, target string) error {
	if source == "-" {
		return c.uploadStream(ctx, target)
	}
	st, err := os.Stat(source)
	if err != nil {
		return err
	}
	name := filepath.Base(filepath.Clean(source))
	if abs, err := filepath.Abs(source); err == nil {
		name = filepath.Base(abs) // of . and ..
	}
	target, err = c.remoteTarget(ctx, target, name)
	if err != nil {
		return err
	}
	switch {
	case st.IsDir():
		return c.uploadTree(ctx, source, target)
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is neither a file nor a directory", source)
	}
	mode := uint32(st.Mode().Perm())
	c.bar.begin(name, st.Size())
	_, err = c.files.Upload(ctx, target, st.Size(), func(offset int64) (io.ReadCloser, error) {
		return openAt(source, offset)
	}, troupe.UploadOptions{Mode: &mode, Modified: st.ModTime(), Progress: c.bar.at})
	return named(target, err)
}

func openAt(name string, offset int64) (io.ReadCloser, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// remoteTarget returns the path of the copy in the session.
func (c *copying) remoteTarget(ctx context.Context, target, name string) (string, error) {
	wanted := target == "" || strings.HasSuffix(target, "/") // a directory
	isDir, err := c.isDirectory(ctx, target)
	var refused *troupe.FileError
	switch {
	case errors.As(err, &refused) && refused.Code == "not_found" && wanted:
		return "", fmt.Errorf("there is no directory %s in the session: make it, or leave out the slash", target)
	case errors.As(err, &refused) && refused.Code == "not_found":
		return target, nil
	case err != nil:
		return "", named(target, err)
	case isDir:
		return path.Join(target, name), nil
	case wanted:
		return "", fmt.Errorf("%s is not a directory", target)
	}
	return target, nil
}

// isDirectory reports whether a path of the session is a directory, or a link to one.
func (c *copying) isDirectory(ctx context.Context, target string) (bool, error) {
	info, err := c.files.Stat(ctx, or(strings.TrimRight(target, "/"), "."))
	if err != nil || info.Kind != wire.FileSymlink {
		return err == nil && info.Kind == wire.FileDirectory, err
	}
	_, err = c.files.Stat(ctx, strings.TrimRight(target, "/")+"/.")
	return err == nil, nil //nolint:nilerr // a link to something else
}

// uploadStream copies the standard input, which cannot be read twice: a lost connection ends it.
func (c *copying) uploadStream(ctx context.Context, target string) error {
	if target == "" || strings.HasSuffix(target, "/") {
		return usageError(errors.New("the standard input has no name: give the copy one, SESSION:NAME"))
	}
	c.bar.begin(path.Base(target), -1)
	return named(target, c.files.UploadStream(ctx, target, c.app.stdin, troupe.UploadOptions{Progress: c.bar.at}))
}

func (c *copying) download(ctx context.Context, source, target string) error {
	info, err := c.files.Stat(ctx, or(source, "."))
	if err != nil {
		return named(source, err)
	}
	if target == "-" {
		c.bar.begin(string(info.Name), info.Size)
		return named(source, c.files.Download(ctx, source, c.app.stdout, c.bar.at))
	}
	name := string(info.Name)
	if name == "." || name == ".." || name == "/" {
		name = path.Base(path.Clean("/" + source))
	}
	if name, err = localName(name); err != nil {
		return err
	}
	st, err := os.Stat(target)
	switch {
	case err == nil && st.IsDir():
		target = filepath.Join(target, name)
	case err == nil && strings.HasSuffix(target, "/"):
		return fmt.Errorf("%s is not a directory", target)
	case errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(target, "/"):
		return fmt.Errorf("there is no directory %s: make it, or leave out the slash", target)
	}
	if info.Kind == wire.FileDirectory {
		return c.downloadTree(ctx, source, target)
	}
	return c.downloadFile(ctx, source, target, info)
}

// localName refuses a name that would lead out of the target.
func localName(name string) (string, error) {
	if !filepath.IsLocal(name) || strings.ContainsAny(name, `/`) {
		return "", fmt.Errorf("%q cannot be the name of a copy: give it one", name)
	}
	return name, nil
}

// downloadFile copies a file beside its target and renames it.
func (c *copying) downloadFile(ctx context.Context, source, target string, info *troupe.FileInfo) error {
	part, err := os.CreateTemp(filepath.Dir(target), ".troupe-cp-")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name()) // it has another name if all went well
	defer part.Close()
	size := info.Size
	if info.Kind != wire.FileRegular {
		size = -1
	}
	c.bar.begin(filepath.Base(target), size)
	w := &sparseWriter{f: part}
	if err := c.files.Download(ctx, source, w, c.bar.at); err != nil {
		return named(source, err)
	}
	if err := w.finish(); err != nil {
		return err
	}
	if err := part.Chmod(fs.FileMode(info.Mode) & fs.ModePerm); err != nil {
		return err
	}
	if err := part.Close(); err != nil {
		return err
	}
	if info.Kind == wire.FileRegular {
		if err := os.Chtimes(part.Name(), info.Modified, info.Modified); err != nil {
			return err
		}
	}
	return os.Rename(part.Name(), target)
}

// named adds the path in the session to an error. The server's refusals name it.
func named(at string, err error) error {
	var refused *troupe.FileError
	if err == nil || errors.As(err, &refused) {
		return err
	}
	return fmt.Errorf("%s: %w", or(at, "."), err)
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}
