package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/confine"
	"github.com/troupe-dev/troupe/actors/wire"
)

// program is a script that a session with isolation runs with bash, in an empty home.
type program struct {
	name   string
	needs  string // programs and files of this machine, separated by spaces
	script string
	// For what breaks: says is in what it prints, and symptom in the table of docs/isolation.md.
	says, symptom string
	wayOut        string // flag of the runner with which it works, as that table says; "": none
}

// programs that work in a session as they do outside.
var programs = []program{
	{name: "git", needs: "git", script: `git init -q a && cd a && git config user.email a@b && git config user.name a &&
		echo x >f && git add f && git commit -qm x && git clone -q . ../b && git worktree add -q ../c && git -C ../c log`},
	{name: "npm", needs: "npm node", script: `mkdir dep app && echo '{"name":"dep","version":"1.0.0"}' >dep/package.json &&
		cd app && echo '{"name":"app","version":"1.0.0","scripts":{"test":"node -e 1"}}' >package.json &&
		npm install --offline --no-audit --no-fund ../dep && test -e node_modules/dep/package.json && npm test`},
	{name: "node", needs: "node", script: `node -e '
		const {Worker} = require("worker_threads"), http = require("http"), {execSync} = require("child_process");
		if (!(require("os").freemem() > 0) || !(process.memoryUsage().rss > 0)) process.exit(1);
		execSync("true");
		require("fs").watch(".");
		const s = http.createServer((q, r) => r.end("ok")).listen(0, "127.0.0.1", () =>
			http.get({port: s.address().port}, r => new Worker("1", {eval: true}).on("exit", () => process.exit(0))));'`},
	{name: "python venv", needs: "python3", script: `python3 -m venv --without-pip v &&
		v/bin/python -c 'import sys; assert sys.prefix.endswith("/v")'`},
	{name: "python multiprocessing", needs: "python3", script: `cat >m.py <<-'END'
		import multiprocessing as mp, multiprocessing.shared_memory as sm
		def f(x): return x * x
		if __name__ == "__main__":
		    for how in "fork", "spawn", "forkserver":
		        with mp.get_context(how).Pool(2) as p: assert p.map(f, [1, 2]) == [1, 4]
		    with mp.Manager() as m: m.dict()["a"] = 1
		    s = sm.SharedMemory(create=True, size=10); sm.SharedMemory(s.name).close(); s.close(); s.unlink()
		    mp.Lock().acquire()
		END
		python3 m.py`},
	{name: "python asyncio", needs: "python3", script: `cat >a.py <<-'END'
		import asyncio
		async def main():
		    p = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
		    out, _ = await p.communicate(b"x")
		    assert out == b"x"
		    await asyncio.start_unix_server(lambda r, w: None, "s")
		    await asyncio.open_unix_connection("s")
		asyncio.run(main())
		END
		python3 a.py`},
	{name: "go build", needs: "go", script: goModule + `go build -o p . && ./p && go vet .`},
	{name: "go test -race", needs: "go gcc", script: goModule + `go test -race -count=1 .`},
	{name: "gcc and make -j", needs: "gcc make", script: cSource + `
		printf 'all: a b\n%%: x.c\n\tgcc -O2 -o $@ $<\n' >Makefile && make -s -j4 && ./a && ./b`},
	{name: "sanitizers", needs: "gcc", script: cSource + `
		for s in address undefined thread leak; do gcc -g -fsanitize=$s -o x x.c && ./x || exit 1; done`},
	{name: "gdb", needs: "gdb gcc", script: cSource + `gcc -g -o x x.c &&
		gdb -batch -ex 'break main' -ex run -ex bt ./x | grep -q '#0  *main' &&
		{ sleep 50 & } && gdb -batch -p $! -ex detach && kill $!`},
	{name: "strace", needs: "strace", script: `strace -f -o t sh -c true && grep -q execve t &&
		{ sleep 50 & } && p=$! && { timeout 1 strace -o t2 -p $p; kill $p; }`},
	{name: "valgrind", needs: "valgrind gcc", script: cSource + `gcc -g -o x x.c && valgrind -q --error-exitcode=9 ./x`},
	{name: "tmux with a socket in TMPDIR", needs: "tmux", script: `export TERM=xterm
		tmux -S $TMPDIR/s new-session -d 'echo hello >out; sleep 50' &&
		for i in $(seq 100); do test -s out && break; sleep .05; done
		tmux -S $TMPDIR/s list-sessions && tmux -S $TMPDIR/s kill-server && grep -q hello out`},
	{
		name: "script and job control", needs: "script",
		script: `script -qec 'tty && set -m && { sleep 50 & } && kill %1' /dev/null </dev/null`,
	},
	{
		name: "sqlite", needs: "sqlite3",
		script: `sqlite3 d 'pragma journal_mode=wal; create table t(a); insert into t values(1); select * from t'`,
	},
	{name: "ps, top, pgrep and pkill", needs: "ps pkill top", script: `cp /bin/sleep napper && { ./napper 50 & } &&
		sleep .1 && ps aux | grep -q nappe[r] && pgrep -x napper && top -bn1 | grep -q napper && pkill -x napper
		wait $!; test $? = 143`},
	{name: "lsof", needs: "lsof", script: `exec 5>kept; lsof -p $$ | grep -q kept`},
	{name: "ss and ip", needs: "ss ip", script: `ss -ltn | grep -q 8003 && ip addr show lo`},
	{name: "df, free, nproc, uptime", needs: "df free nproc uptime", script: `df . && free && nproc && uptime`},
	{
		name: "nice, taskset and others on what they start", needs: "nice taskset timeout nohup setsid chrt ionice",
		script: `nice -n 5 true && taskset -c 0 true && chrt -b 0 true && ionice -c 3 true &&
		(ulimit -n 64 && true) && timeout 5 true && nohup true && setsid -w true`,
	},
	{name: "files", script: `mkdir a b && echo x >a/f && mv a/f b/f && ln b/f a/g && ln -s ../b/f a/h && cat a/h &&
		sed -i s/x/y/ b/f && grep y a/h && cp -a b c && rm -r b && tar czf t.tgz c && tar xzf t.tgz &&
		mkfifo p && { echo z >p & } && grep z p && chmod 600 c/f && touch -d yesterday c/f && truncate -s 5 c/f &&
		dd if=/dev/zero of=big bs=1M count=2 status=none && find . -name f | xargs -P2 ls -l &&
		mkdir $TMPDIR/d && touch $TMPDIR/d/f && mv $TMPDIR/d . && ln d/f $TMPDIR`},
	{name: "temporary files", script: `f=$(mktemp) && echo x >$f && mv $f . && d=$(mktemp -d) && test -d $d &&
		seq 200000 | sort -R | sort -n -S1M -o s`},
	{name: "bash", script: `cat <(echo x) && echo y | cat /dev/stdin && cat <<<z && : >/dev/null && exec 7</dev/fd/0 &&
		head -c1 /dev/urandom >/dev/null && coproc cat`},
	{name: "/dev/stdout and /dev/stderr", script: `echo e >/dev/stderr && echo x | tee /dev/stdout`},
	{name: "flock", needs: "flock", script: `flock l true && flock $TMPDIR true`},
	{name: "sockets by abstract name", needs: "python3", script: `python3 -c '
import socket, os
s = socket.socket(socket.AF_UNIX); s.bind("\0test-%d" % os.getpid()); s.listen()
if os.fork() == 0:
    c = socket.socket(socket.AF_UNIX); c.connect("\0test-%d" % os.getppid()); os._exit(0)
os._exit(os.wait()[1])'`},
	{name: "ssh-agent", needs: "ssh-agent ssh-keygen ssh-add", script: `eval $(ssh-agent) &&
		ssh-keygen -qt ed25519 -N '' -f k && ssh-add k && ssh-add -l; r=$?; ssh-agent -k; exit $r`},
	{name: "gpg", needs: "gpg gpg-agent", script: `gpg --batch --passphrase '' --quick-gen-key a@b default default never &&
		echo x | gpg -se -r a@b >e && gpg -d e; r=$?; gpgconf --kill all; exit $r`},
	{name: "perl", needs: "perl", script: `perl -MFile::Temp=tempfile -MIO::Socket::INET -e '
		tempfile(); IO::Socket::INET->new(Listen=>1) or die; open F, "<", "/etc/passwd" or die'`},
	{name: "java", needs: "java", script: `java -version`},
	{name: "curl", needs: "curl", script: `curl -sf http://127.0.0.1:8003/health`},
	{
		name: "openssl", needs: "openssl",
		script: `openssl req -x509 -newkey rsa:2048 -nodes -keyout k -out c -subj /CN=x -days 1`,
	},
	{name: "the session says what separates it", script: `test "$TROUPE_ISOLATION" = session`},
}

const (
	goModule = `mkdir m && cd m && export GOFLAGS=-mod=mod GOCACHE=/cache GOPROXY=off &&
		printf 'module m\n\ngo 1.24\n' >go.mod && printf 'package main\n\nfunc main() { println("hello") }\n' >m.go &&
		printf 'package main\n\nimport "testing"\n\n%s\n' \
			'func TestIt(t *testing.T) { c := make(chan int); go func() { c <- 1 }(); <-c }' >m_test.go && `
	cSource = `printf '#include <pthread.h>\n#include <stdlib.h>\nstatic void *f(void *p) { free(p); return 0; }\n%s\n' \
		'int main(void) { pthread_t t; pthread_create(&t, 0, f, malloc(9)); pthread_join(t, 0); return 0; }' >x.c && `
)

// broken are programs that do not work, with what they say.
var broken = []program{
	{
		name: "a file in /tmp", script: `echo x >/tmp/x`,
		says: "Permission denied", symptom: "`Permission denied` on /tmp/x", wayOut: "--isolation-shared-tmp",
	},
	{
		name: "tmux with its default socket", needs: "tmux", script: `unset TMUX_TMPDIR; tmux new-session -d true`,
		says: "tmp", symptom: "`tmux -S $TMPDIR/s`", wayOut: "--isolation-shared-tmp",
	},
	{
		name: "ls /", script: `ls /`,
		says: "Permission denied", symptom: "`ls: cannot open directory '/': Permission denied`",
	},
	{
		name: "a cache that is mounted", script: `touch /shared/x`,
		says: "Permission denied", symptom: "`isolation.write: [/cache]`", wayOut: "--isolation-write=/shared",
	},
	{
		name: "link into /dev/shm", script: `touch f && ln f /dev/shm/f-$$`,
		says: "Invalid cross-device link", symptom: "`Invalid cross-device link`",
	},
	{
		name: "renice", needs: "renice", script: `sleep 50 & renice -n 5 -p $!; r=$?; kill $!; exit $r`,
		says: "Operation not permitted", symptom: "`renice`, `taskset -p`, `prlimit --pid`",
	},
	{
		name: "taskset -p", needs: "taskset", script: `sleep 50 & taskset -cp 0 $!; r=$?; kill $!; exit $r`,
		says: "Operation not permitted", symptom: "`renice`, `taskset -p`, `prlimit --pid`",
	},
	{
		name: "prlimit --pid", needs: "prlimit", script: `sleep 50 & prlimit --nofile=9 --pid $!; r=$?; kill $!; exit $r`,
		says: "Operation not permitted", symptom: "`renice`, `taskset -p`, `prlimit --pid`",
	},
	{name: "threads that are pinned", needs: "gcc", script: `cat >x.c <<-'END' && gcc -o x x.c && ./x
		#define _GNU_SOURCE
		#include <pthread.h>
		#include <stdio.h>
		#include <string.h>
		#include <unistd.h>
		static void *f(void *p) { sleep(1); return p; }
		int main(void) {
			pthread_t t; cpu_set_t c; CPU_ZERO(&c); CPU_SET(0, &c);
			pthread_create(&t, 0, f, 0);
			int e = pthread_setaffinity_np(t, sizeof c, &c);
			puts(strerror(e));
			return e;
		}
		END`, says: "Operation not permitted", symptom: "`pthread_setaffinity_np`"},
	{
		name: "ipcmk", needs: "ipcmk", script: `ipcmk -M 100`, says: "Operation not permitted",
		symptom: "`shmget`, `semget`: `Operation not permitted`", wayOut: "--isolation-sysvipc",
	},
	{
		name: "oom_score_adj", script: `echo 500 >/proc/self/oom_score_adj`,
		says: "Permission denied", symptom: "/proc/self/oom_score_adj, /proc/self/comm",
	},
	{
		name: "comm", script: `echo x >/proc/self/comm`,
		says: "Permission denied", symptom: "/proc/self/oom_score_adj, /proc/self/comm",
	},
	{
		name: "PostgreSQL", needs: "/usr/lib/postgresql/*/bin/initdb",
		script: `PATH=$PATH:$(echo /usr/lib/postgresql/*/bin) initdb -D d`,
		says:   "could not create shared memory segment: Operation not permitted", symptom: "(PostgreSQL, fakeroot)",
		wayOut: "--isolation-sysvipc",
	},
	{
		name: "unshare", needs: "unshare", script: `unshare -Ur true`,
		says: "Operation not permitted", symptom: "mount, nested containers, a browser's own sandbox",
	},
}

// missing returns what a program needs and this machine lacks.
func (p *program) missing() (names []string) {
	for _, name := range strings.Fields(p.needs) {
		if strings.HasPrefix(name, "/") {
			if found, err := filepath.Glob(name); err != nil || len(found) == 0 {
				names = append(names, name)
			}
		} else if !inPod(name) {
			names = append(names, name)
		}
	}
	return names
}

func inPod(name string) bool {
	for dir := range strings.SplitSeq(podPath, ":") {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

// TestProgramsMatrix: what developers run works in a session with isolation, in the chart's pod.
// What does not work fails as docs/isolation.md says, beside the way out.
func TestProgramsMatrix(t *testing.T) {
	p := newIsolatedPod(t)
	for i := range programs {
		t.Run(programs[i].name, func(t *testing.T) { p.works(t, &programs[i]) })
	}
	table := symptoms(t)
	for i := range broken {
		t.Run(broken[i].name, func(t *testing.T) { p.breaks(t, &broken[i], table) })
	}
}

// TestWaysOut: with the options that docs/isolation.md names, what was broken works.
func TestWaysOut(t *testing.T) {
	p := newIsolatedPod(t, "--isolation-shared-tmp", "--isolation-write=/shared", "--isolation-sysvipc")
	table := symptoms(t)
	for i := range broken {
		b := &broken[i]
		t.Run(b.name, func(t *testing.T) {
			if b.wayOut == "" {
				p.breaks(t, b, table)
			} else {
				p.works(t, b)
			}
		})
	}
}

// withoutProc are programs that isolation.proc: none breaks.
var withoutProc = []program{
	{name: "ps", needs: "ps", script: "ps", says: "proc"},
	{name: "top", needs: "top", script: "top -bn1", says: "proc"},
	{name: "pgrep", needs: "pgrep", script: "pgrep -x bash", says: ""},
	{name: "lsof", needs: "lsof", script: "lsof -p $$", says: "proc"},
	{name: "gdb", needs: "gdb gcc", script: cSource + `gcc -g -o x x.c &&
		gdb -batch -ex 'break main' -ex run -ex bt ./x >o 2>&1; cat o && grep -q '#0  *main' o`, says: "proc"},
	{name: "ASAN", needs: "gcc", script: cSource + `gcc -fsanitize=address -o x x.c && ./x`, says: "proc"},
	{name: "process.memoryUsage()", needs: "node", script: `node -e 'process.memoryUsage()'`, says: "EACCES"},
}

// TestHiddenProcBreaks what docs/isolation.md says that it breaks, and no process can be seen.
func TestHiddenProcBreaks(t *testing.T) {
	p := newIsolatedPod(t, "--isolation-proc=none")
	table := symptoms(t)
	for i := range withoutProc {
		w := &withoutProc[i]
		w.symptom = w.name
		t.Run(w.name, func(t *testing.T) { p.breaks(t, w, table) })
	}
	p.breaks(t, &program{script: "cat /proc/1/cmdline", says: "Permission denied", symptom: "isolation.proc: none"}, table)
}

// newIsolatedPod starts a pod that separates sessions, or skips the test.
func newIsolatedPod(t *testing.T, runnerArgs ...string) *pod {
	t.Helper()
	needsPods(t)
	if err := confine.Available(); err != nil {
		t.Skip(err)
	}
	return newPod(t, nil, append([]string{"--isolation=session"}, runnerArgs...)...)
}

// symptoms returns the table of docs/isolation.md that leads from a symptom to the way out.
func symptoms(t *testing.T) string {
	t.Helper()
	_, table, _ := strings.Cut(page(t, "docs/isolation.md"), "\n## What breaks\n")
	table, _, _ = strings.Cut(table, "\n## ")
	return table
}

func (p *pod) works(t *testing.T, w *program) {
	t.Helper()
	if out, code := p.script(t, w); code != 0 {
		t.Errorf("exit code %d: %s", code, out)
	}
}

func (p *pod) breaks(t *testing.T, b *program, table string) {
	t.Helper()
	if !strings.Contains(table, b.symptom) {
		t.Errorf("docs/isolation.md does not say %s", b.symptom)
	}
	if out, code := p.script(t, b); code == 0 || !strings.Contains(out, b.says) {
		t.Errorf("exit code %d, %q, want %q", code, out, b.says)
	}
}

// script runs a program in a session of its own.
func (p *pod) script(t *testing.T, of *program) (output string, code int) {
	t.Helper()
	if missing := of.missing(); len(missing) > 0 {
		t.Skipf("not installed: %s", strings.Join(missing, ", "))
	}
	c := p.session("alice")
	defer c.Close()
	var out bytes.Buffer
	began := time.Now()
	done, err := c.Run(patiently(t), wire.ExecuteParams{Argv: []string{"/bin/bash", "-c", of.script}}, &out, &out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v", time.Since(began).Round(time.Millisecond))
	return out.String(), done.ExitCode
}
