package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// identity tells a process from a later one that was given the same id. It is
// what the state on disk holds, so that a command which comes after a crash or
// a reboot never signals a stranger.
type identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // ticks since boot: field 22 of proc(5) stat
	Boot  string `json:"boot"`
}

// identify reads the identity of a running process. The error is os.ErrNotExist
// for one that is gone or a zombie.
func identify(pid int) (identity, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			err = os.ErrNotExist
		}
		return identity{}, err
	}
	state, start, err := parseStat(string(stat))
	if err != nil {
		return identity{}, err
	}
	if state == "Z" || state == "X" {
		return identity{}, os.ErrNotExist
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return identity{}, err
	}
	return identity{PID: pid, Start: start, Boot: strings.TrimSpace(string(boot))}, nil
}

// parseStat takes the state and the start time out of proc(5) stat. The second
// field is the program's name in parentheses and may hold both spaces and
// parentheses.
func parseStat(stat string) (state string, start uint64, err error) {
	rest, ok := afterName(stat)
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", 0, fmt.Errorf("not a stat file of proc: %q", stat)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0], start, err
}

// afterName is the part of a stat file behind the program's name.
func afterName(stat string) (rest string, ok bool) {
	i := strings.LastIndex(stat, ") ")
	if i < 0 {
		return "", false
	}
	return stat[i+2:], true
}

// alive reports whether this very process still runs.
func (id identity) alive() bool {
	now, err := identify(id.PID)
	return err == nil && now == id
}

// kill sends SIGKILL to this very process and waits until the kernel has ended
// it. For the init of a process namespace that means: every process in it. It
// is not an error when the process is gone already.
func (id identity) kill(ctx context.Context) error {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd of process %d: %w", id.PID, err)
	}
	defer unix.Close(fd)
	// The descriptor pins the process; if it is still the right one now, it
	// will be when the signal arrives.
	if id.alive() {
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("killing process %d: %w", id.PID, err)
		}
		if err := waitDead(ctx, fd); err != nil {
			return fmt.Errorf("process %d does not end: %w", id.PID, err)
		}
	}
	// If it was started by this process, it is a zombie until it is waited for.
	_, _ = unix.Wait4(id.PID, nil, unix.WNOHANG, nil)
	return nil
}

func waitDead(ctx context.Context, pidfd int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int((100 * time.Millisecond).Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// stateFile holds the identity of the init of a node, or of the network.
func (c *Cluster) stateFile(name string) string { return c.run(name, "process.json") }

// record keeps the identity of a started init. It is on disk before the init
// does anything, so that no crash of the starter leaves an unknown process.
func (c *Cluster) record(name string, id identity) error {
	data, err := json.Marshal(id)
	if err != nil {
		return err
	}
	file := c.stateFile(name)
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// recorded returns the identity of the init with this name. The error is
// ErrOff if none runs.
func (c *Cluster) recorded(name string) (identity, error) {
	data, err := os.ReadFile(c.stateFile(name))
	if errors.Is(err, os.ErrNotExist) {
		return identity{}, fmt.Errorf("%s: %w", name, ErrOff)
	}
	if err != nil {
		return identity{}, err
	}
	var id identity
	if err := json.Unmarshal(data, &id); err != nil {
		return identity{}, fmt.Errorf("%s: %w", c.stateFile(name), err)
	}
	if !id.alive() {
		return identity{}, fmt.Errorf("%s: %w", name, ErrOff)
	}
	return id, nil
}

// recordedNames lists the nodes and networks of which there is any state.
func (c *Cluster) recordedNames() []string {
	var names []string
	files, _ := filepath.Glob(c.run("*", "process.json"))
	for _, f := range files {
		names = append(names, filepath.Base(filepath.Dir(f)))
	}
	return names
}
