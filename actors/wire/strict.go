package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// This file refuses what encoding/json reads as something else than the client wrote: it replaces
// an unpaired surrogate by U+FFFD, reads null as "" or 0 in an array or an object, and takes the
// last of two members with one name (https://pkg.go.dev/encoding/json#Unmarshal). A command with a
// replaced byte, or one argument fewer, is another command.

// checkMembers looks at the members of params that p has; others are ignored. raw is an object that
// encoding/json has accepted.
func checkMembers(raw []byte, p any) *Error {
	known := memberNames(reflect.TypeOf(p))
	escapes := bytes.Contains(raw, []byte(`\u`))
	seen := make([]bool, len(known))
	return eachMember(raw, func(key, value []byte) *Error {
		i := indexFold(known, unquote(key))
		if i < 0 {
			return nil
		}
		if seen[i] {
			return Errorf(CodeInvalidParams, "%s is given twice: give it once", known[i])
		}
		seen[i] = true
		return checkValue(value, known[i], escapes)
	})
}

// indexFold finds a name as encoding/json does: whatever its case.
func indexFold(names []string, name string) int {
	return slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// checkValue looks at the value of a member: a string, or an array or object of strings and numbers.
func checkValue(value []byte, path string, escapes bool) *Error {
	switch value[0] {
	case '"':
		if escapes {
			return checkString(value, path)
		}
	case '[':
		return eachElement(value, func(i int, element []byte) *Error {
			return checkElement(element, func() string { return fmt.Sprintf("%s[%d]", path, i) }, escapes)
		})
	case '{':
		var names map[string]bool
		return eachMember(value, func(key, element []byte) *Error {
			if escapes {
				if err := checkString(key, "a name in "+path); err != nil {
					return err
				}
			}
			name := unquote(key)
			if names[name] {
				return Errorf(CodeInvalidParams, "%s[%s] is given twice: give it once", path, quote(name))
			}
			if names == nil {
				names = make(map[string]bool)
			}
			names[name] = true
			return checkElement(element, func() string { return fmt.Sprintf("%s[%s]", path, quote(name)) }, escapes)
		})
	}
	return nil
}

func checkElement(value []byte, path func() string, escapes bool) *Error {
	switch {
	case value[0] == 'n':
		return Errorf(CodeInvalidParams, "%s must not be null: leave it out, or give a value", path())
	case value[0] == '"' && escapes && unpairedSurrogate(value) >= 0:
		return checkString(value, path())
	}
	return nil
}

// checkString refuses a quoted string with an escape that stands for no character.
func checkString(quoted []byte, path string) *Error {
	at := unpairedSurrogate(quoted)
	if at < 0 {
		return nil
	}
	return Errorf(CodeInvalidParams,
		"%s has an unpaired surrogate, %s, which is no character: a string is Unicode and cannot carry other bytes",
		path, quoted[at:at+escapeMax])
}

// unpairedSurrogate returns the index in a quoted string of the first escape that is half of a
// UTF-16 surrogate pair without the other half, or -1.
func unpairedSurrogate(b []byte) int {
	for i := 1; i < len(b)-1; {
		if b[i] != '\\' {
			i += max(verbatimRun(b[i:len(b)-1]), 1)
			continue
		}
		switch surrogate(b[i:]) {
		case notSurrogate:
			i += 2
		case highSurrogate:
			if surrogate(b[i+escapeMax:]) != lowSurrogate {
				return i
			}
			i += 2 * escapeMax
		default:
			return i
		}
	}
	return -1
}

const (
	notSurrogate = iota
	highSurrogate
	lowSurrogate
)

// surrogate says what the text at the start of b escapes
// (https://www.rfc-editor.org/rfc/rfc8259#section-7).
func surrogate(b []byte) int {
	if len(b) < escapeMax || b[0] != '\\' || b[1] != 'u' || b[2] != 'd' && b[2] != 'D' {
		return notSurrogate
	}
	switch hi := hexValue(b[3]); {
	case hi < 0x8:
		return notSurrogate
	case hi < 0xc:
		return highSurrogate
	}
	return lowSurrogate
}

// repeatedMember returns a member of the envelope that occurs twice, or "".
func repeatedMember(frame []byte) (repeated string) {
	known := memberNames(reflect.TypeFor[envelope]())
	seen := make([]bool, len(known))
	_ = eachMember(frame, func(key, _ []byte) *Error {
		i := indexFold(known, unquote(key))
		if i >= 0 && seen[i] {
			repeated = known[i]
		} else if i >= 0 {
			seen[i] = true
		}
		return nil
	})
	return repeated
}

var memberNamesCache sync.Map // reflect.Type to []string

// memberNames returns the JSON names of a struct's fields, those of embedded structs included.
func memberNames(t reflect.Type) []string {
	if names, ok := memberNamesCache.Load(t); ok {
		return names.([]string) //nolint:errcheck,forcetypeassert // only this function stores
	}
	names := appendMemberNames(nil, t)
	slices.Sort(names)
	names = slices.Compact(names)
	memberNamesCache.Store(t, names)
	return names
}

func appendMemberNames(names []string, t reflect.Type) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && name == "":
			names = appendMemberNames(names, field.Type)
		case field.IsExported():
			names = append(names, name)
		}
	}
	return names
}

// eachMember calls f for each member of an object that encoding/json has accepted, until f returns
// an error. key is quoted.
func eachMember(object []byte, f func(key, value []byte) *Error) *Error {
	for b := afterSpace(object)[1:]; ; {
		b = afterSpace(b)
		if len(b) == 0 || b[0] == '}' {
			return nil
		}
		key := b[:valueLen(b)]
		b = afterSpace(afterSpace(b[len(key):])[1:]) // the colon
		value := b[:valueLen(b)]
		if err := f(key, value); err != nil {
			return err
		}
		if b = afterSpace(b[len(value):]); len(b) > 0 && b[0] == ',' {
			b = b[1:]
		}
	}
}

// eachElement is eachMember for an array.
func eachElement(array []byte, f func(i int, value []byte) *Error) *Error {
	b := afterSpace(array)[1:]
	for i := 0; ; i++ {
		b = afterSpace(b)
		if len(b) == 0 || b[0] == ']' {
			return nil
		}
		value := b[:valueLen(b)]
		if err := f(i, value); err != nil {
			return err
		}
		if b = afterSpace(b[len(value):]); len(b) > 0 && b[0] == ',' {
			b = b[1:]
		}
	}
}

func afterSpace(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }

// valueLen returns the length of the JSON value at the start of b.
func valueLen(b []byte) int {
	depth := 0
	for i := 0; i < len(b); {
		switch b[i] {
		case '"':
			i += stringLen(b[i:])
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\r', '\n':
			i++
		default:
			i += literalLen(b[i:])
		}
		if depth == 0 {
			return i
		}
	}
	return len(b)
}

// literalLen returns the length of the number, true, false or null at the start of b.
func literalLen(b []byte) int {
	if n := bytes.IndexAny(b, ",:]} \t\r\n"); n > 0 {
		return n
	}
	return len(b)
}

// stringLen returns the length of the string at the start of b, with its quotes.
func stringLen(b []byte) int {
	for i := 1; i < len(b); {
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			i += 2
		default:
			i += max(verbatimRun(b[i:]), 1)
		}
	}
	return len(b)
}

// unquote returns the text of a quoted string.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it has been accepted before
	return s
}
