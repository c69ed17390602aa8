package conformance

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Match reports where got differs from a pattern. An object of the pattern needs only the members that
// it names; null needs the member to be absent or null, and "*" takes any value. Everything else must be
// equal.
func Match(pattern, got json.RawMessage) error {
	if len(pattern) == 0 {
		return nil
	}
	var p, g any
	if err := json.Unmarshal(pattern, &p); err != nil {
		return fmt.Errorf("pattern: %w", err)
	}
	if len(got) > 0 {
		if err := json.Unmarshal(got, &g); err != nil {
			return err
		}
	}
	return matchValue("", p, g)
}

func matchValue(path string, pattern, got any) error {
	object, isObject := pattern.(map[string]any)
	switch {
	case isObject:
		members, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is %v, want an object", name(path), got)
		}
		for key, p := range object {
			if err := matchValue(path+"."+key, p, members[key]); err != nil {
				return err
			}
		}
		return nil
	case pattern == "*" && got != nil:
		return nil
	case !reflect.DeepEqual(pattern, got):
		return fmt.Errorf("%s is %v, want %v", name(path), got, pattern)
	}
	return nil
}

func name(path string) string {
	if path == "" {
		return "it"
	}
	return strings.TrimPrefix(path, ".")
}
