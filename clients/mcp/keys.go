package mcp

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxKeys bounds what one call types, in bytes.
const maxKeys = 64 << 10

// keySequences are what keys send, as xterm has them (https://invisible-island.net/xterm/ctlseqs/ctlseqs.html).
// Names are in lower case.
var keySequences = map[string]string{
	"enter": "\r", "return": "\r", "tab": "\t", "escape": "\x1b", "esc": "\x1b", "space": " ", "backspace": "\x7f",
	"delete": "\x1b[3~", "del": "\x1b[3~", "insert": "\x1b[2~", "pageup": "\x1b[5~", "pagedown": "\x1b[6~",
	"pgup": "\x1b[5~", "pgdn": "\x1b[6~", "shift-tab": "\x1b[Z",
	"f1": "\x1bOP", "f2": "\x1bOQ", "f3": "\x1bOR", "f4": "\x1bOS", "f5": "\x1b[15~", "f6": "\x1b[17~",
	"f7": "\x1b[18~", "f8": "\x1b[19~", "f9": "\x1b[20~", "f10": "\x1b[21~", "f11": "\x1b[23~", "f12": "\x1b[24~",
}

// cursorSequences end with this letter. What is before it depends on the mode of the terminal.
var cursorSequences = map[string]string{
	"up": "A", "down": "B", "right": "C", "left": "D", "home": "H", "end": "F",
}

// modifiers are those of xterm, less one.
var modifiers = map[string]int{"shift": 1, "alt": 2, "ctrl": 4}

// typed returns the bytes that keys send. Each is the name of a key, or else text. application is the mode of the
// cursor keys.
func typed(keys []string, application bool) ([]byte, error) {
	if len(keys) == 0 {
		return nil, errors.New(`keys is empty: give text and names of keys, such as ["ls","Enter"]`)
	}
	var b []byte
	for _, k := range keys {
		seq, known, err := sequence(k, application)
		switch {
		case err != nil:
			return nil, err
		case known:
			b = append(b, seq...)
		default:
			b = append(b, k...)
		}
		if len(b) > maxKeys {
			return nil, fmt.Errorf("keys have more than %d bytes: use write_file, or several calls", maxKeys)
		}
	}
	return b, nil
}

// plainLetter makes names of keys comparable. It changes no length, as strings.ToLower would.
func plainLetter(r rune) rune {
	switch {
	case r == '+':
		return '-'
	case r >= 'A' && r <= 'Z':
		return r + 'a' - 'A'
	}
	return r
}

// sequence returns what the key of that name sends. A text of one word that has a modifier in front is refused where
// there is no such key, as it would hardly be meant to be typed.
func sequence(name string, application bool) (seq string, known bool, err error) {
	plain := strings.Map(plainLetter, name)
	mods := 0
	for rest := plain; ; {
		mod, after, ok := strings.Cut(rest, "-")
		n := modifiers[mod]
		if !ok || n == 0 || after == "" {
			plain = rest
			break
		}
		mods |= n
		rest = after
	}
	if mods == modifiers["shift"] && plain == "tab" {
		return keySequences["shift-tab"], true, nil
	}
	letter, cursor := cursorSequences[plain]
	seq, special := keySequences[plain]
	char := name[len(name)-len(plain):] // the case of a letter counts
	single := utf8.RuneCountInString(char) == 1
	switch {
	case mods == 0 && cursor && application:
		return "\x1bO" + letter, true, nil
	case mods == 0 && cursor:
		return "\x1b[" + letter, true, nil
	case mods == 0:
		return seq, special, nil
	case cursor:
		return fmt.Sprintf("\x1b[1;%d%s", mods+1, letter), true, nil
	case mods == modifiers["shift"] && single:
		return strings.ToUpper(char), true, nil
	case mods == modifiers["alt"] && special:
		return "\x1b" + seq, true, nil
	case mods == modifiers["alt"] && single:
		return "\x1b" + char, true, nil
	case mods&modifiers["ctrl"] != 0 && mods&modifiers["shift"] == 0:
		if c, ok := control(plain); ok {
			if mods&modifiers["alt"] != 0 {
				return "\x1b" + c, true, nil
			}
			return c, true, nil
		}
	}
	return "", false, fmt.Errorf("no key %.40q: use Enter, Tab, Escape, Backspace, Delete, Up, Down, Left, Right, Home, End, "+
		"PageUp, PageDown, F1 to F12, Ctrl-A to Ctrl-Z, Alt-A and so on; write_stdin types any text", name)
}

// control returns the character that a key sends with Ctrl.
func control(key string) (string, bool) {
	switch {
	case key == "space":
		key = "@"
	case len(key) != 1:
		return "", false
	}
	switch c := key[0]; {
	case c >= 'a' && c <= 'z':
		return string(c - 'a' + 1), true
	case c >= '@' && c <= '_':
		return string(c - '@'), true
	case c == '?':
		return "\x7f", true
	}
	return "", false
}
