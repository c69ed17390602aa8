package wire

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// CheckText returns an error that names the first string in params that is not UTF-8. JSON cannot
// carry such a string: encoding/json would replace the bytes by U+FFFD
// (https://pkg.go.dev/encoding/json#Marshal), and that is another command, file or variable.
// AppendRequest checks the same.
func CheckText(params any) error {
	path, bad, found := invalidText(reflect.ValueOf(params), "")
	if !found {
		return nil
	}
	if path == "" {
		path = "params"
	}
	return Errorf(CodeInvalidParams, "%s is not UTF-8 and cannot be sent as JSON: %s", path, quote(bad))
}

// invalidText finds the first string in v that is not UTF-8, and where it is.
func invalidText(v reflect.Value, path string) (where, bad string, found bool) {
	switch v.Kind() {
	case reflect.String:
		return path, v.String(), !utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return invalidText(v.Elem(), path)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return "", "", false // encoding/json writes it as base64
		}
		for i := range v.Len() {
			if where, bad, found = invalidText(v.Index(i), fmt.Sprintf("%s[%d]", path, i)); found {
				return where, bad, true
			}
		}
	case reflect.Map:
		return invalidEntry(v, path)
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !field.IsExported() || name == "-" {
				continue
			}
			if path != "" {
				name = path + "." + name
			}
			if where, bad, found = invalidText(v.Field(i), name); found {
				return where, bad, true
			}
		}
	}
	return "", "", false
}

// invalidEntry looks into a map with keys of strings, in their order.
func invalidEntry(v reflect.Value, path string) (where, bad string, found bool) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, key := range keys {
		if !utf8.ValidString(key.String()) {
			return "a name in " + path, key.String(), true
		}
		where, bad, found = invalidText(v.MapIndex(key), fmt.Sprintf("%s[%s]", path, quote(key.String())))
		if found {
			return where, bad, true
		}
	}
	return "", "", false
}
