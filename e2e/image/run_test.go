package image

import (
	"strings"
	"testing"
)

// TestImagesRunAsAPod: both images under the rules of the restricted profile,
// from the init container to the end, without Kubernetes.
func TestImagesRunAsAPod(t *testing.T) {
	p := newPod(t)
	p.install()
	server, runner := p.startServer(), p.startRunner()
	up := func() {
		t.Helper()
		eventually(t, "the first command", func() bool {
			out, _, code := runner.exec("troupe", "exec", "--", "echo", "hello")
			return code == 0 && out == "hello\n"
		})
	}
	up()

	// What a command finds.
	out, stderr, code := runner.exec("troupe", "exec", "--", "/bin/bash", "-c", `
		(env | sort | grep -v TROUPE_ISOLATION; pwd) | sed "s|${HOME%/home}|ROOM|g"; id -u; locale charmap
		touch ok $TMPDIR/ok && for f in / /troupe/bin /troupe/run /usr;
		do touch $f/x 2>/dev/null && echo "$f is writable"; done
		python3 -c 'print("µ")'; git --version | cut -c1-3; kill -9 1; grep NoNewPrivs /proc/self/status`)
	want := "HOME=ROOM/home\nLANG=C.UTF-8\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=ROOM/home\nSHLVL=1\nTEMP=ROOM/tmp\nTMP=ROOM/tmp\nTMPDIR=ROOM/tmp\n_=/usr/bin/env\n" +
		"ROOM/home\n1000\nUTF-8\nµ\ngit\nNoNewPrivs:\t1\n"
	if code != 0 || out != want {
		t.Errorf("exit code %d: %s\ngot  %s\nwant %s", code, stderr, out, want)
	}

	// A failed start names what is missing there.
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"no-such-program"}, 127, "troupe: no-such-program: command not found\n"},
		{[]string{"--cwd", "/no/such/dir", "--", "true"}, 126, "troupe: /no/such/dir: No such directory\n"},
	} {
		out, stderr, code := runner.exec(append([]string{"troupe", "exec"}, c.args...)...)
		if code != c.code || stderr != c.says {
			t.Errorf("%q: exit code %d: %s%s", c.args, code, out, stderr)
		}
	}

	// More memory than the container has.
	_, stderr, code = runner.exec("troupe", "exec", "--", "python3", "-c", "x = b'x' * (1 << 30)")
	if code != 128+9 || !strings.Contains(stderr, "out_of_memory") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	up()

	// The server dies: the runner ends with everything, and both come back.
	server.kill("KILL")
	server.await("end of the server")
	if code := runner.await("end of the runner without a server"); code != 0 {
		t.Errorf("the runner ended with %d", code)
	}
	server, runner = p.startServer(), p.startRunner()
	up()

	// The runner dies: the server stays, and takes the next one.
	runner.kill("KILL")
	runner.await("end of the runner")
	runner = p.startRunner()
	up()

	// The end of a pod: SIGTERM for both at once. The command may finish.
	last := make(chan string, 1)
	go func() {
		out, stderr, _ := runner.exec("troupe", "exec", "--", "/bin/sh", "-c",
			"echo began > began; while [ -e began ]; do sleep 0.05; done; echo finished")
		last <- out + stderr
	}()
	eventually(t, "the last command", func() bool {
		_, _, code := runner.exec("sh", "-c", "test -e /workspace/s-*/home/began")
		return code == 0
	})
	runner.kill("TERM")
	server.kill("TERM")
	eventually(t, "the drain", func() bool { return strings.Contains(server.log(), "draining") })
	if _, stderr, code := runner.exec("sh", "-c", "rm /workspace/s-*/home/began"); code != 0 {
		t.Error(stderr)
	}
	if said := <-last; !strings.Contains(said, "finished\n") {
		t.Errorf("the last command said %q", said)
	}
	if code := server.await("end of the server"); code != 0 {
		t.Errorf("the server ended with %d", code)
	}
	if code := runner.await("end of the runner"); code != 0 {
		t.Errorf("the runner ended with %d", code)
	}
}
