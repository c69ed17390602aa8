package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"
)

// turnAwayArg makes this program the server that hostile's floor attacks.
const turnAwayArg = "turn-away"

// turnAway closes every connection as soon as it is made, until stdin ends. It writes the addresses of
// its three listeners to stdout.
func turnAway() error {
	var addrs []string
	for range 3 {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addrs = append(addrs, l.Addr().String())
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if tcp, ok := c.(*net.TCPConn); ok {
					_ = tcp.SetLinger(0)
				}
				_ = c.Close() // nothing was said on it
			}
		}()
	}
	if err := json.NewEncoder(os.Stdout).Encode(addrs); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// hostileFloor returns how long /bin/true takes with os/exec while the same attacks meet a server that
// turns everybody away: what the attackers' connections alone cost on this machine.
func (e *env) hostileFloor(ctx context.Context, form hostileForm) (floor samples, err error) {
	match, err := e.attacks()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "troupe-load-floor-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	v := &victim{server: &server{}, dead: make(chan struct{})}
	if err := v.preparePeer(dir); err != nil {
		return nil, err
	}
	v.group, _ = newCgroup("floor", chartMemory, serverShares) // without one, the shares differ
	v.attackersIn, _ = newCgroup("floor-attackers", 0, attackerShares)
	argv := v.group.command(e.self, turnAwayArg)
	v.cmd = exec.Command(argv[0], argv[1:]...)
	v.cmd.Stderr = os.Stderr
	stdin, err := v.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := v.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, stdin.Close(), v.cmd.Wait(), v.group.remove(), v.attackersIn.remove())
	}()
	var addrs []string
	if err := json.NewDecoder(stdout).Decode(&addrs); err != nil {
		return nil, err
	}
	v.ws, v.admin, v.peer.Victim = "ws://"+addrs[0], "http://"+addrs[1], addrs[2]
	quiet := *e
	quiet.profiles = ""
	under := &attackers{e: &quiet, v: v, form: form}
	if err := under.start(ctx, match); err != nil {
		return nil, err
	}
	floor, err = runsOfTrue(ctx, form.period)
	under.watch.Wait()
	under.wait()
	return floor, err
}

// runsOfTrue runs /bin/true as often as the honest sessions do, with os/exec.
func runsOfTrue(ctx context.Context, period time.Duration) (took samples, err error) {
	ctx, cancel := context.WithTimeout(ctx, period)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	for range honestSessions {
		all.Go(func() {
			for ctx.Err() == nil {
				pause(ctx, 100*time.Millisecond+rand.N(200*time.Millisecond))
				began := time.Now()
				failed := execTrue()
				mu.Lock()
				took = append(took, time.Since(began))
				err = errors.Join(err, failed)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return took, err
}
