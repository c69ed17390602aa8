package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// record is what troupe remembers about a session: enough to attach to it from another shell. It
// holds the resume token, so only its owner may read it.
type record struct {
	troupe.Session
	Execution string    `json:"execution_id"`
	Command   string    `json:"command"`
	Started   time.Time `json:"started"`
	Access    *access   `json:"access,omitempty"` // nil: troupe 0.1 wrote the record

	// Held means that a run of troupe exec is attached, which forgets the session when it ends.
	Held bool `json:"held,omitempty"`
	// DropOK means that the user allowed output to be dropped at the output limit.
	DropOK bool `json:"drop_ok,omitempty"`
	// Terminal means that the command runs in one: its screen is drawn again from what is left of its output.
	Terminal bool `json:"terminal,omitempty"`

	keep bool   // its processes may outlive the command; known to the run that started it
	path string // file that it was read from; empty: none yet
	// elsewhere means that the command line names another server or resume token than the record, so
	// that an answer of "no such session" says nothing about the session that was recorded.
	elsewhere bool
}

// forgettable reports whether err proves that the recorded session is gone: the recorded server says
// so. A proxy's 404, a refused token or a server that cannot be reached prove nothing.
func (r *record) forgettable(err error) bool {
	return !r.elsewhere && (errors.Is(err, troupe.ErrNoSession) || errors.Is(err, troupe.ErrSessionLost))
}

// ended reports whether err, the end of a connection that was attached to the session, is also the
// end of the session.
func (r *record) ended(err error) bool {
	return r.forgettable(err) || errors.Is(err, troupe.ErrSessionEnded)
}

// store is a directory with one file per session. Runs of troupe write different files, each by an
// atomic rename, so no lock is needed.
type store struct {
	dir   string
	err   error  // why there is no directory; nil: there is one
	spare string // file that reserve made for the next save; empty: none
}

// store returns the store, which may be unusable: only what has to remember a session then fails.
func (a *app) store() *store {
	dir := a.settings.stateDir
	if dir == "" {
		base, err := stateHome()
		if err != nil {
			return &store{err: fmt.Errorf("no directory to remember sessions in (%w): "+
				"set HOME or XDG_STATE_HOME, or give --state-dir", err)}
		}
		dir = filepath.Join(base, "troupe")
	}
	return &store{dir: filepath.Join(dir, "sessions")}
}

// stateHome returns the directory for state: on other systems than Linux, that for caches is the
// closest.
func stateHome() (string, error) {
	if runtime.GOOS != "linux" && !filepath.IsAbs(os.Getenv("XDG_STATE_HOME")) {
		return os.UserCacheDir()
	}
	return xdg("XDG_STATE_HOME", filepath.Join(".local", "state"))
}

// path returns the file of a record. Ids come from servers and users, so path refuses those that are
// not plain file names. Where another server's session has the same id, a digest of the URL is added.
func (s *store) path(r *record) (string, error) {
	if r.path != "" {
		return r.path, nil
	}
	if err := plainID(r.ID); err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, r.ID+".json")
	if other, err := readRecord(path); err == nil && other.URL != r.URL {
		sum := sha256.Sum256([]byte(r.URL))
		path = filepath.Join(s.dir, r.ID+"@"+hex.EncodeToString(sum[:4])+".json")
	}
	return path, nil
}

func plainID(id string) error {
	if id == "" || strings.HasPrefix(id, ".") || strings.ContainsAny(id, `/\:`) ||
		strings.ContainsFunc(id, unsafe) {
		return fmt.Errorf("%q is not a session id", id)
	}
	return nil
}

// reserve makes the file of the next save, with room for r, so that a command is started only if
// its session can be remembered.
func (s *store) reserve(r *record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	// What only the server knows, its id and token, takes less than what is added here.
	s.spare, err = s.write(bytes.Repeat([]byte{'\n'}, len(b)+4096))
	return err
}

// release removes what reserve made and no save has used.
func (s *store) release() {
	if s.spare != "" {
		_ = os.Remove(s.spare)
	}
}

// write makes a file with mode 0600 that holds b on the disk, and returns its path.
func (s *store) write(b []byte) (string, error) {
	if s.err != nil {
		return "", s.err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return "", err
	}
	return f.Name(), fill(f, b)
}

// fill writes b over what f holds, and closes f. If it fails, it removes the file.
func fill(f *os.File, b []byte) error {
	_, err := f.Write(b)
	if err == nil {
		err = f.Truncate(int64(len(b)))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func (s *store) save(r *record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if s.err != nil {
		return s.err
	}
	path, err := s.path(r)
	if err != nil {
		return err
	}
	name := s.spare
	if s.spare = ""; name == "" {
		name, err = s.write(b)
	} else if f, openErr := os.OpenFile(name, os.O_WRONLY, 0); openErr != nil {
		err = openErr
	} else {
		err = fill(f, b)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		_ = os.Remove(name)
		return err
	}
	r.path = path
	return nil
}

func (s *store) remove(r *record) {
	if r.path != "" {
		_ = os.Remove(r.path) // it may be gone already
	}
}

// list returns the sessions, oldest first, and an error for each file that is not a record.
func (s *store) list() (records []*record, broken []error, err error) {
	if s.err != nil {
		return nil, nil, s.err
	}
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		r, err := readRecord(filepath.Join(s.dir, entry.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			broken = append(broken, err)
		default:
			records = append(records, r)
		}
	}
	slices.SortStableFunc(records, func(a, b *record) int { return a.Started.Compare(b.Started) })
	return records, broken, nil
}

func readRecord(path string) (*record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &record{path: path}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s is not the record of a session (%w): remove it", path, err)
	}
	id, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(path), ".json"), "@")
	if plainID(r.ID) != nil || r.ID != id || r.ResumeToken == "" {
		return nil, fmt.Errorf("%s is not the record of a session: remove it", path)
	}
	return r, nil
}

// find returns the session with that id, or the only one whose id begins with it. If url is not
// empty, a session on that server is preferred.
func (s *store) find(id, url string) (*record, error) {
	records, broken, err := s.list()
	if err != nil {
		return nil, err
	}
	exact := func(r *record) bool { return r.ID == id }
	begins := func(r *record) bool { return id != "" && strings.HasPrefix(r.ID, id) }
	for _, match := range []func(*record) bool{exact, begins} {
		found := filter(records, match)
		if there := filter(found, func(r *record) bool { return r.URL == url }); len(there) > 0 {
			found = there
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1 && found[0].ID == found[1].ID:
			return nil, fmt.Errorf("session %s is remembered for several servers, %s and %s: choose with --server",
				found[0].ID, found[0].URL, found[1].URL)
		case len(found) > 1:
			return nil, fmt.Errorf("%d sessions begin with %q, such as %s and %s", len(found), id, found[0].ID, found[1].ID)
		}
	}
	for _, err := range broken {
		if id != "" && strings.Contains(err.Error(), string(filepath.Separator)+id) {
			return nil, err
		}
	}
	return nil, errUnknownSession
}

func filter(records []*record, keep func(*record) bool) []*record {
	return slices.DeleteFunc(slices.Clone(records), func(r *record) bool { return !keep(r) })
}

var errUnknownSession = errors.New(
	"no such session is remembered here: see troupe sessions, or give --server and TROUPE_RESUME_TOKEN")

// session returns the record to attach to, either remembered or made from flags. What the record
// says of its server holds unless the command line says otherwise: TROUPE_SERVER and
// TROUPE_RESUME_TOKEN may be meant for another session.
func (a *app) session(id, resumeToken string) (*record, *store, error) {
	st := a.store()
	configured, err := serverURL(a.settings.server)
	if err != nil {
		return nil, st, err
	}
	named := ""
	if a.settings.onLine("server") {
		named = configured
	}
	r, err := st.find(id, named)
	switch {
	case err == nil:
	case resumeToken == "" || !errors.Is(err, errUnknownSession) && st.err == nil:
		return nil, st, err
	default:
		r = &record{
			Session:   troupe.Session{URL: configured, ID: id, ResumeToken: resumeToken},
			Started:   time.Now().UTC(),
			elsewhere: true,
		}
		return r, st, plainID(id)
	}
	if named != "" && named != r.URL {
		r.URL, r.elsewhere = named, true
	}
	if a.settings.onLine("resume-token") && resumeToken != r.ResumeToken {
		r.ResumeToken, r.elsewhere = resumeToken, true
	}
	return r, st, nil
}
