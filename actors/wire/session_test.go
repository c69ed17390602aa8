package wire

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestSessionOptions(t *testing.T) {
	long := strings.Repeat("x", 63)
	many := map[string]string{}
	for i := range MaxLabels + 1 {
		many[fmt.Sprint("k", i)] = ""
	}
	labels := func(key, value string) SessionOptions { return SessionOptions{Labels: map[string]string{key: value}} }
	for _, c := range []struct {
		options SessionOptions
		wrong   string // part of the error; empty: none
	}{
		{SessionOptions{}, ""},
		{SessionOptions{Name: "a"}, ""},
		{SessionOptions{Name: long, ResumeWindow: time.Hour}, ""},
		{SessionOptions{Name: long + "x"}, "1 to 63"},
		{SessionOptions{Name: "-a"}, "at both ends"},
		{SessionOptions{Name: "a-"}, "at both ends"},
		{SessionOptions{Name: "Build"}, `name "Build"`},
		{SessionOptions{Name: "a.b"}, `name "a.b"`},
		{SessionOptions{Name: "a\nb"}, `name "a\nb"`},
		{labels("app.example.com/Team_1", "a/b-C.9_z"), ""},
		{labels("k", ""), ""},
		{labels(long, long), ""},
		{labels("", "v"), `label key ""`},
		{labels(long+"x", "v"), "1 to 63"},
		{labels("k", long+"x"), "up to 63"},
		{labels("k", "a b"), `value "a b" of label k`},
		{labels("k", "-"), "at both ends"},
		{labels("k=", "v"), `label key "k="`},
		{labels("ключ", "v"), "label key"},
		{SessionOptions{Labels: many}, "17 labels: a session has at most 16"},
		{SessionOptions{ResumeWindow: -time.Second}, "must not be negative"},
	} {
		err := c.options.Check()
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%+v: %v, want %q", c.options, err, c.wrong)
		}
	}
}
