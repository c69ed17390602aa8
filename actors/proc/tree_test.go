//go:build linux

package proc

import "testing"

func TestExitCodes(t *testing.T) {
	r := open(t)
	for range 3 {
		c := run(t, r, "echo out; echo err >&2; exit 7")
		e := waitEvent[Exited](c)
		d := c.waitDead()
		if e.Code != 7 || e.Signal != 0 || !e.Alone || d.Lost {
			t.Errorf("%+v %+v", e, d)
		}
		c.read.Wait()
		if c.out.String() != "out\n" || c.errOut.String() != "err\n" {
			t.Errorf("output %q %q", c.out.String(), c.errOut.String())
		}
	}
}
