package relay

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutations break the protocol, one at a time: in a file, this text becomes that.
var mutations = []struct{ name, file, old, new string }{
	{"duplicates are taken again", "link.go", "case f.Seq <= l.received:", "case f.Seq < l.received:"},
	{
		"duplicates are not acknowledged", "link.go", "l.counters.Duplicates.Add(1)\n\t\tl.owe(now, 0)",
		"l.counters.Duplicates.Add(1)",
	},
	{"gaps are not seen", "link.go", "case f.Seq > l.received+1:", "case false:"},
	{
		"nothing is acknowledged by itself", "link.go", "func (l *link) postAck() {",
		"func (l *link) postAck() { l.ackDue = time.Time{}; return;",
	},
	{
		"nothing is sent again", "resend.go", "for seq := l.gone + 1; seq <= l.out; seq++ {",
		"for seq := l.gone + 1; seq < l.gone; seq++ {",
	},
	{
		"the first of what is missing is not sent again", "resend.go", "for seq := l.gone + 1; seq <= l.out; seq++ {",
		"for seq := l.gone + 2; seq <= l.out; seq++ {",
	},
	{
		"one frame too many is forgotten", "link.go", "\tl.gone = ack\n",
		"\tl.gone = min(ack+1, l.out)\n\tn = int(min(uint64(n)+1, uint64(len(l.unacked))))\n",
	},
	{"idle links are not asked about", "resend.go", "return due.Add(keepAlive)", "return due.Add(1000 * time.Hour)"},
	{"nothing is asked", "resend.go", "return l.armed.Add(l.retry)", "return l.armed.Add(1000 * time.Hour)"},
	{"requests overtake the opening", "link.go", "(!l.first || l.out == 0)", "true"},
	{"the end does not stop what comes", "link.go", "l.frozen = true", "l.frozen = false"},
	{
		"more credit than the window", "proxy.go", "limit := g.window.done.Load() + window;",
		"limit := g.window.done.Load() + 2*window;",
	},
	{"credit is off by one for each frame", "pump.go", "h.sent += uint64(used)", "h.sent += uint64(used) - 1"},
	{"credit is not heeded", "pump.go", "allowed := int64(h.limit - h.sent)", "allowed := int64(h.limit-h.sent) + 1<<20"},
	{"what is closed unread is not given back", "feed.go", "f.window.release(held)", "_ = held"},
	{"a replaced feed goes on", "origin.go", "\t\t\th.drop(i)\n\t\t\tbreak", "\t\t\t_ = i\n\t\t\tbreak"},
	{
		"feeds that were not heard of count as read", "origin.go", "for _, f := range h.unseen {",
		"for _, f := range h.unseen[:0] {",
	},
	{
		"feeds that the client did not take count as read", "proxy.go", "for _, m := range g.missed {",
		"for _, m := range g.missed[:0] {",
	},
	{"disconnect overtakes output", "pump.go", "full && now.Before(h.leaveBy)", "false"},
	{"the client is not told what is lost", "proxy.go", "if len(g.outstanding) == 0 {", "if false {"},
	{
		"a piece is read again", "feed.go", "if p.Data = p.Data[c:]; len(p.Data) == 0 {",
		"if p.Data = p.Data[c:]; len(p.Data) <= 1 {",
	},
	{"memory is used again", "pump.go", "own := append([]byte(nil), data...)", "own := data"},
	{
		"memory of what is not acknowledged is used again", "pump.go", "h.link.enqueueFrom(now, buf, &Frame_Output{out})",
		"h.link.enqueueFrom(now, buf, &Frame_Output{out}); packing.Put(buf)",
	},
	{"memory that is unread is used again", "feed.go", "			a.held.Ref()\n", "			_ = a.held\n"},
	{
		"ended links open again", "tombstone.go", "_, ok := s.lastReset[link]\n\treturn ok",
		"_, ok := s.lastReset[link]\n\treturn ok && false",
	},
	{"restarts are not seen", "table.go", "if restarted {", "if restarted && false {"},
	{
		"late envelopes of an earlier incarnation count", "table.go", "if !goesOn || p.state != PeerIsDead {",
		"if false && !goesOn {",
	},
	{
		"who was wrongly declared dead stays so", "table.go", "if !goesOn || p.state != PeerIsDead {",
		"if true || !goesOn {",
	},
	{"the dead keep their links", "table.go", "t.lose(now, p, EndedPeerDead)", ""},
	{
		"the sleeper takes the others for dead", "table.go", "\t\t\tp.asked = now\n\t\t}\n\t}\n\tt.lastTick",
		"\t\t\t_ = p\n\t\t}\n\t}\n\tt.lastTick",
	},
	{"silent peers are not asked", "table.go", "ask := p.asks() && !now.Before(p.askDue())", "ask := false"},
	{"unknown links are not refused", "table.go", "if f.Seq == 0 && !probe {", "if f.Seq == 0 && !probe || true {"},
	{"a Reset answers a Reset", "table.go", "if f.Seq == 0 && !probe {", "if f.Seq == 0 && !probe && false {"},
}

// TestMutationsApply: a mutation whose text the code no longer has would be missed only by who runs
// TestMutations.
func TestMutationsApply(t *testing.T) {
	for _, m := range mutations {
		if _, err := mutate(m.file, m.old, m.new); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

// mutate returns a file with one text, which must be there once, replaced.
func mutate(file, old, replacement string) (string, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(source), old); n != 1 {
		return "", fmt.Errorf("%s has %q %d times", file, old, n)
	}
	return strings.Replace(string(source), old, replacement, 1), nil
}

// TestMutations shows that the tests can fail: each mutation is found, nearly all by the simulation
// within TROUPE_MUTATIONS seeds. It builds the package once for each of them, so it runs only when
// that variable is set, e.g. to 2000.
func TestMutations(t *testing.T) {
	seeds := os.Getenv("TROUPE_MUTATIONS")
	if seeds == "" {
		t.Skip("set TROUPE_MUTATIONS to a number of seeds: it builds the package for each mutation")
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			broken, err := mutate(m.file, m.old, m.new)
			if err != nil {
				t.Fatal(err)
			}
			tmp := t.TempDir()
			mutant := filepath.Join(tmp, m.file)
			if err := os.WriteFile(mutant, []byte(broken), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay, _ := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(dir, m.file): mutant}})
			overlayFile := filepath.Join(tmp, "overlay.json")
			if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-overlay", overlayFile, "-timeout", "5m", "-skip",
				"Mutations|Generated|Stalled", ".")
			cmd.Env = append(os.Environ(), "TROUPE_SEEDS="+seeds)
			out, err := cmd.CombinedOutput()
			if strings.Contains(string(out), "[build failed]") {
				t.Fatalf("the mutant does not build:\n%s", out)
			}
			if err == nil {
				t.Fatalf("%s seeds do not find it", seeds)
			}
			t.Logf("found: %s", firstFailure(string(out)))
		})
	}
}

// firstFailure returns the line that says what was wrong.
func firstFailure(out string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, "seed ") || strings.Contains(line, "panic: ") || strings.Contains(line, "_test.go:") {
			return strings.TrimSpace(line)
		}
	}
	return out
}
