//go:build linux

// Command attack is what the tests run in two sessions at once, one against the other.
//
//	attack victim            is somebody's program: it makes secrets of every kind, prints one line of JSON that says
//	                         where they are, and stays
//	attack all VICTIM        tries everything on what the line names, and prints a line for each attempt: its name, a
//	                         tab, and "open", an error's name or "nothing"
//	attack one NAME VICTIM   tries a single attempt, or one of those that end other people's work
//	attack control           is the victim and the attacker in turn, in namespaces of its own, as root and without any
//	                         protection: an attempt that fails here shows nothing elsewhere
//
// The attacker is given more than one can guess: pids, paths, ports and addresses. What stays closed
// is closed to somebody who knows it all.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// secret is in each thing that the victim has.
const secret = "a-secret-of-the-victim"

// An attempt returns nil when it succeeded.
type attempt struct {
	name string
	try  func(v *victim) error
}

// errNothing says that an attempt was carried out and brought nothing.
var errNothing = errors.New("nothing")

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "victim":
		beVictim()
		return
	case len(os.Args) == 2 && os.Args[1] == "control":
		control()
		return
	}
	var v victim
	if len(os.Args) < 3 || json.Unmarshal([]byte(os.Args[len(os.Args)-1]), &v) != nil {
		fmt.Fprintln(os.Stderr, "usage: attack victim | attack all VICTIM | attack one NAME VICTIM | attack control")
		os.Exit(2)
	}
	list := attempts()
	if os.Args[1] == "one" {
		list = slices.DeleteFunc(append(list, kills()...), func(a attempt) bool { return a.name != os.Args[2] })
	}
	for _, a := range list {
		fmt.Printf("%s\t%s\n", a.name, outcome(a.try(&v)))
	}
}

func attempts() []attempt {
	return slices.Concat(inherited(), procAttempts(), processAttempts(), signalAttempts(), runnerAttempts(),
		fileAttempts(), ipcAttempts(), netAttempts(), serverAttempts(), kernelAttempts(), i386Attempts())
}

// outcome is the word for what an attempt returned. It names the kernel's error, so that a test can
// tell a wall from a mistake in the attempt.
func outcome(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "open"
	case errors.Is(err, errNothing), errors.Is(err, io.EOF):
		return "nothing"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	default:
		return strings.Join(strings.Fields(err.Error()), " ")
	}
}

// control attacks a victim that nothing protects. It runs as the first process of namespaces of its
// own.
func control() {
	must(os.OpenFile("/proc/self/exe", os.O_RDONLY, 0)) // what an attacker might inherit
	dir := must(os.Getwd())
	check(errors.Join(os.Mkdir("victim", 0o700), os.Mkdir("attacker", 0o700)))
	check(os.Setenv("TMPDIR", dir+"/victim"))
	cmd := exec.Command("/proc/self/exe", "victim")
	cmd.Dir, cmd.Stderr = dir+"/victim", os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := must(cmd.StdoutPipe())
	check(cmd.Start())
	var v victim
	check(json.NewDecoder(out).Decode(&v))
	// Everything that there is in a pod is the victim's here.
	v.Init, v.Runner, v.Root, v.Data, v.Tokens = v.PID, v.PID, v.Home, v.Dir, v.File
	v.Socket, v.Lock, v.Binary = v.Unix, v.File, v.File
	v.Server, v.Admin = v.TCP, v.TCP
	attack := exec.Command("/proc/self/exe", "all", string(must(json.Marshal(&v))))
	attack.Dir, attack.Stdout, attack.Stderr = dir+"/attacker", os.Stdout, os.Stderr
	attack.Env = append(os.Environ(), "SECRET="+secret)
	attack.ExtraFiles = []*os.File{must(os.Open(v.File))}
	check(attack.Run())
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}
