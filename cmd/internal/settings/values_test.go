package settings

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestSpellings(t *testing.T) {
	duration, size, small := Duration(new(time.Duration)), Bytes(new(int64)), Bytes(new(int))
	for _, x := range []struct {
		v        pflag.Value
		in, want string // want empty: refused
	}{
		{duration, "300", "300s"},
		{duration, "0.5", "500ms"},
		{duration, "5m", "300s"},
		{duration, "1h30m", "5400s"},
		{duration, "2h", "2h"},
		{duration, "0", "0"},
		{duration, "", ""},
		{duration, "NaN", ""},
		{duration, "inf", ""},
		{duration, "1e30", ""},
		{duration, "5 minutes", ""},
		{size, "10485760", "10485760"},
		{size, "10Mi", "10485760"},
		{size, "10MiB", "10485760"},
		{size, "10 MiB", "10485760"},
		{size, "10MB", "10000000"},
		{size, "10M", "10000000"},
		{size, "3B", "3"},
		{size, "1k", "1000"},
		{size, "8388607Ti", "9223370937343148032"},
		{size, "8388608Ti", ""},
		{size, "", ""},
		{size, "MiB", ""},
		{size, "1.5GiB", ""},
		{size, "10KK", ""},
		{size, "10Bi", ""},
		{size, "0x10", ""},
		{small, "8KiB", "8192"},
		{small, "3GiB", ""},
	} {
		err := x.v.Set(x.in)
		if x.want == "" {
			if err == nil {
				t.Errorf("%s %q was accepted as %s", x.v.Type(), x.in, x.v)
			}
		} else if err != nil || x.v.String() != x.want {
			t.Errorf("%s %q: got %s, %v, want %s", x.v.Type(), x.in, x.v, err, x.want)
		}
	}
}

// TestPositiveRefusesZero: 0 is neither the default nor none.
func TestPositiveRefusesZero(t *testing.T) {
	for _, in := range []string{"0", "0s", "-1", "-5m", "0.0000000001"} {
		v := Positive(Duration(new(time.Duration)), "leave it out")
		if err := v.Set(in); err == nil || !strings.Contains(err.Error(), "is not greater than 0; leave it out") {
			t.Errorf("duration %q: %v", in, err)
		}
	}
	v := Positive(Bytes(new(int64)), "leave it out")
	for _, in := range []string{"0", "0MiB", "-1", "-2KiB"} {
		if err := v.Set(in); err == nil || !strings.Contains(err.Error(), "is not greater than 0; leave it out") {
			t.Errorf("size %q: %v", in, err)
		}
	}
	if err := v.Set("1KiB"); err != nil || v.String() != "1024" {
		t.Errorf("%v, %v", v, err)
	}
	wait := NotNegative(Duration(new(time.Duration)))
	if err := wait.Set("-1ms"); err == nil || wait.Set("0") != nil || wait.Set("1ms") != nil {
		t.Errorf("wait: %v", err)
	}
}
