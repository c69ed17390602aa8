package settings

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/pflag"
)

// entry is a line of the configuration file. It keeps the value as written, so that it goes through
// the same parser as a flag: 10MiB, 1e6 and 0600 mean the same in both.
type entry struct {
	where string   // file:line: key
	text  string   // of a single value
	items []string // of a list; nil: it is a single value
}

// assign gives a flag the entry's value.
func (e entry) assign(value pflag.Value) error {
	if e.items == nil {
		return value.Set(e.text)
	}
	list, ok := value.(pflag.SliceValue)
	if !ok {
		return errors.New("must be a single value, not a list")
	}
	return list.Replace(e.items)
}

// readFile reads one YAML mapping from the names of settings to values.
func readFile(o Options) (map[string]entry, error) {
	if o.File == "" {
		return nil, nil
	}
	if o.FileOptional {
		// It is also missing if its directory is a file or may not be searched: HOME may be anything.
		if _, err := os.Stat(o.File); err != nil {
			return nil, nil //nolint:nilerr // that is what optional means
		}
	}
	data, err := os.ReadFile(o.File)
	if err != nil {
		return nil, fmt.Errorf("the configuration file: %w", err)
	}
	parsed, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey()) // we report duplicates
	if err != nil {
		return nil, syntaxError(o.File, err)
	}
	f := file{
		path:    o.File,
		keys:    o.Keys(),
		removed: o.Removed,
		entries: map[string]entry{},
		anchors: map[string]ast.Node{},
	}
	for i, doc := range parsed.Docs {
		if i > 0 {
			return nil, fmt.Errorf("%s: must hold one YAML document, not %d", o.File, len(parsed.Docs))
		}
		if err := f.read(doc.Body); err != nil {
			return nil, err
		}
	}
	return f.entries, nil
}

// syntaxError reduces the parser's error to one line, without the source that follows it. It also
// removes quoted values from the message, because they may be tokens.
func syntaxError(path string, err error) error {
	message, _, _ := strings.Cut(err.Error(), "\n")
	var at interface{ GetMessage() string }
	var line int
	if errors.As(err, &at) {
		if _, scanErr := fmt.Sscanf(message, "[%d:", &line); scanErr == nil {
			what, _, _ := strings.Cut(at.GetMessage(), `: "`)
			return fmt.Errorf("%s:%d: not YAML: %s", path, line, what)
		}
	}
	return fmt.Errorf("%s: not YAML: %s", path, message)
}

// file is a configuration file being read.
type file struct {
	path    string
	keys    []string
	removed Removed
	entries map[string]entry
	anchors map[string]ast.Node
}

func (f *file) read(body ast.Node) error {
	switch body := body.(type) {
	case nil, *ast.CommentGroupNode: // nothing but comments
		return nil
	case *ast.MappingNode:
		for _, pair := range body.Values {
			if err := f.add(pair); err != nil {
				return err
			}
		}
		return nil
	case *ast.MappingValueNode:
		return f.add(body)
	default:
		return fmt.Errorf("%s:%d: expected lines of \"setting: value\"", f.path, line(body))
	}
}

func (f *file) add(pair *ast.MappingValueNode) error {
	key := pair.Key.GetToken().Value
	at := fmt.Sprintf("%s:%d", f.path, line(pair.Key))
	where := at + ": " + key
	if !slices.Contains(f.keys, key) {
		if err := f.removed.explain(key); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		return fmt.Errorf("%s: unknown key %q%s", at, key, suggest(key, f.keys))
	}
	if _, twice := f.entries[key]; twice {
		return fmt.Errorf("%s: the key appears twice", where)
	}
	e, err := f.value(pair.Value)
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	e.where = where
	f.entries[key] = e
	return nil
}

func line(n ast.Node) int { return n.GetToken().Position.Line }

// value returns the text of a scalar, or of the scalars of a list.
func (f *file) value(n ast.Node) (entry, error) {
	list, ok := f.resolve(n).(*ast.SequenceNode)
	if !ok {
		text, err := f.scalar(n)
		return entry{text: text}, err
	}
	e := entry{items: []string{}}
	for _, item := range list.Values {
		text, err := f.scalar(item)
		if err != nil {
			return entry{}, errors.New("must be a list of plain values")
		}
		e.items = append(e.items, text)
	}
	return e, nil
}

func (f *file) scalar(n ast.Node) (string, error) {
	switch n := f.resolve(n).(type) {
	case *ast.NullNode:
		return "", errors.New("the value is missing; leave the line out for the default, or write \"\" for nothing")
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case ast.ScalarNode:
		return n.GetToken().Value, nil
	default:
		return "", errors.New("must be a plain value or a list, not a mapping")
	}
}

// resolve follows aliases and looks below anchors and tags.
func (f *file) resolve(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.AnchorNode:
		f.anchors[n.Name.GetToken().Value] = n.Value
		return f.resolve(n.Value)
	case *ast.AliasNode:
		return f.anchors[n.Value.GetToken().Value] // without aliases in it: a plain value or a list
	case *ast.TagNode:
		return f.resolve(n.Value)
	default:
		return n
	}
}

// suggest returns ", did you mean …?" when a setting's name is close to the key.
func suggest(key string, keys []string) string {
	fold := func(s string) string {
		return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s))
	}
	for _, name := range keys {
		if fold(name) == fold(key) || len(key) > 3 && strings.HasPrefix(name, key) {
			return fmt.Sprintf(", did you mean %q?", name)
		}
	}
	return ""
}
