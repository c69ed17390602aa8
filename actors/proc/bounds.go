//go:build linux

package proc

import (
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// Bounds limit what all trees of one owner may hold together. 0: no limit.
//
// They are measured, not enforced by the kernel, so that trees may exceed them for a moment. A tree
// that exceeds one alone is killed by its init. When several do so together, the one that holds most
// is killed.
type Bounds struct {
	Memory    int64 // bytes
	Processes int   // processes and threads, as the kernel's own limits count them
	Disk      int64 // bytes in the owner's workspace, and of any file that a command writes
}

func (b Bounds) frame() frame.Bounds { return frame.Bounds(b) }

// Bound names one of Bounds.
type Bound string

// The bounds of an owner.
const (
	BoundMemory    Bound = "memory"
	BoundProcesses Bound = "processes"
	BoundDisk      Bound = "disk"
)

func boundOf(b frame.Bound) Bound {
	switch b {
	case frame.BoundMemory:
		return BoundMemory
	case frame.BoundProcesses:
		return BoundProcesses
	case frame.BoundDisk:
		return BoundDisk
	default:
		return ""
	}
}

// ledger sums what the trees of each owner hold.
type ledger struct {
	limits Bounds

	mu     sync.Mutex
	owners map[string]*holdings
	disks  map[string]*disk // by workspace
}

// disk is the state of a workspace.
type disk struct {
	owner string
	asked bool        // the runner is measuring it
	full  bool        // it held too much when it was last measured
	again *time.Timer // measures it again
}

// diskShare is the greatest share of one CPU that measuring a workspace again and again takes, while
// its owner has trees: a fiftieth. The runner also collects requests for a second.
const diskShare = 50

// touch notes that a command may have written to its workspace, and reports whether the runner is to
// be asked.
func (l *ledger) touch(t *Tree) (ask bool) {
	if l.limits.Disk <= 0 || t.workspace == "" {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.disks[t.workspace]
	if d == nil {
		d = &disk{owner: t.owner}
		l.disks[t.workspace] = d
	}
	ask = !d.asked
	d.asked = true
	return ask
}

// measured notes whether a workspace holds too much, which it has taken spent to say. If it does, the
// trees die that can write to it.
func (l *ledger) measured(workspace string, full bool, spent time.Duration) {
	l.mu.Lock()
	d := l.disks[workspace]
	if d == nil { // the session has ended
		l.mu.Unlock()
		return
	}
	d.asked, d.full = false, full
	var victims []*Tree
	var running *Tree
	if o := l.owners[d.owner]; o != nil {
		for t, h := range o.trees {
			running = t
			if full && !t.full && h.exceeded == "" {
				h.exceeded = BoundDisk
				victims = append(victims, t)
			}
		}
	}
	if d.again != nil {
		d.again.Stop()
	}
	if running != nil {
		d.again = time.AfterFunc(diskShare*spent, func() { running.r.measureDisk(running) })
	}
	l.mu.Unlock()
	for _, t := range victims {
		t.Kill()
	}
}

// full reports whether commands of a workspace must not write.
func (l *ledger) full(workspace string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.disks[workspace]
	return d != nil && d.full
}

// forget drops the state of a workspace that is removed; "": of all, since their runner is gone.
func (l *ledger) forget(workspace string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, d := range l.disks {
		if workspace == "" || name == workspace {
			if d.again != nil {
				d.again.Stop()
			}
			delete(l.disks, name)
		}
	}
}

// measureDisk has the runner measure the workspace of a tree, if it is bounded.
func (r *Runner) measureDisk(t *Tree) {
	if !r.ledger.touch(t) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		// On an error the runner is lost, and serveRunner notices.
		_ = r.conn.conn.send(frame.New(frame.KindMeasure).Str(t.workspace).Int(r.cfg.Session.Disk).Done())
	}
}

// holdings are what the running trees of one owner hold.
type holdings struct {
	trees  map[*Tree]*held
	warned map[Bound]bool
}

// held is what one tree held when it was last measured.
type held struct {
	processes, memory int64
	exceeded          Bound // it is being killed for this
}

// none reports whether there is nothing to keep.
func (l *ledger) none() bool { return l.limits == Bounds{} }

// add begins the account of a tree whose command runs.
func (l *ledger) add(t *Tree) {
	if l.none() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.owners[t.owner]
	if o == nil {
		o = &holdings{trees: make(map[*Tree]*held, 1)}
		l.owners[t.owner] = o
	}
	o.trees[t] = new(held)
}

// remove ends the account of a tree that is dead, and returns the bound for which it was killed.
func (l *ledger) remove(t *Tree) Bound {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.owners[t.owner]
	if o == nil || o.trees[t] == nil {
		return ""
	}
	exceeded := o.trees[t].exceeded
	delete(o.trees, t)
	if len(o.trees) == 0 {
		delete(l.owners, t.owner)
	}
	return exceeded
}

// sample notes what a tree holds now, warns the owner and kills the tree that holds most.
func (l *ledger) sample(t *Tree, processes int, memory int64) {
	l.mu.Lock()
	o := l.owners[t.owner]
	if o == nil || o.trees[t] == nil {
		l.mu.Unlock()
		return
	}
	h := o.trees[t]
	h.processes, h.memory = int64(processes), memory
	var near []NearBound
	victims := make(map[*Tree]struct{})
	for _, b := range []struct {
		bound Bound
		limit int64
		of    func(*held) int64
	}{
		{BoundProcesses, int64(l.limits.Processes), func(h *held) int64 { return h.processes }},
		{BoundMemory, l.limits.Memory, func(h *held) int64 { return h.memory }},
	} {
		if b.limit <= 0 {
			continue
		}
		sum, most := o.sum(b.of)
		if sum > b.limit-b.limit/10 && o.warn(b.bound) {
			near = append(near, NearBound{Bound: b.bound, Used: sum, Limit: b.limit})
		}
		if sum > b.limit && most != nil {
			o.trees[most].exceeded = b.bound
			victims[most] = struct{}{}
		}
	}
	l.mu.Unlock()
	for _, n := range near {
		t.emit(n)
	}
	for v := range victims {
		v.Kill()
	}
}

// sum adds up what the trees hold, and returns the one that holds most. It returns none while one is
// dying, which will leave room.
func (o *holdings) sum(of func(*held) int64) (sum int64, most *Tree) {
	greatest, dying := int64(-1), false
	for t, h := range o.trees {
		n := of(h)
		sum += n
		dying = dying || h.exceeded != ""
		if n > greatest {
			greatest, most = n, t
		}
	}
	if dying {
		most = nil
	}
	return sum, most
}

// warn reports whether the owner is to be warned, which is so once for each bound.
func (o *holdings) warn(b Bound) bool {
	if o.warned[b] {
		return false
	}
	if o.warned == nil {
		o.warned = make(map[Bound]bool, 1)
	}
	o.warned[b] = true
	return true
}
