package mcp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// fileStore reads and writes the files of a session.
type fileStore interface {
	// read passes on a file from offset on, until take returns false.
	read(ctx context.Context, at place, offset int64, take func([]byte) bool) error
	// write replaces a file or makes one, with the directories above it. If digest is not "", the file
	// must have that SHA-256, or nothing is changed and the error is errChanged.
	write(ctx context.Context, at place, content []byte, digest string) error
	// list passes on what is in a directory, depth levels deep.
	list(ctx context.Context, at place, depth int, take func(entry) bool) error
}

// place is a path in a session. A relative one begins at the directory in which commands start.
type place struct {
	who     caller
	session string
	path    string
}

// entry is a file in a directory.
type entry struct {
	Path string `json:"path"` // relative to the directory
	Type string `json:"type"` // file, directory, link or other
	Size int64  `json:"size"`
}

var errChanged = errors.New("the file has changed since it was read: read it again")

// commandFiles uses commands of the session: sh, cat, head, tail, find, stat, cp, mv, rm, mkdir,
// readlink, sha256sum and wc, as coreutils and busybox have them. So a file is reached exactly as
// a command reaches it.
type commandFiles struct{ sessions *sessions }

// fileExecution begins the ids of these commands, which list does not show.
const fileExecution = "file-"

// readScript sends what follows the offset $2 of the file $1. tail, on a directory, would say less.
const readScript = `[ -d "$1" ] && { echo "is a directory: use list_files" >&2; exit 1; }
if [ "$2" = 0 ]; then exec cat < "$1"; fi
exec tail -c +"$(($2 + 1))" < "$1"`

func (f commandFiles) read(ctx context.Context, at place, offset int64, take func([]byte) bool) error {
	return f.run(ctx, at, readScript, []string{at.path, strconv.FormatInt(offset, 10)}, nil, take)
}

// writeScript writes beside the file, so that no one sees a part of it, and keeps its mode. $2 is what
// makes the name unique, $3 the size that must arrive, $4 the digest that the file must have.
const writeScript = `set -eu
p=$1
[ ! -d "$p" ] || { echo "is a directory: name a file in it" >&2; exit 1; }
case $p in /*) ;; *) p=./$p ;; esac
[ ! -L "$p" ] || p=$(readlink -f "$p")
mkdir -p "${p%/*}/"
t=$p.$2
trap 'rm -f "$t"' EXIT
trap 'exit 1' HUP INT TERM
[ ! -e "$p" ] || cp -p "$p" "$t"
cat > "$t"
[ "$(wc -c < "$t")" -eq "$3" ] || { echo "the content did not arrive whole" >&2; exit 1; }
if [ -n "$4" ]; then
	d=$(sha256sum < "$p")
	[ "${d%% *}" = "$4" ] || exit 75
fi
mv -f "$t" "$p"
trap - EXIT`

const exitChanged = 75

func (f commandFiles) write(ctx context.Context, at place, content []byte, digest string) error {
	args := []string{at.path, "troupe-" + strings.ToLower(rand.Text()[:10]), strconv.Itoa(len(content)), digest}
	err := f.run(ctx, at, writeScript, args, content, nil)
	var failed *commandError
	if errors.As(err, &failed) && failed.code == exitChanged {
		return errChanged
	}
	return err
}

// listScript prints type, size and path of what is in $1.
const listScript = `[ -d "$1" ] || { [ -e "$1" ] && echo "is not a directory" >&2 || echo "no such directory" >&2; exit 1; }
case $1 in /*) cd "$1" ;; *) cd "./$1" ;; esac
exec find . -mindepth 1 -maxdepth "$2" -exec stat -c '%F/%s/%n' {} +`

func (f commandFiles) list(ctx context.Context, at place, depth int, take func(entry) bool) error {
	var rest []byte
	return f.run(ctx, at, listScript, []string{at.path, strconv.Itoa(depth)}, nil, func(b []byte) bool {
		rest = append(rest, b...)
		for {
			line, after, whole := strings.Cut(string(rest), "\n")
			if !whole {
				return true
			}
			rest = rest[len(rest)-len(after):]
			if e, ok := parseEntry(line); ok && !take(e) {
				return false
			}
		}
	})
}

func parseEntry(line string) (entry, bool) {
	kind, line, _ := strings.Cut(line, "/")
	size, path, ok := strings.Cut(line, "/")
	n, err := strconv.ParseInt(size, 10, 64)
	if !ok || err != nil {
		return entry{}, false // the rest of a name with a line break
	}
	e := entry{Path: text([]byte(strings.TrimPrefix(path, "./"))), Type: "other", Size: n}
	switch {
	case strings.HasPrefix(kind, "regular"):
		e.Type = "file"
	case kind == "directory":
		e.Type = "directory"
	case kind == "symbolic link":
		e.Type = "link"
	}
	return e, true
}

// commandError says why a command failed, in its own words.
type commandError struct {
	path string
	code int
	said string
}

func (e *commandError) Error() string {
	said := e.said
	if i := strings.LastIndex(said, ": "); strings.HasPrefix(said, "sh: ") && i > 0 {
		said = said[i+2:] // "sh: 2: cannot open x: No such file"
	}
	if said == "" {
		said = fmt.Sprintf("the command for it exited with %d", e.code)
	}
	return fmt.Sprintf("%s: %s", e.path, said)
}

// run executes a script and passes on what it prints, until take returns false.
func (f commandFiles) run(
	ctx context.Context, at place, script string, args []string, stdin []byte, take func([]byte) bool,
) error {
	c, err := f.sessions.take(ctx, at.who, at.session)
	if err != nil {
		return explain(err)
	}
	defer f.sessions.release(at.who, c)
	e, err := c.Execute(ctx, wire.ExecuteParams{
		Argv:        append([]string{"sh", "-c", script, "sh"}, args...),
		ExecutionID: fileExecution + strings.ToLower(rand.Text()[:13]),
		Stdin:       stdin != nil, Retain: wire.RetainUnread, Framing: wire.FramingRaw, Encoding: wire.EncodingBase64,
	})
	if err != nil {
		return explain(err)
	}
	if stdin != nil {
		if err := passStdin(ctx, e, stdin); err != nil {
			stop(e)
			return explain(err)
		}
	}
	return f.output(ctx, e, at.path, take)
}

func passStdin(ctx context.Context, e *troupe.Execution, content []byte) error {
	_, err := e.Input(ctx, content)
	if err == nil {
		err = e.CloseInput(ctx)
	}
	if unread(err) {
		return nil // it has ended: what it prints says why
	}
	return err
}

// maxSaid bounds what is kept of a command's stderr, in bytes.
const maxSaid = 500

func (f commandFiles) output(ctx context.Context, e *troupe.Execution, path string, take func([]byte) bool) error {
	var said []byte
	for {
		ev, err := e.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the server did not say how the file's command ended: try again")
		case err != nil:
			stop(e)
			return explain(err)
		}
		switch ev := ev.(type) {
		case *troupe.Output:
			if ev.Stream == wire.Stderr {
				said = append(said, ev.Data[:min(len(ev.Data), maxSaid-len(said))]...)
			} else if take != nil && !take(ev.Data) {
				stop(e)
				return nil
			}
			ev.Release()
		case *troupe.Gap:
			stop(e)
			return fmt.Errorf("%s: %d bytes were lost on the way: try again", path, ev.Bytes)
		case *troupe.Completed:
			switch {
			case ev.Reason == wire.ReasonExited && ev.ExitCode == 0:
				return nil
			case ev.Reason == wire.ReasonExited:
				return &commandError{path, ev.ExitCode, strings.TrimSpace(text(said))}
			}
			return fmt.Errorf("%s: the command for it ended: %s", path, ev.Reason)
		}
	}
}

// stop ends a command of which no more is needed, and takes what it still prints.
func stop(e *troupe.Execution) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	_ = e.Cancel(ctx) // its session is gone, or it ends with its reader
	e.Discard()
}

// digestOf returns the SHA-256 of a file's content.
func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// fileTime bounds what a tool for files may take.
const fileTime = time.Minute
