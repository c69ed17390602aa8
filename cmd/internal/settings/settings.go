// Package settings fills flags from the environment and from a YAML file. A flag
// of a pflag.FlagSet is the one definition of a setting: --max-line is also the
// variable TROUPE_MAX_LINE and the key max-line of the file. A flag wins over the
// variable, and the variable over the file.
//
// It stands on pflag, which cobra brings along, and on the parser of goccy/go-yaml.
// The alternatives were compared as programs with one setting, by the time from
// their start to their end in units of hello world's (medians of 300 runs each, in
// turns, on 2 cores; Go 1.26):
//
//   - pflag 1.1 with the parser of goccy/go-yaml 1.19: 1.20.
//   - pflag with go.yaml.in/yaml/v3 3.0.6: 1.26. Its init compiles a regular
//     expression and fills tables, whether or not there is a file.
//   - peterbourgon/ff 3.4: 1.30, and 4.0.0-alpha.4: 1.36. It would save the loop over
//     the environment, some ten lines. Version 3 has no short flags, version 4 has been
//     an alpha since 2023, and neither tells in which line of the file a key is.
//   - knadh/koanf 2.4: 1.43. It merges maps of values and knows neither types nor
//     defaults, so that each setting would be defined twice.
//   - spf13/viper 1.21 (with cobra): 1.86, and ten modules.
package settings

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

const envPrefix = "TROUPE_"

// EnvName returns the environment variable of a setting.
func EnvName(name string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// flagOnlyKey annotates flags that have neither a variable nor a key.
const flagOnlyKey = "troupe/flag-only"

// FlagOnly marks flags that can only be given on the command line.
func FlagOnly(fs *pflag.FlagSet, names ...string) {
	for _, name := range names {
		if err := fs.SetAnnotation(name, flagOnlyKey, nil); err != nil {
			panic(err) // a flag of that name is not defined
		}
	}
}

// Configurable reports whether a flag has a variable and a key.
func Configurable(f *pflag.Flag) bool {
	_, no := f.Annotations[flagOnlyKey]
	return !no && f.Name != "config" && f.Name != "help" && f.Name != "version"
}

// Document adds its environment variable to the help text of every flag that has one.
func Document(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		if Configurable(f) || f.Name == "config" {
			f.Usage += " ($" + EnvName(f.Name) + ")"
		}
	})
}

// Options say where settings come from. The zero value reads the environment alone.
type Options struct {
	File         string // path of the configuration file; empty: none
	FileOptional bool   // a missing file is no error

	// Keys returns the names that the file may hold, for programs with several
	// commands that share a file. Nil: those of the flags that are loaded.
	Keys func() []string

	// IgnoreEmpty ignores variables that are set but empty. Otherwise they count,
	// as the way to say --admin-listen "".
	IgnoreEmpty bool

	Removed Removed
}

// ConfigFile returns the path of the configuration file: that of the flag
// --config, or else of its variable.
func ConfigFile(fs *pflag.FlagSet) string {
	if f := fs.Lookup("config"); f != nil && f.Value.String() != "" {
		return f.Value.String()
	}
	return os.Getenv(EnvName("config"))
}

// Keys returns the names of the flags that a file may hold.
func Keys(sets ...*pflag.FlagSet) []string {
	var keys []string
	for _, fs := range sets {
		fs.VisitAll(func(f *pflag.Flag) {
			if Configurable(f) && !slices.Contains(keys, f.Name) {
				keys = append(keys, f.Name)
			}
		})
	}
	return keys
}

// Origins says, for each setting that was given, where its value came from, in
// words for an error message: --max-line, TROUPE_MAX_LINE or troupe.yaml:3: max-line.
type Origins map[string]string

// Load sets every flag that was not given on the command line from the
// environment, or else from the configuration file.
func Load(fs *pflag.FlagSet, o Options) (Origins, error) {
	if err := o.Removed.inEnvironment(); err != nil {
		return nil, err
	}
	if o.Keys == nil {
		o.Keys = func() []string { return Keys(fs) }
	}
	entries, err := readFile(o)
	if err != nil {
		return nil, err
	}
	from := Origins{}
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		if origin, err := load(f, entries, o.IgnoreEmpty); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", origin, err))
		} else if origin != "" {
			from[f.Name] = origin
		}
	})
	return from, oneLine(errs)
}

// load sets one flag and returns where its value came from; empty if it has its default.
func load(f *pflag.Flag, file map[string]entry, ignoreEmpty bool) (origin string, err error) {
	if f.Changed {
		return "--" + f.Name, nil
	}
	if !Configurable(f) {
		return "", nil
	}
	env := EnvName(f.Name)
	if value, ok := os.LookupEnv(env); ok && (value != "" || !ignoreEmpty) {
		return env, f.Value.Set(value)
	}
	if e, ok := file[f.Name]; ok {
		return e.where, e.assign(f.Value)
	}
	return "", nil
}

// Explain makes one line of everything that validation refused. Each error begins
// with the flag to change; Explain adds where a refused value came from when that
// was not the flag.
func (from Origins) Explain(err error) error {
	var errs []error
	for _, e := range flatten(err) {
		flag, _, _ := strings.Cut(e.Error(), " ")
		flag = strings.TrimRight(flag, ":,")
		if origin := from[strings.TrimPrefix(flag, "--")]; origin != "" && origin != flag {
			e = fmt.Errorf("%w (from %s)", e, origin)
		}
		errs = append(errs, e)
	}
	return oneLine(errs)
}

// flatten undoes errors.Join.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
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

// oneLine joins errors with semicolons; none make nil.
func oneLine(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	var lines []string
	for _, e := range errs {
		lines = append(lines, e.Error())
	}
	return errors.New(strings.Join(lines, "; "))
}

// Removed maps settings that once existed to a sentence that says what holds instead. Using one is
// an error: to ignore it would change what the operator asked for without a word.
type Removed map[string]string

func (r Removed) explain(name string) error {
	if instead, ok := r[name]; ok {
		return errors.New(instead)
	}
	return nil
}

// Flag explains the parser's error about a flag that was removed. It returns
// other errors as they are.
func (r Removed) Flag(err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		if why := r.explain(unknown.GetSpecifiedName()); why != nil {
			return fmt.Errorf("--%s: %w", unknown.GetSpecifiedName(), why)
		}
	}
	return err
}

func (r Removed) inEnvironment() error {
	var errs []error
	for name := range r {
		if _, ok := os.LookupEnv(EnvName(name)); ok {
			errs = append(errs, fmt.Errorf("%s: %w", EnvName(name), r.explain(name)))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return oneLine(errs)
}
