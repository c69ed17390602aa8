package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// idleCut is after how many seconds without a byte the proxy of the test cuts a connection.
const idleCut = 4

// idleCutter is a TCP proxy in front of the ingress that cuts connections on
// which nothing moved for idleCut seconds, as load balancers of clouds and many
// ingress controllers do. The ingress controller of these tests does not: once
// a connection is a WebSocket, Traefik sets no time for it.
func idleCutter(t *testing.T) dialer {
	t.Helper()
	socat, err := exec.LookPath("socat")
	if err != nil {
		t.Fatal(err)
	}
	return func(context.Context, string, string) (net.Conn, error) {
		// One socat for each connection, between this process and the ingress. The
		// context given here bounds the dialling only.
		local, remote, err := socketPair()
		if err != nil {
			return nil, err
		}
		cmd := suite.command(t.Context(), socat, "-T", strconv.Itoa(idleCut), "STDIO", "TCP:"+suite.ingress)
		cmd.Stdin, cmd.Stdout = remote, remote
		err = errors.Join(cmd.Start(), remote.Close())
		if err != nil {
			local.Close()
			return nil, err
		}
		t.Cleanup(func() {
			local.Close()
			_ = cmd.Wait() // it ends with its connection
		})
		return local, nil
	}
}

// TestQuietCommandOutlivesAnIdleTimeout runs a command that is silent for three
// times as long as the proxy before the ingress tolerates. The control is a
// client of a server that pings every 20 s, the default: that one is cut, so
// the proxy does cut and only the pings keep the other alive. The default
// outlives proxies of 60 s, the usual setting, for the same reason.
//
// Protects from: pings that stop at the ingress or are not sent, and a client
// that survives only because it resumes.
func TestQuietCommandOutlivesAnIdleTimeout(t *testing.T) {
	t.Parallel()
	r := install(t, "quiet", "limits: {pingIntervalSeconds: 1}")
	through := idleCutter(t)

	var seen notices
	opt := r.options()
	opt.HTTPClient, opt.OnNotice = httpClient(through), seen.note
	opt.KeepaliveTimeout = -1 // the client sends no pings of its own
	c := r.dialWith(t, opt)
	cut := make(chan error, 1)
	go func() { cut <- suite.shared.untilCut(t.Context(), through) }()

	var out bytes.Buffer
	began := time.Now()
	done, err := c.Run(t.Context(), wire.ExecuteParams{Command: fmt.Sprintf("sleep %d; echo done", 3*idleCut)}, &out, nil)
	if err != nil || done.Reason != wire.ReasonExited || out.String() != "done\n" {
		t.Errorf("the quiet command printed %q and ended with %s, %v", out.String(), compact(done), err)
	}
	if lost := seen.count(troupe.NoticeLost); lost > 0 {
		t.Errorf("the connection was lost %d times\n%s", lost, seen.String())
	}
	t.Logf("silent for %s through a proxy that cuts after %d s", time.Since(began).Round(100*time.Millisecond), idleCut)
	if err := <-cut; err != nil {
		t.Errorf("the control: %v", err)
	}
}

// untilCut opens a session and waits, silent, until the connection is cut. It is
// an error if the server ends it, or if nothing does.
func (r *release) untilCut(ctx context.Context, through dialer) error {
	ctx, cancel := context.WithTimeout(ctx, 5*idleCut*time.Second)
	defer cancel()
	c, _, err := r.dialRaw(ctx, through)
	if err != nil {
		return err
	}
	defer c.ws.CloseNow()
	if m, err := c.next(ctx); err != nil || m.Method != wire.MethodConnected {
		return fmt.Errorf("no session: %s, %w", m.Method, err)
	}
	for {
		m, err := c.next(ctx)
		switch {
		case err == nil && m.Method == wire.MethodPing:
			return errors.New("a ping came before the proxy cut the connection")
		case err == nil:
			continue
		case ctx.Err() != nil:
			return errors.New("the proxy did not cut a silent connection")
		case closeCode(err) != -1:
			return fmt.Errorf("the server ended the connection: %w", err)
		}
		return nil
	}
}
