#!/usr/bin/env python3
"""Records what programs draw on a terminal, for the tests: python3 testdata/record.py [NAME...]

It writes NAME.cast.gz, an asciicast (https://docs.asciinema.org/manual/asciicast/v2/) without times. What is typed
is below. Needs bash, vim, less, top, htop, mc, nano and tmux; a recording that is there stays good without them.
"""

import fcntl
import gzip
import json
import os
import pty
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

here = Path(__file__).parent
home = Path(tempfile.mkdtemp())

environment = {
    "HOME": str(home),
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "TERM": "xterm-256color",
    "COLORTERM": "truecolor",
    "LANG": "C.UTF-8",
    "PS1": "$ ",
    "HISTFILE": "",
    "TMUX_TMPDIR": str(home),
}

code = """#include <stdio.h>

/* Prints %d lines. */
int main(int argc, char **argv) {
\tfor (int i = 0; i < argc; i++) {
\t\tprintf("%s has 漢字 and a long line that does not fit into the width of the terminal, so that it is wrapped\\n", argv[i]);
\t}
\treturn 0;
}
"""

progress = """
import sys, time
for i in range(0, 101, 4):
    bar = "█" * (i // 4) + "▏" * (i < 100)
    print(f"\\r\\x1b[32m{bar:26}\\x1b[0m {i:3}% \\x1b[2m{'⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏'[i % 10]}\\x1b[0m", end="", flush=True)
    time.sleep(0.01)
print("\\r\\x1b[Kdone")
for i in range(5):
    print(f"\\x1b[1A\\x1b[2K{i} of 5\\n", end="", flush=True)
"""

colors = """
for i in range(256):
    print(f"\\x1b[48;5;{i}m{i:4}", end="\\x1b[0m\\n" if i % 16 == 15 else "")
for y in range(4):
    print("".join(f"\\x1b[38;2;{x*3};{y*60};{255-x*3};48;2;{y*20};{x};40m▀" for x in range(78)), end="\\x1b[0m\\n")
print("\\x1b[1mbold\\x1b[22m \\x1b[2mfaint\\x1b[22m \\x1b[3mitalic\\x1b[23m \\x1b[4munderlined\\x1b[4:3mcurly\\x1b[58:2::255:0:0mred\\x1b[0m "
      "\\x1b[7minverse\\x1b[27m \\x1b[9mstruck\\x1b[29m \\x1b[53mover\\x1b[0m \\x1b]8;;https://example.com/\\x1b\\\\link\\x1b]8;;\\x1b\\\\")
text = "漢字かな交じり文、한국어 텍스트, e\\u0301 a\\u0308 n\\u0303, नमस्ते, สวัสดี, עברית, العربية, 👩\\u200d👩\\u200d👧 👍🏽 🇩🇪🇫🇷 ❤\\ufe0f 1\\ufe0f\\u20e3 "
print(text * 4)
"""


def write_files():
    (home / "main.c").write_text(code)
    (home / "progress.py").write_text(progress)
    (home / "colors.py").write_text(colors)
    (home / "long.txt").write_text("".join(f"{i}: " + "word " * (i % 40) + "\n" for i in range(200)))
    tree = home / "tree"
    for i in range(12):
        (tree / f"folder{i}").mkdir(parents=True)
        for j, name in enumerate(["read.me", "run.sh", "pic.png", "pack.tar.gz", "höhe.txt", "漢字.md"]):
            file = tree / f"folder{i}" / name
            file.write_text("x" * (i * j))
            file.chmod(0o755 if name.endswith(".sh") else 0o644)
        os.symlink("run.sh", tree / f"folder{i}" / "link")


ENTER, ESC, TAB, UP, DOWN, RIGHT, LEFT = "\r", "\x1b", "\t", "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D"


def ctrl(letter):
    return chr(ord(letter) & 0x1F)


def size(cols, rows):
    return (cols, rows)


bash = ["bash", "--norc", "--noprofile", "-i"]

# A program, and what is typed: text, a tuple for another size, or a number of seconds to wait.
recordings = {
    "bash": (bash, [
        "cd; ls tree", ENTER, "echo hello wrold", LEFT, LEFT, LEFT, "\x7f\x7f", "or", ctrl("e"), " and more", ENTER,
        "echo " + "a long line that the shell wraps by itself because it has no room " * 3, ctrl("a"), RIGHT, "x", ctrl("e"),
        ctrl("w"), ctrl("w"), ENTER, ctrl("r"), "hello", LEFT, ENTER, "cat ma", TAB, ENTER, "printf 'no newline'", ENTER,
        "echo 漢字 👍🏽 e\u0301", LEFT, LEFT, LEFT, "x", ENTER, size(60, 20), "seq 30", ENTER, size(100, 30), UP, UP, ENTER,
        "tree=3; for i in 1 2 3", ENTER, "do echo $i", ENTER, "done", ENTER, ctrl("l"), "clear", ENTER, "false; echo $?",
        ENTER, "cat long.txt | head -30", ENTER, size(40, 12), ENTER, "exit", ENTER,
    ]),
    "vim": (["vim", "-u", "NONE", "-c", "syntax on|set number mouse=a ttymouse=sgr nocp title hlsearch laststatus=2 bg=dark", "main.c"], [
        0.4, "jjjj", "ofoo();" + ESC, "ggVG", ESC, "/printf", ENTER, "n", ":split long.txt", ENTER, ctrl("f"), ctrl("f"),
        "G", "gg", "10dd", "u", ctrl("w") + "w", "5x", "A more 漢字 text" + ESC, size(100, 30), 0.3, ":vsplit", ENTER,
        ":set list", ENTER, "v3j", ESC, "\x1b[<0;10;5M", "\x1b[<0;10;5m", ":set invwrap", ENTER, size(70, 20), 0.3,
        ":help", ENTER, 0.3, ctrl("d"), ctrl("e"), ctrl("y"), ":qa!", ENTER,
    ]),
    "less": (["less", "-R", "-M", "long.txt"], [
        0.2, " ", " ", "b", "/39:", ENTER, "n", "G", "g", "j", "j", "k", "-S" + ENTER, RIGHT, LEFT, size(60, 15), 0.2, " ", "d", "u",
        "h", 0.2, "q", "q",
    ]),
    "top": (bash, ["top -d 0.3 -p $$", ENTER, 0.8, "z", "c", "x", 0.5, size(100, 20), 0.7, "h", 0.2, "q", "1", 0.5, "q", "exit", ENTER]),
    "htop": (bash, ["htop -d 3 -p $$", ENTER, 0.8, "t", DOWN, 0.4, "\x1bOQ", 0.3, DOWN, RIGHT, 0.3, "\x1b[21~", 0.3, size(60, 18), 0.6, "q", "exit", ENTER]),
    "mc": (["mc", "--nosubshell", "tree/folder1", "tree"], [0.6, DOWN, DOWN, TAB, DOWN, ENTER, 0.2, "\x1bOR", 0.3, "q", "\x1b[20~", 0.3, DOWN, DOWN, 0.2, ESC + ESC, 0.5,
        size(70, 20), 0.4, "\x1b[<0;10;5M\x1b[<0;10;5m", 0.2, "\x1b[21~", 0.2, ENTER, 0.3]),
    "nano": (["nano", "--syntax=none", "--linenumbers", "main.c"], [0.3, DOWN, DOWN, ctrl("k"), ctrl("u"), ctrl("u"), "more 漢字 text", ctrl("w"), "argv", ENTER,
        size(60, 15), 0.3, ctrl("g"), 0.2, ctrl("x"), ctrl("x"), "n"]),
    "tmux": (["tmux", "-L", "record", "-f", "/dev/null", "new", *bash[:1], "--norc"], [
        0.4, "tmux set -g status-right '' \\; set -g mouse on \\; rename-window one", ENTER, 0.2, "clear; ls -l --color tree | head -5", ENTER, 0.2, ctrl("b") + "%", 0.4,
        "seq 50", ENTER, 0.2, ctrl("b") + '"', 0.3, "cat main.c", ENTER, 0.2, ctrl("b") + "o", 0.1, "echo 漢字", ENTER, size(100, 30),
        0.4, ctrl("b") + "z", 0.2, ctrl("b") + "z", 0.2, ctrl("b") + "[", 0.1, UP, UP, "q", 0.1, ctrl("b") + "c", 0.3, "python3 ../colors.py", ENTER, "python3 colors.py", ENTER, 0.4, size(80, 24), 0.3,
        "tmux kill-server", ENTER, 0.2,
    ]),
    "progress": (["python3", "progress.py"], [1.0]),
    "colors": (["python3", "colors.py"], [0.5]),
    "ls": (["ls", "-lR", "--color", "--time-style=long-iso", "tree"], [0.3]),
}


def run(name, cols=80, rows=24):
    argv, keys = recordings[name]
    child, fd = pty.fork()
    if child == 0:
        os.chdir(home)
        os.execvpe(argv[0], argv, environment)
    events = []

    def resize(c, r):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", r, c, 0, 0))

    def read(seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and select.select([fd], [], [], left)[0]:
            try:
                data = os.read(fd, 65536)
            except OSError:
                return False
            if not data:
                return False
            if events and isinstance(events[-1], bytes):
                events[-1] += data
            else:
                events.append(data)
        return True

    resize(cols, rows)
    os.kill(child, signal.SIGWINCH)
    read(0.3)
    for key in keys:
        if isinstance(key, tuple):
            resize(*key)
            events.append(key)
            going = read(0.2)
        elif isinstance(key, float):
            going = read(key)
        else:
            try:
                os.write(fd, key.encode())
            except OSError:
                break
            going = read(0.08)
        if not going:
            break
    read(1)
    os.kill(child, signal.SIGKILL)
    os.close(fd)
    os.waitpid(child, 0)

    out = [json.dumps({"version": 2, "width": cols, "height": rows, "title": name})]
    for event in events:
        if isinstance(event, tuple):
            out.append(json.dumps([0, "r", f"{event[0]}x{event[1]}"]))
        else:
            text = event.decode(errors="replace").replace(str(home), "/home/user")
            out.append(json.dumps([0, "o", text], ensure_ascii=False))
    with open(here / f"{name}.cast.gz", "wb") as file:
        file.write(gzip.compress("\n".join(out).encode() + b"\n", 9, mtime=0))
    print(name, sum(len(e) for e in events if isinstance(e, bytes)), "bytes", (here / f"{name}.cast.gz").stat().st_size, "compressed")


write_files()
try:
    for name in sys.argv[1:] or recordings:
        run(name)
finally:
    shutil.rmtree(home)
