package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// minToken refuses guessable tokens: 16 bytes of base64 hold 96 bits.
	minToken = 16
	// maxTokenFile is far above the size of any real file. A larger one is a mistake, such as a
	// device.
	maxTokenFile = 1 << 20
	// tokenFileCheck is the minimum interval between two checks of the file, which a connecting
	// client triggers.
	tokenFileCheck = time.Second
)

// TokenFile authenticates clients by a file of "subject token" lines, with the roles of the token behind it, joined by
// commas; without any it is a user's. It ignores empty lines and lines that begin with #. A subject may have several
// tokens, so that they can be rotated. A changed file takes effect for the next client; if it is invalid, the error is
// logged and the previous tokens stay valid.
type TokenFile struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	checked time.Time
	version fileVersion
	entries []tokenEntry
}

type tokenEntry struct {
	digest  wire.TokenDigest
	subject string
	verbs   []Verb
}

// roles are what tokens may do. They do not include each other: a token that watches runs no commands.
var roles = map[string][]Verb{
	"user":     {VerbCreate},
	"viewer":   {VerbList, VerbGet},
	"operator": {VerbList, VerbGet, VerbDelete},
	"auditor":  {VerbList, VerbGet, VerbRead},
}

// fileVersion identifies one version of the file. The kubelet updates a Secret volume by replacing
// a symbolic link, so that a new version is another file
// (https://pkg.go.dev/k8s.io/kubernetes/pkg/volume/util#AtomicWriter).
type fileVersion struct {
	info os.FileInfo
}

func (v fileVersion) same(info os.FileInfo) bool {
	return v.info != nil && os.SameFile(v.info, info) && v.info.ModTime().Equal(info.ModTime()) &&
		v.info.Size() == info.Size() && v.info.Mode() == info.Mode()
}

// NewTokenFile reads the file. logger may be nil.
func NewTokenFile(path string, logger *slog.Logger) (*TokenFile, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	f := &TokenFile{path: path, log: logger}
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// Authenticate implements Authenticator.
func (f *TokenFile) Authenticate(ctx context.Context, token string) (string, error) {
	return f.Authorize(ctx, token, VerbCreate)
}

// Authorize implements Authorizer.
func (f *TokenFile) Authorize(_ context.Context, token string, verb Verb) (string, error) {
	if token == "" {
		return "", ErrNoToken
	}
	// Comparing digests reveals nothing through its timing, not even the length. The loop covers all
	// entries, so that its time does not reveal which one matched.
	digest := wire.DigestToken(token)
	var found tokenEntry
	for _, e := range f.current() {
		if digest.Equal(e.digest) {
			found = e
		}
	}
	switch {
	case found.subject == "":
		return "", ErrBadToken
	case !slices.Contains(found.verbs, verb):
		return "", fmt.Errorf("%w: the token of %s may not %s sessions: see the roles of --token-file",
			ErrForbidden, found.subject, verb)
	}
	return found.subject, nil
}

// ManySubjects reports whether the tokens are of more than one subject: see the function.
func (f *TokenFile) ManySubjects() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.entries, func(e tokenEntry) bool { return e.subject != f.entries[0].subject })
}

// current returns the entries. It checks the file first, unless it has done so within
// tokenFileCheck.
func (f *TokenFile) current() []tokenEntry {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.checked) < tokenFileCheck {
		return f.entries
	}
	f.checked = time.Now()
	info, err := os.Stat(f.path)
	if err == nil && f.version.same(info) {
		return f.entries
	}
	if err == nil {
		err = f.load()
		f.version.info = info // an invalid file is reported once
	}
	if err != nil {
		f.log.Error("token file not reloaded, the previous tokens stay valid", "err", err)
	} else {
		f.log.Info("token file reloaded", "tokens", len(f.entries))
	}
	return f.entries
}

// load replaces the entries with those of the file. On error it changes nothing.
func (f *TokenFile) load() error {
	file, err := os.Open(f.path)
	if err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	if info.Mode()&0o007 != 0 {
		return fmt.Errorf("token file %s can be read by every user of this machine: run chmod 600 %s", f.path, f.path)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxTokenFile+1))
	if err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	if len(content) > maxTokenFile {
		return fmt.Errorf("token file %s has more than %d bytes", f.path, maxTokenFile)
	}
	entries, err := parseTokens(content)
	if err != nil {
		return fmt.Errorf("token file %s: %w", f.path, err)
	}
	f.entries, f.version = entries, fileVersion{info}
	return nil
}

// verbsOf returns what roles joined by commas may do. Its errors do not quote them: a token may have strayed there.
func verbsOf(joined []string) (verbs []Verb, err error) {
	if len(joined) == 0 {
		return roles["user"], nil
	}
	for i, role := range strings.Split(joined[0], ",") {
		may, ok := roles[role]
		if !ok {
			return nil, fmt.Errorf("role %d is unknown: use %s, joined by commas", i+1,
				strings.Join(slices.Sorted(maps.Keys(roles)), ", "))
		}
		verbs = append(verbs, may...)
	}
	return verbs, nil
}

// parseTokens reads "subject token roles" lines. Its errors name lines by number and never quote them.
func parseTokens(content []byte) ([]tokenEntry, error) {
	var entries []tokenEntry
	lines := make(map[string]int) // by token
	scanner := bufio.NewScanner(bytes.NewReader(content))
	scanner.Buffer(nil, maxTokenFile)
	for n := 1; scanner.Scan(); n++ {
		fields := strings.Fields(scanner.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 2 && len(fields) != 3 {
			return nil, fmt.Errorf("line %d has %d words, want two or three: subject token roles", n, len(fields))
		}
		verbs, err := verbsOf(fields[2:])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(fields[1]) < minToken {
			return nil, fmt.Errorf(
				"line %d: the token has fewer than %d bytes; make one with: openssl rand -base64 32", n, minToken)
		}
		if first := lines[fields[1]]; first != 0 {
			return nil, fmt.Errorf("line %d repeats the token of line %d", n, first)
		}
		lines[fields[1]] = n
		entries = append(entries, tokenEntry{wire.DigestToken(fields[1]), fields[0], verbs})
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("no tokens: write lines of the form: subject token")
	}
	return entries, nil
}
