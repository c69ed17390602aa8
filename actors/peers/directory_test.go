package peers

import (
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	d, err := Parse([]string{"a=10.0.0.1:1", "b=[::1]:2"})
	if want := (Static{{"a", "10.0.0.1:1"}, {"b", "[::1]:2"}}); err != nil || !slices.Equal(d, want) {
		t.Errorf("%v, %v", d, err)
	}
	if p, k := d.Lookup("b"); k != Known || p.Addr != "[::1]:2" {
		t.Errorf("b is %v, %v", p, k)
	}
	if _, k := d.Lookup("c"); k != Unknown {
		t.Errorf("c is %v", k)
	}
	for _, bad := range [][]string{
		{"a"},
		{"=1.2.3.4:1"},
		{"a=1.2.3.4"},
		{"a=:1"},
		{"a=1.2.3.4:"},
		{"a=1.2.3.4:1", "a=1.2.3.4:2"},
		{"a=1.2.3.4:1", "b=1.2.3.4:1"},
	} {
		if d, err := Parse(bad); err == nil {
			t.Errorf("%q was read as %v", bad, d)
		}
	}
}
