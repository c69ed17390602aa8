package main

import (
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

	keep bool // its processes may outlive the command; known to the run that started it
}

// store is a directory with one file per session. Two runs of troupe write
// different files, each by an atomic rename, so no lock is needed.
type store struct{ dir string }

func (a *app) store() (store, error) {
	dir := a.settings.stateDir
	if dir == "" {
		base, err := stateHome()
		if err != nil {
			return store{}, fmt.Errorf("no directory to remember sessions in, set --state-dir: %w", err)
		}
		dir = filepath.Join(base, "troupe")
	}
	return store{filepath.Join(dir, "sessions")}, nil
}

func stateHome() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	if runtime.GOOS == "linux" {
		home, err := os.UserHomeDir()
		return filepath.Join(home, ".local", "state"), err
	}
	return os.UserCacheDir()
}

// path returns the file of a session. Ids come from servers and users, so path refuses those that
// are not plain file names.
func (s store) path(id string) (string, error) {
	if id == "" || strings.HasPrefix(id, ".") || strings.ContainsAny(id, `/\:`) {
		return "", fmt.Errorf("%q is not a session id", id)
	}
	return filepath.Join(s.dir, id+".json"), nil
}

func (s store) save(r record) error {
	path, err := s.path(r.ID)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, ".new-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func (s store) remove(id string) {
	if path, err := s.path(id); err == nil {
		_ = os.Remove(path) // it may be gone already
	}
}

// list returns the sessions, oldest first. Files that are not records are skipped.
func (s store) list() ([]record, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var records []record
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok || strings.HasPrefix(id, ".") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(s.dir, entry.Name()))
		if err != nil {
			continue // removed meanwhile
		}
		var r record
		if json.Unmarshal(b, &r) == nil && r.ID == id {
			records = append(records, r)
		}
	}
	slices.SortFunc(records, func(a, b record) int { return a.Started.Compare(b.Started) })
	return records, nil
}

// find returns the session with that id, or the only one whose id begins with it.
func (s store) find(id string) (record, error) {
	records, err := s.list()
	if err != nil {
		return record{}, err
	}
	var found []record
	for _, r := range records {
		if r.ID == id {
			return r, nil
		}
		if id != "" && strings.HasPrefix(r.ID, id) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return record{}, errUnknownSession
	case 1:
		return found[0], nil
	}
	return record{}, fmt.Errorf("%d sessions begin with %q", len(found), id)
}

var errUnknownSession = errors.New(
	"no such session is remembered here: see troupe sessions, or give --server and TROUPE_RESUME_TOKEN")

// session returns the record to attach to, either remembered or made from flags.
func (a *app) session(id, resumeToken string) (record, store, error) {
	st, err := a.store()
	if err != nil {
		return record{}, st, err
	}
	r, err := st.find(id)
	if errors.Is(err, errUnknownSession) && resumeToken != "" {
		r, err = record{Session: troupe.Session{ID: id}, Started: time.Now()}, nil
	}
	if err != nil {
		return record{}, st, err
	}
	if resumeToken != "" {
		r.ResumeToken = resumeToken
	}
	if a.settings.serverSet || r.URL == "" {
		r.URL, err = serverURL(a.settings.server)
	}
	return r, st, err
}
