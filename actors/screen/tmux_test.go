package screen

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tmuxState is what can be asked of tmux about a terminal, beside its cells.
const tmuxState = "cursor #{cursor_x},#{cursor_y} #{cursor_flag}, alternate #{alternate_on}, insert #{insert_flag}, " +
	"keys #{keypad_cursor_flag} #{keypad_flag}, mouse #{mouse_any_flag} #{mouse_button_flag} #{mouse_standard_flag} " +
	"#{mouse_sgr_flag}, region #{scroll_region_upper}-#{scroll_region_lower}, wrap #{wrap_flag}, title #{pane_title}"

// tmuxShows is what tmux shows when a program has written some bytes to a terminal of a size, and the state.
func tmuxShows(t *testing.T, cols, rows int, output []byte) (shown *Screen, state string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "output")
	if err := os.WriteFile(file, output, 0o600); err != nil {
		t.Fatal(err)
	}
	tmux := func(args ...string) string {
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "tmux", append([]string{"-S", filepath.Join(dir, "socket"), "-f", "/dev/null"}, args...)...)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	// The answer to the last question says that all before it was seen. Programs ask others.
	tmux("new-session", "-d", "-x", fmt.Sprint(cols), "-y", fmt.Sprint(rows), fmt.Sprintf(
		`stty raw -echo; printf '\033]2;\a'; cat %s; printf '\030\033[5n'; cat >%s/seen`, file, dir),
		";", "set", "status", "off")
	t.Cleanup(func() { tmux("kill-server") })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if seen, _ := os.ReadFile(dir + "/seen"); strings.HasSuffix(string(seen), "\x1b[0n") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("tmux does not answer")
		}
	}
	shown = New(cols, rows)
	lines := strings.TrimSuffix(tmux("capture-pane", "-p", "-e", "-N"), "\n")
	_, _ = shown.Write([]byte("\x1b[?7l" + strings.ReplaceAll(lines, "\n", "\r\n")))
	for y := range shown.normal.rows { // it makes no difference between blanks and spaces
		for x, c := range shown.normal.rows[y].cells {
			if c.content == ' ' && !c.shows() {
				shown.normal.rows[y].cells[x] = cell{pen: c.erased()}
			}
		}
		// Of a blank end it does not say which background it has.
		shown.normal.rows[y].cells = shown.normal.rows[y].cells[:shown.normal.rows[y].used(cols)]
	}
	return shown, tmux("display-message", "-p", tmuxState)
}

func TestDrawingsAgreeWithTmux(t *testing.T) {
	if _, err := exec.LookPath("tmux"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("needs tmux: %v", err)
	}
	for _, r := range recordings(t) {
		// tmux has other widths for some characters, and these recordings show them.
		if r.name == "colors" || r.name == "tmux" || r.name == "bash" {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			output := r.pieces[0].output
			for _, cut := range []int{len(output) / 3, len(output) * 3 / 4, len(output)} {
				s := New(r.cols, r.rows)
				_, _ = s.Write(output[:cut])
				want, state := tmuxShows(t, r.cols, r.rows, output[:cut])
				got, drawn := tmuxShows(t, r.cols, r.rows, s.Draw())
				for y := range r.rows {
					if a, b := got.normal.rows[y].cells, want.normal.rows[y].cells; !slices.Equal(a, b) {
						t.Errorf("byte %d: row %d is %q, should be %q: %x, %x", cut, y, got.Text()[y], want.Text()[y], a, b)
					}
				}
				if drawn != state {
					t.Errorf("byte %d: is\n%s, should be\n%s", cut, drawn, state)
				}
			}
		})
	}
}
