package transcript

import (
	"io"
	"testing"
)

type dropped struct {
	reason DropReason
	offset int64
}

// dropMarks makes tr answer the begin of dropping with a mark, and counts the calls.
func dropMarks(tr *Transcript) *int {
	calls := new(int)
	tr.OnDrop(func(reason DropReason, offset int64) any {
		*calls++
		return dropped{reason, offset}
	})
	return calls
}

func TestWhatFitsExactlyIsKept(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Limit: 10})
	calls := dropMarks(tr)
	out, err := tr.Writer(Stdout, WriterConfig{Lines: true}), tr.Writer(Stderr, WriterConfig{Lines: true})
	write(t, out, "1234\n")
	write(t, err, "1234\n")
	if *calls != 0 || tr.End() != 10 {
		t.Fatalf("calls %d, end %d", *calls, tr.End())
	}
	write(t, err, "\n")
	write(t, out, "a\nb\nc")
	out.Close()
	err.Close()
	tr.Seal()
	got, _ := readFrom(t, tr, 0, 100)
	sameRuns(t, got, []run{
		{data: "1234\n"}, {stream: Stderr, data: "1234\n"}, {mark: dropped{DropLimit, 10}},
	})
	if c := tr.Counts(); *calls != 1 || c.DroppedLines != 4 || c.DroppedBytes != 6 {
		t.Fatalf("calls %d, %+v", *calls, c)
	}
	balance(t, tr, 16)
}

// Once a line is dropped, everything after it is dropped too, on both streams: a client would
// misread output with holes.
func TestNothingFollowsADroppedLine(t *testing.T) {
	for _, tc := range []struct {
		name    string
		limit   int64
		write   func(t *testing.T, out, err *Writer)
		want    []run
		lines   int64
		dropped int64
	}{
		{"whole lines of one write that fit", 10, func(t *testing.T, out, err *Writer) {
			write(t, out, "123\n123\n123\n\n")
			write(t, err, "\n")
		}, []run{{data: "123\n123\n"}, {mark: dropped{DropLimit, 8}}}, 3, 6},
		{"one byte too long", 9, func(t *testing.T, out, err *Writer) {
			write(t, err, "12345678\n")
			write(t, out, "\n")
		}, []run{{stream: Stderr, data: "12345678\n"}, {mark: dropped{DropLimit, 9}}}, 1, 1},
		{"the other stream's partial line", 9, func(t *testing.T, out, err *Writer) {
			write(t, out, "part")
			write(t, err, "1234567890")
			write(t, err, "\n")
			write(t, out, "ly\nmore")
		}, []run{{mark: dropped{DropLimit, 0}}}, 3, 22},
		{"unterminated last line", 4, func(t *testing.T, out, err *Writer) {
			write(t, out, "12345")
		}, []run{{mark: dropped{DropLimit, 0}}}, 1, 5},
		{"rest of a flushed line", 8, func(t *testing.T, out, err *Writer) {
			write(t, out, "prompt> ")
			out.Flush()
			write(t, out, "\n")
			write(t, err, "x")
		}, []run{{data: "prompt> "}, {mark: dropped{DropLimit, 8}}}, 2, 2},
		{"flush that does not fit", 3, func(t *testing.T, out, err *Writer) {
			write(t, out, "ab\nprompt> ")
			out.Flush()
			write(t, out, "x\n")
		}, []run{{data: "ab\n"}, {mark: dropped{DropLimit, 3}}}, 1, 10},
		{"truncated line", 8203, func(t *testing.T, out, err *Writer) {
			write(t, out, fill(9000)+"\nx\n")
		}, []run{{mark: dropped{DropLimit, 0}}}, 2, 9003},
		{"truncated line that fits exactly", 8204, func(t *testing.T, out, err *Writer) {
			write(t, out, fill(9000))
			write(t, err, "\n")
			write(t, out, "rest\nx\n") // Of the truncated line: not dropped.
		}, []run{{truncated: true, data: fill(8192) + "[TRUNCATED]\n"}, {mark: dropped{DropLimit, 8204}}}, 2, 3},
		{"nothing at all", 0, func(t *testing.T, out, err *Writer) {
			write(t, out, "x\n")
		}, []run{{mark: dropped{DropLimit, 0}}}, 1, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t, 1<<30)
			tr := s.Create("t", Options{Limit: tc.limit})
			calls := dropMarks(tr)
			out, err := tr.Writer(Stdout, WriterConfig{Lines: true}), tr.Writer(Stderr, WriterConfig{Lines: true})
			tc.write(t, out, err)
			out.Flush()
			if out.Pending() {
				t.Fatal("Pending though everything is dropped: a reader would call Flush forever")
			}
			out.Close()
			err.Close()
			tr.Seal()
			got, end := readFrom(t, tr, 0, 100)
			if end != io.EOF {
				t.Fatal(end)
			}
			sameRuns(t, got, tc.want)
			if c := tr.Counts(); *calls != 1 || c.DroppedLines != tc.lines || c.DroppedBytes != tc.dropped {
				t.Fatalf("calls %d, %+v", *calls, c)
			}
		})
	}
}

func TestRawBytesFillTheLimitExactly(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Limit: 10})
	dropMarks(tr)
	out, err := tr.Writer(Stdout, WriterConfig{}), tr.Writer(Stderr, WriterConfig{})
	write(t, out, "12345")
	write(t, err, "123456789\nab")
	write(t, out, "x")
	out.Close()
	err.Close()
	got, _ := readFrom(t, tr, 0, 100)
	sameRuns(t, got, []run{{data: "12345"}, {stream: Stderr, data: "12345"}, {mark: dropped{DropLimit, 10}}})
	if c := tr.Counts(); c.DroppedBytes != 8 || c.DroppedLines != 3 {
		t.Fatalf("%+v", c)
	}
	balance(t, tr, 18)
}
