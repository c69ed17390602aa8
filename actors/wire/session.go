package wire

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Bounds of what a client may attach to its session. The server holds it for as long as the session.
const (
	MaxSessionName = 63 // bytes
	MaxLabels      = 16
	MaxLabelPart   = 63 // bytes of a label's key, and of its value
)

// SessionOptions are what a client asks for when it opens a session. The zero value asks for nothing.
type SessionOptions struct {
	// Name is for people, and need not be unique: 1 to 63 of a-z, 0-9 and "-", beginning and ending with
	// a letter or digit. Empty: none.
	Name string
	// Labels are for programs: at most 16. A key has 1 to 63 of A-Z, a-z, 0-9, ".", "_", "/" and "-", a
	// value up to 63 of the same. Both begin and end with a letter or digit; a value may be empty.
	Labels map[string]string
	// ResumeWindow is how long the session is kept without a connection, at most the server's idle
	// timeout. 0: the server's resume window.
	ResumeWindow time.Duration
}

// Check reports the first of the options that no server accepts.
func (o SessionOptions) Check() error {
	if o.Name != "" && !consists(o.Name, MaxSessionName, "-", isLower) {
		return fmt.Errorf("name %.80q: use 1 to %d of a-z, 0-9 and -, with a letter or digit at both ends",
			o.Name, MaxSessionName)
	}
	if len(o.Labels) > MaxLabels {
		return fmt.Errorf("%d labels: a session has at most %d", len(o.Labels), MaxLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(o.Labels)) {
		if err := CheckLabel(key, o.Labels[key]); err != nil {
			return err
		}
	}
	if o.ResumeWindow < 0 {
		return fmt.Errorf("resume window of %v: it must not be negative", o.ResumeWindow)
	}
	return nil
}

// CheckLabel reports why a session cannot have this label.
func CheckLabel(key, value string) error {
	const form = "of A-Z, a-z, 0-9, . _ / and -, with a letter or digit at both ends"
	if !consists(key, MaxLabelPart, "._/-", isAlphanumeric) {
		return fmt.Errorf("label key %.80q: use 1 to %d %s", key, MaxLabelPart, form)
	}
	if value != "" && !consists(value, MaxLabelPart, "._/-", isAlphanumeric) {
		return fmt.Errorf("value %.80q of label %s: use up to %d %s", value, key, MaxLabelPart, form)
	}
	return nil
}

// consists reports whether s has 1 to most bytes, all of the class or, inside, of the others.
func consists(s string, most int, others string, class func(byte) bool) bool {
	if s == "" || len(s) > most || !class(s[0]) || !class(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !class(s[i]) && !strings.Contains(others, s[i:i+1]) {
			return false
		}
	}
	return true
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func isAlphanumeric(c byte) bool { return isLower(c) || 'A' <= c && c <= 'Z' }
