package mcp

import (
	"strings"
	"testing"
)

// TestKeysSendWhatXtermSends, by any name that models write, and text as it is.
func TestKeysSendWhatXtermSends(t *testing.T) {
	for name, want := range map[string]string{
		"Enter": "\r", "ENTER": "\r", "Tab": "\t", "Shift-Tab": "\x1b[Z", "Escape": "\x1b", "Backspace": "\x7f", "Space": " ",
		"Up": "\x1b[A", "End": "\x1b[F", "Ctrl-Up": "\x1b[1;5A", "Shift+Alt+Left": "\x1b[1;4D", "PageDown": "\x1b[6~",
		"F1": "\x1bOP", "F5": "\x1b[15~", "F12": "\x1b[24~", "Delete": "\x1b[3~",
		"Ctrl-C": "\x03", "ctrl+c": "\x03", "Ctrl-Z": "\x1a", "Ctrl-[": "\x1b", "Ctrl-\\": "\x1c", "Ctrl-Space": "\x00",
		"Alt-x": "\x1bx", "Alt-X": "\x1bX", "Alt-Enter": "\x1b\r", "Ctrl-Alt-a": "\x1b\x01", "Shift-a": "A", "Alt-ä": "\x1bä",
		"ls -l": "ls -l", "a": "a", "-": "-", "ä木": "ä木", "up to": "up to", "Ctrl-": "Ctrl-", "well-known": "well-known",
		"Ⱥ": "Ⱥ", "echo Ⱥ": "echo Ⱥ", "Alt-Ⱥ": "\x1bȺ", "İ": "İ",
	} {
		if got, err := typed([]string{name}, false); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v, want %q", name, got, err, want)
		}
	}
	if got, err := typed([]string{"x", "Up", "Home", "F5", "Ctrl-Up"}, true); err != nil ||
		string(got) != "x\x1bOA\x1bOH\x1b[15~\x1b[1;5A" {
		t.Errorf("in application mode: %q, %v", got, err)
	}
	for _, keys := range [][]string{nil, {"Ctrl-F13"}, {"Ctrl-Shift-C"}, {"Alt-word"}, {strings.Repeat("x", maxKeys), "x"}} {
		if got, err := typed(keys, false); err == nil {
			t.Errorf("%.40q: %.40q", keys, got)
		}
	}
}
