package settings

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// The functions below return values for pflag's FlagSet.Var. Flags, variables and the configuration
// file all go through the same Set, so they accept the same spellings. Its errors say what is
// valid.

// Duration accepts Go's syntax (1h30m, 250ms) and plain seconds (300, 0.5).
func Duration(p *time.Duration) pflag.Value { return duration{p} }

type duration struct{ p *time.Duration }

func (v duration) Type() string   { return "duration" }
func (v duration) String() string { return FormatDuration(*v.p) }

func (v duration) Set(s string) error {
	if d, err := time.ParseDuration(s); err == nil {
		*v.p = d
		return nil
	}
	seconds, err := strconv.ParseFloat(s, 64)
	// The comparison also refuses NaN.
	if err != nil || !(math.Abs(seconds) < float64(math.MaxInt64)/float64(time.Second)) {
		return fmt.Errorf("%q is not a duration: write 90s, 5m, 1h30m, or seconds as a number", s)
	}
	*v.p = time.Duration(seconds * float64(time.Second))
	return nil
}

// FormatDuration writes a duration as the documentation does: 300s, 1h, 0.
func FormatDuration(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d%time.Second == 0:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	default:
		return d.String()
	}
}

// Bytes accepts a number of bytes, with or without the suffix of a Kubernetes quantity or a common
// unit: 10485760, 10Mi, 10MiB (powers of 1024), 10M, 10MB (powers of 1000).
func Bytes[T int | int64](p *T) pflag.Value { return size[T]{p} }

type size[T int | int64] struct{ p *T }

func (v size[T]) Type() string   { return "bytes" }
func (v size[T]) String() string { return strconv.FormatInt(int64(*v.p), 10) }

func (v size[T]) Set(s string) error {
	digits := strings.TrimRight(s, "KMGTkmgtiB ")
	n, err := strconv.ParseInt(digits, 10, 64)
	factor, ok := byteUnits[strings.TrimSuffix(strings.TrimSpace(s[len(digits):]), "B")]
	if err != nil || !ok {
		return fmt.Errorf("%q is not a size: write bytes as a number, or with a suffix such as 512KiB, 10MiB, 2GB", s)
	}
	most := int64(math.MaxInt64)
	if _, small := any(*v.p).(int); small {
		most = math.MaxInt32 // the same on every platform
	}
	if n > most/factor || n < -most/factor {
		return fmt.Errorf("%q is too large: the maximum is %d bytes", s, most)
	}
	*v.p = T(n * factor)
	return nil
}

var byteUnits = map[string]int64{
	"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
	"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}

// Int accepts a whole number.
func Int(p *int) pflag.Value { return number{p} }

type number struct{ p *int }

func (v number) Type() string   { return "number" }
func (v number) String() string { return strconv.Itoa(*v.p) }

func (v number) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", s)
	}
	*v.p = n
	return nil
}

// Positive restricts a value of Duration, Bytes or Int to numbers greater than zero. Its default is
// zero, which cannot be given: whoever writes 0 may mean no limit, an immediate one, or the default.
// otherwise says in the error how to get the default.
func Positive(v pflag.Value, otherwise string) pflag.Value { return positive{v, otherwise} }

type positive struct {
	pflag.Value
	otherwise string
}

func (v positive) String() string {
	if v.Value == nil || v.Value.String() == "0" { // pflag asks the zero value of the type, too
		return ""
	}
	return v.Value.String()
}

func (v positive) Set(s string) error {
	if err := v.Value.Set(s); err != nil {
		return err
	}
	if n := v.Value.String(); n == "0" || strings.HasPrefix(n, "-") {
		return fmt.Errorf("%q is not greater than 0; %s", s, v.otherwise)
	}
	return nil
}

// NotNegative restricts a value of Duration, Bytes or Int to zero and more.
func NotNegative(v pflag.Value) pflag.Value { return notNegative{v} }

type notNegative struct{ pflag.Value }

func (v notNegative) Set(s string) error {
	if err := v.Value.Set(s); err != nil {
		return err
	}
	if strings.HasPrefix(v.Value.String(), "-") {
		return fmt.Errorf("%q is less than 0", s)
	}
	return nil
}

// Text accepts any string; kind names it in the help text.
func Text(p *string, kind string) pflag.Value { return text{p, kind} }

type text struct {
	p    *string
	kind string
}

func (v text) Type() string       { return v.kind }
func (v text) String() string     { return *v.p }
func (v text) Set(s string) error { *v.p = s; return nil }

// Choice accepts one of the given values, or an empty value if that is the default.
func Choice[T ~string](p *T, choices ...T) pflag.Value {
	c := choice{get: func() string { return string(*p) }, set: func(s string) { *p = T(s) }, optional: *p == ""}
	for _, s := range choices {
		c.choices = append(c.choices, string(s))
	}
	return c
}

type choice struct {
	get     func() string
	set     func(string)
	choices []string

	optional bool
}

func (v choice) Type() string   { return strings.Join(v.choices, "|") }
func (v choice) String() string { return v.get() }

func (v choice) Set(s string) error {
	if !slices.Contains(v.choices, s) && (s != "" || !v.optional) {
		return fmt.Errorf("%q is not one of %s", s, strings.Join(v.choices, ", "))
	}
	v.set(s)
	return nil
}

// Choices returns the choices of a value made by Choice, or nil for any other value.
func Choices(v pflag.Value) []string {
	c, _ := v.(choice)
	return c.choices
}

// List collects strings. A flag can be repeated, a variable separates items with sep, and the
// configuration file has a YAML list. The items from one source replace the default and the items
// from sources of lower precedence. sep is a newline where an item may contain commas.
func List(p *[]string, kind, sep string) pflag.Value { return &list{p: p, kind: kind, sep: sep} }

type list struct {
	p    *[]string
	kind string
	sep  string
	set  bool // by a flag, so that the next flag adds to it
}

func (v *list) Type() string   { return v.kind }
func (v *list) String() string { return strings.Join(*v.p, v.sep) }

func (v *list) Set(s string) error {
	if !v.set {
		*v.p, v.set = nil, true
	}
	for item := range strings.SplitSeq(s, v.sep) {
		if item = strings.TrimSpace(item); item != "" {
			*v.p = append(*v.p, item)
		}
	}
	return nil
}

// Append, Replace and GetSlice make a list a pflag.SliceValue.
func (v *list) Append(item string) error { return v.Set(item) }
func (v *list) GetSlice() []string       { return *v.p }

func (v *list) Replace(items []string) error {
	if slices.Contains(items, "") {
		return errors.New("an item is empty")
	}
	*v.p = slices.Clone(items)
	return nil
}

// Bool defines a flag that needs no value. It differs from pflag's own only in its error message.
func Bool(fs *pflag.FlagSet, p *bool, name, short, usage string) {
	fs.VarPF(boolean{p}, name, short, usage).NoOptDefVal = "true"
}

type boolean struct{ p *bool }

func (v boolean) Type() string   { return "bool" }
func (v boolean) String() string { return strconv.FormatBool(*v.p) }

func (v boolean) Set(s string) error {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return fmt.Errorf("%q is neither true nor false", s)
	}
	*v.p = b
	return nil
}
