package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// origins says, for each setting that has a value other than its default, where
// that value came from, in words for an error message.
type origins map[string]string

// load fills the settings from the command line, the environment and the
// configuration file, in this order of precedence. An environment variable that
// is set but empty counts: it is the way to say --admin-listen "".
func load(all []setting, flags *pflag.FlagSet) (origins, error) {
	v := viper.New()
	v.SetEnvPrefix("TROUPE")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AllowEmptyEnv(true)
	v.AutomaticEnv()
	if err := v.BindPFlags(flags); err != nil {
		return nil, err
	}
	lines := map[string]string{}
	if path := v.GetString("config"); path != "" {
		values, where, err := readFile(path, all)
		if err != nil {
			return nil, err
		}
		if err := v.MergeConfigMap(values); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		lines = where
	}
	from := origins{}
	for _, s := range all {
		flag := flags.Lookup(s.name)
		if flag.Changed { // pflag has set it
			from[s.name] = "--" + s.name
			continue
		}
		if _, ok := os.LookupEnv(s.env()); ok {
			from[s.name] = s.env()
		} else if v.InConfig(s.name) {
			from[s.name] = lines[s.name]
		} else {
			continue
		}
		if err := assign(s.value, v.Get(s.name)); err != nil {
			return nil, fmt.Errorf("%s: %w", from[s.name], err)
		}
	}
	return from, nil
}

// assign gives a setting what an environment variable (string) or the
// configuration file (string or []string) says.
func assign(value pflag.Value, to any) error {
	switch to := to.(type) {
	case string:
		return value.Set(to)
	case []string:
		list, ok := value.(listValue)
		if !ok {
			return errors.New("one value is needed, not a list")
		}
		return list.Replace(to)
	default:
		return fmt.Errorf("a value of type %T is of no use here", to)
	}
}

// readFile reads a configuration file: one YAML mapping from the names of
// settings to values. It returns the values as they are written, and the place of
// each for error messages. The raw text is kept so that a value goes through the
// same parser as a flag: 10MiB, 1e6 and 0600 mean what they mean there.
func readFile(path string, all []setting) (values map[string]any, where map[string]string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("the configuration file: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	values, where = map[string]any{}, map[string]string{}
	if len(doc.Content) == 0 { // nothing but comments
		return values, where, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, nil, fmt.Errorf("%s:%d: expected lines of \"setting: value\"", path, root.Line)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		at := fmt.Sprintf("%s:%d: %s", path, key.Line, key.Value)
		if !slices.ContainsFunc(all, func(s setting) bool { return s.name == key.Value && s.inFile() }) {
			return nil, nil, fmt.Errorf("%s:%d: unknown key %q%s", path, key.Line, key.Value, suggest(key.Value, all))
		}
		if _, twice := values[key.Value]; twice {
			return nil, nil, fmt.Errorf("%s: the key is there twice", at)
		}
		if values[key.Value], err = plain(node); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", at, err)
		}
		where[key.Value] = at
	}
	return values, where, nil
}

// plain returns a YAML scalar as a string, or a list of scalars as strings.
func plain(node *yaml.Node) (any, error) {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch {
	case node.Kind == yaml.SequenceNode:
		items := []string{}
		for _, n := range node.Content {
			item, err := plain(n)
			s, ok := item.(string)
			if err != nil || !ok {
				return nil, errors.New("a list of plain values is needed")
			}
			items = append(items, s)
		}
		return items, nil
	case node.Kind != yaml.ScalarNode:
		return nil, errors.New("a plain value or a list is needed, not a mapping")
	case node.Tag == "!!null":
		return nil, errors.New("the value is missing; leave the line out for the default, or write \"\" for nothing")
	default:
		return node.Value, nil
	}
}

// suggest returns ", did you mean …?" when a setting's name is close to the key.
func suggest(key string, all []setting) string {
	fold := func(s string) string {
		return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s))
	}
	for _, s := range all {
		if s.inFile() && (fold(s.name) == fold(key) || len(key) > 3 && strings.HasPrefix(s.name, key)) {
			return fmt.Sprintf(", did you mean %q?", s.name)
		}
	}
	return ""
}

var leadingFlag = regexp.MustCompile(`^--([a-z-]+)`)

// explain makes one line of everything that validation refused, and says where
// a refused value came from when it was not a flag.
func (from origins) explain(err error) error {
	if err == nil {
		return nil
	}
	var lines []string
	for _, e := range flatten(err) {
		line := e.Error()
		if m := leadingFlag.FindStringSubmatch(line); m != nil {
			if origin := from[m[1]]; origin != "" && origin != "--"+m[1] {
				line += " (from " + origin + ")"
			}
		}
		lines = append(lines, line)
	}
	return errors.New(strings.Join(lines, "; "))
}

// flatten undoes errors.Join.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}
