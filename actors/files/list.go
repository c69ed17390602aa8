//go:build linux

package files

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"syscall"
)

type unixStat = syscall.Stat_t

// stat replies with the entry itself, or with what a link leads to.
func (p *program) stat(name string, req *Request) error {
	lookup := p.root.Lstat
	if req.Follow {
		lookup = p.root.Stat
	}
	st, err := lookup(name)
	if err != nil {
		return err
	}
	r := &Reply{Entry: p.entry(name, st)}
	if req.Digest {
		f, before, err := p.open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return err
		}
		if err := unchanged(f, name, tagOf(before)); err != nil {
			return err
		}
		r.Entry = p.entry(name, before)
		r.SHA256 = sum.Sum(nil)
	}
	return p.reply(r)
}

// entryCost is about what an Entry takes in JSON beside its names, each of whose bytes may be three.
const entryCost = 200

// list replies with the entries after req.After, in the order of their bytes, so that a listing of
// several pages misses nothing that is there all the time.
func (p *program) list(name string, req *Request) error {
	d, err := openDir(p.root, name)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	if first, found := slices.BinarySearch(names, string(req.After)); req.After != "" {
		if found {
			first++
		}
		names = names[first:]
	}
	limit := req.Limit
	if limit <= 0 || limit > MaxEntries {
		limit = MaxEntries
	}
	r := &Reply{}
	size := 0
	for _, n := range names {
		if len(r.Entries) == limit || size >= MaxListing {
			r.More = true
			break
		}
		st, err := p.root.Lstat(path.Join(name, n))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		e := p.entry(path.Join(name, n), st)
		r.Entries = append(r.Entries, *e)
		size += entryCost + 3*len(e.Name) + 3*len(e.Link)
	}
	return p.reply(r)
}
