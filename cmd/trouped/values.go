package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The types below are pflag.Values: what a flag, an environment variable and
// the configuration file say goes through the same Set, so that all three
// accept the same spellings.

// durationValue accepts Go's syntax (1h30m, 250ms) and plain seconds (300, 0.5).
type durationValue struct{ p *time.Duration }

func (v durationValue) Type() string { return "duration" }

func (v durationValue) Set(s string) error {
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

// String prints what the documentation prints: 300s, 1h, 0.
func (v durationValue) String() string {
	switch d := *v.p; {
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

// bytesValue accepts plain bytes and the suffixes of Kubernetes quantities and
// of people: 10485760, 10Mi, 10MiB (powers of 1024), 10M, 10MB (powers of 1000).
type bytesValue struct{ p *int64 }

func (v bytesValue) Type() string   { return "bytes" }
func (v bytesValue) String() string { return strconv.FormatInt(*v.p, 10) }

func (v bytesValue) Set(s string) error {
	digits := strings.TrimRight(s, "KMGTkmgtiB ")
	n, err := strconv.ParseInt(digits, 10, 64)
	factor, ok := byteUnits[strings.TrimSuffix(strings.TrimSpace(s[len(digits):]), "B")]
	if err != nil || !ok {
		return fmt.Errorf("%q is not a size: write bytes as a number, or with a suffix such as 512KiB, 10MiB, 2GB", s)
	}
	if n > math.MaxInt64/factor || n < math.MinInt64/factor {
		return fmt.Errorf("%q is more bytes than a 64-bit number holds", s)
	}
	*v.p = n * factor
	return nil
}

var byteUnits = map[string]int64{
	"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
	"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}

// smallBytesValue is a bytesValue for a field of type int.
type smallBytesValue struct{ p *int }

func (v smallBytesValue) Type() string   { return "bytes" }
func (v smallBytesValue) String() string { return strconv.Itoa(*v.p) }

func (v smallBytesValue) Set(s string) error {
	var n int64
	if err := (bytesValue{&n}).Set(s); err != nil {
		return err
	}
	if n > math.MaxInt32 || n < math.MinInt32 {
		return fmt.Errorf("%q is too large", s)
	}
	*v.p = int(n)
	return nil
}

type intValue struct{ p *int }

func (v intValue) Type() string   { return "number" }
func (v intValue) String() string { return strconv.Itoa(*v.p) }

func (v intValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", s)
	}
	*v.p = n
	return nil
}

// ratioValue is a share, from 0 to 1.
type ratioValue struct{ p *float64 }

func (v ratioValue) Type() string   { return "ratio" }
func (v ratioValue) String() string { return strconv.FormatFloat(*v.p, 'g', -1, 64) }

func (v ratioValue) Set(s string) error {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= 1) { // the comparison also refuses NaN
		return fmt.Errorf("%q is not a number from 0 to 1", s)
	}
	*v.p = f
	return nil
}

type boolValue struct{ p *bool }

func (v boolValue) Type() string   { return "bool" }
func (v boolValue) String() string { return strconv.FormatBool(*v.p) }

func (v boolValue) Set(s string) error {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return fmt.Errorf("%q is neither true nor false", s)
	}
	*v.p = b
	return nil
}

// textValue is any string; kind names it in the help text.
type textValue struct {
	p    *string
	kind string
}

func (v textValue) Type() string       { return v.kind }
func (v textValue) String() string     { return *v.p }
func (v textValue) Set(s string) error { *v.p = s; return nil }

// choiceValue is one of a closed set.
type choiceValue struct {
	p       *string
	choices []string
}

func (v choiceValue) Type() string   { return strings.Join(v.choices, "|") }
func (v choiceValue) String() string { return *v.p }

func (v choiceValue) Set(s string) error {
	if !slices.Contains(v.choices, s) {
		return fmt.Errorf("%q is not one of %s", s, strings.Join(v.choices, ", "))
	}
	*v.p = s
	return nil
}

// listValue collects strings: a flag may be repeated, an environment variable
// separates items with sep, the configuration file has a list. What comes from
// one source replaces the default; it is not added to it.
type listValue struct {
	p    *[]string
	kind string
	sep  string // a newline where an item may hold commas
}

func (v listValue) Type() string   { return v.kind }
func (v listValue) String() string { return strings.Join(*v.p, v.sep) }

// Set replaces the list; appendingValue is what flags use.
func (v listValue) Set(s string) error {
	*v.p = nil
	for item := range strings.SplitSeq(s, v.sep) {
		if item = strings.TrimSpace(item); item != "" {
			*v.p = append(*v.p, item)
		}
	}
	return nil
}

// Replace sets the items as they are.
func (v listValue) Replace(items []string) error {
	if slices.Contains(items, "") {
		return errors.New("an item is empty")
	}
	*v.p = slices.Clone(items)
	return nil
}

// appendingValue is a listValue on the command line: the first flag replaces the
// default, each further one adds to it.
type appendingValue struct {
	listValue
	changed bool
}

func (v *appendingValue) Set(s string) error {
	before := *v.p
	if err := v.listValue.Set(s); err != nil {
		return err
	}
	if v.changed {
		*v.p = append(slices.Clone(before), *v.p...)
	}
	v.changed = true
	return nil
}
