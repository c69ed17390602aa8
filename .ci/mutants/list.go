package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// mutant is a record of a list.
type mutant struct {
	list, name string
	line       int // of the list
	file       string
	after      string   // the "@" line, if there is one
	old, new   []string // without indentation
	command    string
	hangs      time.Duration // the tests notice by running longer than this; 0: they do not

	source  []byte // the file with the mutation
	verdict verdict
}

func (m *mutant) String() string { return m.list + ": " + m.name }

// hangsAfter is how long to wait for a mutant whose tests notice by hanging.
const hangsAfter = 30 * time.Second

// readLists reads every list of a directory.
func readLists(dir string) ([]*mutant, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	var all []*mutant
	var errs []error
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		mutants, err := parse(strings.TrimSuffix(filepath.Base(file), ".txt"), string(content))
		if err != nil {
			errs = append(errs, err)
		}
		all = append(all, mutants...)
	}
	return all, errors.Join(errs...)
}

// parse reads the records of one list.
func parse(list, content string) ([]*mutant, error) {
	var mutants []*mutant
	m := &mutant{}
	flush := func() error {
		if len(m.old) == 0 && len(m.new) == 0 { // nothing, or a comment
			m.name, m.line = "", 0
			return nil
		}
		if err := m.complete(mutants); err != nil {
			return fmt.Errorf("%s.txt:%d: %w", list, m.line, err)
		}
		mutants = append(mutants, m)
		m = &mutant{file: m.file, command: m.command}
		return nil
	}
	n := 0
	for line := range strings.Lines(content + "\n\n") {
		n++
		line = strings.TrimSpace(line)
		if line == "" {
			if err := flush(); err != nil {
				return nil, err
			}
			continue
		}
		if m.line == 0 {
			m.list, m.line = list, n
		}
		if err := m.read(line); err != nil {
			return nil, fmt.Errorf("%s.txt:%d: %w", list, n, err)
		}
	}
	return mutants, nil
}

// read takes one line of a record.
func (m *mutant) read(line string) error {
	kind, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch {
	case kind == "#":
		if m.name == "" { // what follows is a comment
			m.name = rest
		}
	case kind == "@":
		m.after = rest
	case kind == "-":
		m.old = append(m.old, rest)
	case kind == "+":
		m.new = append(m.new, rest)
	case kind == "timeout:":
		expected, bound, given := strings.Cut(rest, " ")
		m.hangs = hangsAfter
		var err error
		if given {
			m.hangs, err = time.ParseDuration(bound)
		}
		if expected != "red" || err != nil || m.hangs <= 0 {
			return fmt.Errorf("want timeout: red, or timeout: red 5s, got %q", line)
		}
	case strings.Contains(line, "go test "):
		m.command = line
	case strings.HasSuffix(line, ".go") && !strings.Contains(line, " "):
		m.file = line
	default:
		return fmt.Errorf("cannot read %q", line)
	}
	return nil
}

// complete says what a record lacks.
func (m *mutant) complete(others []*mutant) error {
	switch {
	case m.name == "":
		return errors.New("a record begins with # and the name of its mutant")
	case slices.ContainsFunc(others, func(o *mutant) bool { return o.name == m.name }):
		return fmt.Errorf("there are two mutants %q", m.name)
	case m.file == "" || strings.HasSuffix(m.file, "_test.go"):
		return fmt.Errorf("%s: no file of the code itself is named", m.name)
	case len(m.old) == 0:
		return fmt.Errorf("%s: no line is quoted", m.name)
	case slices.Equal(m.old, m.new):
		return fmt.Errorf("%s: the replacement changes nothing", m.name)
	}
	words, err := split(m.command)
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	for len(words) > 0 && strings.Contains(words[0], "=") {
		words = words[1:]
	}
	if len(words) < 3 || words[0] != "go" || words[1] != "test" {
		return fmt.Errorf("%s: the command must be go test with a package", m.name)
	}
	return nil
}

// apply returns the file with the mutation.
func (m *mutant) apply(root string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return nil, fmt.Errorf("%s.txt:%d: %s: %w", m.list, m.line, m.name, err)
	}
	source, err := m.mutate(string(content))
	if err != nil {
		return nil, fmt.Errorf("%s.txt:%d: %s: %s: %w", m.list, m.line, m.name, m.file, err)
	}
	return []byte(source), nil
}

func (m *mutant) mutate(content string) (string, error) {
	lines := strings.Split(content, "\n")
	from, to := 0, len(lines)
	if m.after != "" {
		at := find(lines, []string{m.after})
		if len(at) != 1 {
			return "", fmt.Errorf("the line %q occurs %d times, want once", m.after, len(at))
		}
		from = at[0] + 1
		if end := slices.Index(lines[from:], "}"); end >= 0 {
			to = from + end
		}
	}
	at := find(lines[from:to], m.old)
	if len(at) == 0 || len(at) > 1 && m.after == "" {
		return "", fmt.Errorf("%q occurs %d times, want once", strings.Join(m.old, "\n"), len(at))
	}
	first := from + at[0]
	return strings.Join(slices.Replace(lines, first, first+len(m.old), m.new...), "\n"), nil
}

// find returns where the wanted lines occur one after the other, whatever their indentation.
func find(lines, wanted []string) []int {
	var at []int
	for i := range len(lines) - len(wanted) + 1 {
		same := func(a, b string) bool { return strings.TrimSpace(a) == b }
		if slices.EqualFunc(lines[i:i+len(wanted)], wanted, same) {
			at = append(at, i)
		}
	}
	return at
}

// split cuts a command into words as a shell does, with quotes and without anything else.
func split(command string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, inWord := rune(0), false
	for _, c := range command {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, inWord = c, true
		case quote == 0 && c == ' ':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote is not closed: %s", command)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
