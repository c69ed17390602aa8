package screen

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recording is what a program drew, made by testdata/record.py.
type recording struct {
	name       string
	cols, rows int
	pieces     []piece
}

// piece is a part of a recording: output, or another size.
type piece struct {
	output     []byte
	cols, rows int
}

func (r *recording) size() (n int) {
	for _, p := range r.pieces {
		n += len(p.output)
	}
	return n
}

func recordings(t testing.TB) []recording {
	t.Helper()
	files, err := filepath.Glob("testdata/*.cast.gz")
	if err != nil || len(files) < 8 {
		t.Fatalf("recordings: %v, %v", files, err)
	}
	all := make([]recording, len(files))
	for i, file := range files {
		all[i] = readRecording(t, file)
	}
	return all
}

func readRecording(t testing.TB, file string) recording {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(plain)
	lines.Buffer(nil, 1<<20)
	lines.Scan()
	var header struct{ Width, Height int }
	if err := json.Unmarshal(lines.Bytes(), &header); err != nil {
		t.Fatal(err)
	}
	r := recording{name: strings.TrimSuffix(filepath.Base(file), ".cast.gz"), cols: header.Width, rows: header.Height}
	for lines.Scan() {
		var at float64
		var kind, data string
		if err := json.Unmarshal(lines.Bytes(), &[]any{&at, &kind, &data}); err != nil {
			t.Fatal(err)
		}
		p := piece{output: []byte(data)}
		if kind == "r" {
			p = piece{}
			if _, err := fmt.Sscanf(data, "%dx%d", &p.cols, &p.rows); err != nil {
				t.Fatal(err)
			}
		}
		r.pieces = append(r.pieces, p)
	}
	return r
}
