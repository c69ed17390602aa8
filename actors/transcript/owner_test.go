package transcript

import (
	"fmt"
	"math/rand"
	"path/filepath"
	"strings"
	"testing"
)

// sealedOf makes a sealed transcript of an owner with one record of size bytes of file.
func sealedOf(t testing.TB, s *Store, owner, name string, size int) *Transcript {
	t.Helper()
	tr := s.Create(name, Options{Owner: owner, Limit: 1 << 30})
	write(t, tr.Writer(Stdout, WriterConfig{}), fill(size-longHeader))
	tr.Seal()
	return tr
}

// lost reports whether a transcript was evicted.
func lost(tr *Transcript) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.start > 0
}

func wantLost(t *testing.T, want string, all ...*Transcript) {
	t.Helper()
	var got []string
	for _, tr := range all {
		if lost(tr) {
			got = append(got, tr.name)
		}
	}
	if strings.Join(got, " ") != want {
		t.Errorf("evicted %q, want %q", got, want)
	}
}

// An owner that has used its budget loses its own oldest transcripts, then drops. Others keep what
// they have, although theirs is older.
func TestOwnerOverItsBudgetLosesItsOwn(t *testing.T) {
	s := openOwnerStore(t, 10_000, 1000)
	other := sealedOf(t, s, "b", "b1", 900)
	one, two := sealedOf(t, s, "a", "a1", 400), sealedOf(t, s, "a", "a2", 600)
	wantLost(t, "", other, one, two) // Used to the last byte.
	tr := s.Create("a3", Options{Owner: "a", Limit: 1 << 20})
	calls := dropMarks(tr)
	w := tr.Writer(Stdout, WriterConfig{})
	write(t, w, fill(400-longHeader))
	wantLost(t, "a1", other, one, two)
	write(t, w, fill(600-longHeader))
	wantLost(t, "a1 a2", other, one, two)
	if *calls != 0 {
		t.Fatal("dropped within the budget")
	}
	write(t, w, "x")
	if c := tr.Counts(); *calls != 1 || c.DroppedBytes != 1 {
		t.Fatalf("OnDrop called %d times, %+v", *calls, c)
	}
	runs, _ := readFrom(t, tr, tr.End(), 10)
	sameRuns(t, runs, []run{{mark: dropped{DropOwner, 1000 - 2*longHeader}}})
	wantLost(t, "a1 a2", other, one, two)
	if st := s.Stats(); st.OwnerBudget != 1000 || st.Owners != 2 || st.LargestOwner != 1000 || st.Bytes != 1900 {
		t.Errorf("%+v", st)
	}
	addsUp(t, s)
}

// Nothing is evicted for bytes that an owner may not have anyway.
func TestOwnerBudgetEvictsNothingInVain(t *testing.T) {
	s := openOwnerStore(t, 1500, 1000)
	a, b := sealedOf(t, s, "a", "a1", 500), sealedOf(t, s, "b", "b1", 900)
	for _, size := range []int{1001, 800} { // More than its budget; more than the store has without b's.
		tr := s.Create("a2", Options{Owner: "a", Limit: 1 << 20})
		if size == 800 {
			live := s.Create("a3", Options{Owner: "a", Limit: 1 << 20})
			write(t, live.Writer(Stdout, WriterConfig{}), fill(60))
		}
		write(t, tr.Writer(Stdout, WriterConfig{}), fill(size-longHeader))
		if c := tr.Counts(); (c.DroppedBytes > 0) != (size == 1001) {
			t.Errorf("%d bytes: %+v", size, c)
		}
		if size == 1001 {
			wantLost(t, "", a, b)
		}
	}
	wantLost(t, "a1 b1", a, b)
	addsUp(t, s)
}

// When the store's budget is short, the owner that uses most gives way, oldest first: whoever fills
// the disk does so at his own cost.
func TestEvictionTakesFromTheOwnerThatUsesMost(t *testing.T) {
	s := openOwnerStore(t, 1300, 0)
	small := sealedOf(t, s, "small", "s1", 400)
	big := []*Transcript{
		sealedOf(t, s, "big", "b1", 300), sealedOf(t, s, "big", "b2", 300), sealedOf(t, s, "big", "b3", 300),
	}
	sealedOf(t, s, "new", "n1", 200)
	wantLost(t, "b1", append(big, small)...)
	sealedOf(t, s, "big", "b4", 300)
	wantLost(t, "b1 b2", append(big, small)...)
	addsUp(t, s)
}

// An owner whose live transcripts fill the store cannot take from one that uses less: it drops.
func TestOwnerThatUsesLessIsSpared(t *testing.T) {
	s := openOwnerStore(t, 1000, 0)
	spared := []*Transcript{sealedOf(t, s, "b", "b1", 200), sealedOf(t, s, "c", "c1", 300)}
	tr := s.Create("a1", Options{Owner: "a", Limit: 1 << 20})
	calls := dropMarks(tr)
	w := tr.Writer(Stdout, WriterConfig{})
	write(t, w, fill(500-longHeader))
	write(t, w, "x")
	if *calls != 1 || tr.End() != 500-longHeader {
		t.Errorf("OnDrop called %d times, %d bytes kept", *calls, tr.End())
	}
	wantLost(t, "", spared...)
	addsUp(t, s)
}

// An Unread transcript that was sealed before its reader came for the rest goes after the others of
// its owner.
func TestUnreadIsEvictedLast(t *testing.T) {
	s := openOwnerStore(t, 1000, 0)
	unread := s.Create("unread", Options{Retain: Unread})
	write(t, unread.Writer(Stdout, WriterConfig{}), fill(300-longHeader))
	unread.Seal()
	one, two := sealedOf(t, s, "", "one", 300), sealedOf(t, s, "", "two", 300)
	sealedOf(t, s, "", "three", 300)
	wantLost(t, "one", unread, one, two)
	sealedOf(t, s, "", "four", 700)
	wantLost(t, "one two", unread, one, two)
	sealedOf(t, s, "", "five", 1000)
	wantLost(t, "unread one two", unread, one, two)
	addsUp(t, s)
}

// The store forgets an owner with its last transcript: the accounts do not grow with the subjects
// that ever came.
func TestOwnersAreForgotten(t *testing.T) {
	s := openOwnerStore(t, 1<<20, 0)
	for i := range 1000 {
		tr := sealedOf(t, s, fmt.Sprint("subject ", i), "t", 100)
		if err := tr.Remove(); err != nil {
			t.Fatal(err)
		}
		tr.Seal()
		_ = tr.Remove()
	}
	if st := s.Stats(); st.Owners != 0 || st.LargestOwner != 0 || len(s.owners) != 0 {
		t.Errorf("%+v", st)
	}
}

// Whatever owners do, no budget is exceeded, the sums are right, and nobody loses anything to an
// owner that uses more.
func TestOwnersWriteAtRandom(t *testing.T) {
	const budget, ownerBudget = 20_000, 8000
	rng := rand.New(rand.NewSource(3))
	s := openOwnerStore(t, budget, ownerBudget)
	evicted := 0
	var live, all []*Transcript
	for range 5000 {
		name := string(rune('a' + rng.Intn(4)))
		switch rng.Intn(4) {
		case 0:
			tr := s.Create("t", Options{Owner: name, Retain: Retain(rng.Intn(2)), Limit: 1 << 20})
			live, all = append(live, tr), append(all, tr)
		case 1:
			if len(live) > 8 {
				live[0].Seal()
				live = live[1:]
			}
		case 2:
			if i := rng.Intn(len(all) + 1); i < len(all) && rng.Intn(8) == 0 {
				_ = all[i].Remove()
			}
		default:
			if len(live) == 0 {
				continue
			}
			tr := live[rng.Intn(len(live))]
			evicted += writeFairly(t, s, tr, all, 1+rng.Intn(1500))
		}
		addsUp(t, s)
		if st := s.Stats(); st.Bytes > budget || st.LargestOwner > ownerBudget {
			t.Fatalf("%+v", st)
		}
	}
	if evicted < 100 {
		t.Errorf("only %d evictions", evicted)
	}
}

// writeFairly writes n bytes to tr and returns how many others of all were evicted for them.
func writeFairly(t *testing.T, s *Store, tr *Transcript, all []*Transcript, n int) (evicted int) {
	t.Helper()
	before := map[*owner]int64{}
	for _, o := range s.owners {
		before[o] = o.used
	}
	had := map[*Transcript]bool{}
	for _, v := range all {
		had[v] = lost(v)
	}
	_, _ = tr.Writer(Stdout, WriterConfig{}).Write([]byte(fill(n)))
	for _, v := range all {
		if had[v] || !lost(v) {
			continue
		}
		evicted++
		if v.owner != tr.owner && before[v.owner] <= before[tr.owner] {
			t.Errorf("an owner of %d bytes lost to one of %d", before[v.owner], before[tr.owner])
		}
	}
	return evicted
}

func openOwnerStore(t testing.TB, budget, ownerBudget int64) *Store {
	t.Helper()
	s, err := Open(Config{Dir: filepath.Join(t.TempDir(), "transcripts"), Budget: budget, OwnerBudget: ownerBudget})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
