package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// copies is a server with a session, a directory beside, and a shell for commands of both.
type copies struct {
	e       *env
	s       *server
	session string
	home    string // of troupe, with what is copied
}

// measureCopies compares `troupe cp` with a pipe between two cats and with tar through `troupe exec`.
func measureCopies(ctx context.Context, e *env) error { return withCopies(ctx, e, (*copies).file) }

// measureTree measures `troupe cp` of many small files.
func measureTree(ctx context.Context, e *env) error { return withCopies(ctx, e, (*copies).tree) }

func withCopies(ctx context.Context, e *env, measure func(*copies, context.Context) error) error {
	s, err := e.start()
	if err != nil {
		return err
	}
	defer s.stop()
	home, err := os.MkdirTemp("", "troupe-load-files-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	client, err := troupe.Dial(ctx, s.ws, troupe.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	return measure(&copies{e, s, client.ID(), home}, ctx)
}

// run runs a line of the shell, with TROUPE, SESSION, IN (the session's directory) and OUT set, and
// returns how long it took.
func (c *copies) run(ctx context.Context, line string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-ec", line)
	cmd.Dir = c.home
	cmd.Env = []string{
		"PATH=/usr/bin:/bin", "HOME=" + c.home, "TROUPE=" + c.e.troupe, "TROUPE_SERVER=" + c.s.ws, "SESSION=" + c.session,
		"IN=" + c.s.dir, "OUT=" + c.home,
	}
	began := time.Now()
	if said, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", line, err, said)
	}
	return time.Since(began), nil
}

// copyWay is a way to copy, and the lines that begin with a clean target.
type copyWay struct {
	name, line string
	took       samples
}

func (c *copies) measure(ctx context.Context, rounds int, clean string, ways []*copyWay) error {
	for range rounds {
		for _, w := range ways {
			if _, err := c.run(ctx, clean); err != nil {
				return err
			}
			took, err := c.run(ctx, w.line)
			if err != nil {
				return err
			}
			w.took = append(w.took, took)
		}
	}
	return nil
}

func (c *copies) file(ctx context.Context) error {
	size, rounds := int64(bigFile/2), 3
	if c.e.quick {
		size, rounds = bigFile/16, 1
	}
	if err := writeFile(filepath.Join(c.home, "file"), size); err != nil {
		return err
	}
	ways := []*copyWay{
		{name: "cat FILE | cat > COPY", line: `cat file | cat >"$OUT/copy"`},
		{name: "troupe cp FILE SESSION:", line: `"$TROUPE" cp file "$SESSION":copy`},
		{name: "troupe cp SESSION:FILE", line: `ln file "$IN/copy"; "$TROUPE" cp "$SESSION":copy copy`},
		{name: "tar -c FILE | troupe exec -- tar -x", line: `tar -cf - file | "$TROUPE" exec -i -- tar -xf -`},
		{
			name: "troupe exec -- tar -c FILE | tar -x",
			line: `ln file "$IN/copy"; "$TROUPE" exec -- tar -cf - copy | tar -xf -`,
		},
	}
	if err := c.measure(ctx, rounds, `rm -f "$OUT/copy" "$IN/copy" "$IN/file"`, ways); err != nil {
		return err
	}
	for _, w := range ways {
		rate := float64(size) / w.took.median().Seconds() / 1e6
		report(fmt.Sprintf("%s, %d MiB, median", w.name, size>>20), fmt.Sprintf("%.0f MB/s", rate), "", true)
	}
	for _, pair := range [][2]int{{1, 0}, {2, 0}, {1, 3}, {2, 4}} {
		ours, other := ways[pair[0]], ways[pair[1]]
		r, target, met := ratio(other.took.median(), ours.took.median()), "", true
		if pair[1] == 0 {
			target, met = ">= 0.60", r >= 0.6
		}
		report(fmt.Sprintf("rate of %s against %s", ours.name, other.name), fmt.Sprintf("%.2f", r), target, met)
	}
	return nil
}

// treeFiles is how many files a tree has, of 0 to 8 KiB, in directories of 100.
const treeFiles = 100_000

func (c *copies) tree(ctx context.Context) error {
	files := treeFiles
	if c.e.quick {
		files = treeFiles / 50
	}
	for i := range files {
		name := filepath.Join(c.home, "tree", fmt.Sprint(i/100), fmt.Sprint(i))
		if i%100 == 0 {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(name, []byte(strings.Repeat("x", i*31%8192)), 0o644); err != nil {
			return err
		}
	}
	ways := []*copyWay{
		{name: "tar -c TREE | tar -x", line: `mkdir "$OUT/copy"; tar -cf - tree | tar -C "$OUT/copy" -xf -`},
		{name: "troupe cp TREE SESSION:", line: `"$TROUPE" cp tree "$SESSION":copy; diff -r tree "$IN/copy"`},
		{
			name: "troupe cp SESSION:TREE",
			line: `mv tree "$IN/copy"; "$TROUPE" cp "$SESSION":copy copy; mv "$IN/copy" tree; diff -r tree copy`,
		},
	}
	// Comparing is not copying: what it takes is subtracted.
	if err := c.measure(ctx, 1, `rm -rf "$OUT/copy" "$IN/copy"`, ways); err != nil {
		return err
	}
	compare, err := c.run(ctx, `diff -r tree copy`)
	if err != nil {
		return err
	}
	for i, w := range ways {
		took := w.took.median()
		if i > 0 {
			took -= compare
		}
		rate := fmt.Sprintf("%.0f files/s", float64(files)/took.Seconds())
		report(fmt.Sprintf("%s, %d files", w.name, files), rate, "", true)
	}
	return nil
}
