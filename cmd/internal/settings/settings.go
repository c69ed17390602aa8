// Package settings fills flags from the environment and from a YAML file. A flag of a pflag.FlagSet
// is the only definition of a setting: --max-line is also the variable TROUPE_MAX_LINE and the key
// max-line of the file. A flag takes precedence over the variable, and the variable over the file.
//
// It uses pflag, which cobra depends on anyway, and the parser of goccy/go-yaml. The alternatives
// were compared as programs with one setting. The figures are run times relative to hello world
// (medians of 300 alternating runs each, on 2 cores; Go 1.26):
//
//   - pflag 1.1 with the parser of goccy/go-yaml 1.19: 1.20.
//   - pflag with go.yaml.in/yaml/v3 3.0.6: 1.26. Its init compiles a regular
//     expression and fills tables, whether or not there is a file.
//   - peterbourgon/ff 3.4: 1.30, and 4.0.0-alpha.4: 1.36. It would save the loop over
//     the environment, some ten lines. Version 3 has no short flags, version 4 has been
//     an alpha since 2023, and neither reports the line of a key in the file.
//   - knadh/koanf 2.4: 1.43. It merges maps of values and knows neither types nor
//     defaults, so each setting would have to be defined twice.
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
			panic(err) // no flag has that name
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

// Options says where settings come from. The zero value reads only the environment.
type Options struct {
	File         string // path of the configuration file; empty: none
	FileOptional bool   // a file that is missing, or cannot even be looked for, is not an error

	// Keys returns the names that the file may hold, for programs with several commands that share a
	// file. Nil: the names of the flags being loaded.
	Keys func() []string

	// IgnoreEmpty ignores variables that are set but empty. Otherwise an empty variable sets the value
	// "", as --admin-listen "" does.
	IgnoreEmpty bool

	Removed Removed
}

// ConfigFile returns the path of the configuration file from the flag --config, or else from its
// variable.
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

// Origins says where the value of each given setting came from, in the form used by error messages:
// --max-line, TROUPE_MAX_LINE or troupe.yaml:3: max-line.
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

// Explain joins everything that validation refused into one line. Each error begins with the flag
// to change; Explain adds the origin of a refused value that did not come from the flag.
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

// Removed maps each setting that no longer exists to a sentence about its replacement. Using one is
// an error: ignoring it would silently change what the operator asked for.
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
