"""What the tests share: the programs of the repository, a server to talk to, and the suite's test server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any, Self, Unpack

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "clients/python"
BUILD = PACKAGE / "build"

sys.path.insert(0, str(PACKAGE / "src"))

import troupe  # noqa: E402


def impatient(**options: Unpack[troupe.Options]) -> troupe.Options:
    """Options with which a client reconnects at once, so that tests do not wait."""
    options["backoff"] = (0.001, 0.01)
    return options


def build(name: str) -> Path:
    """Builds a program of the repository, and returns where it is."""
    path = BUILD / name.rsplit("/", 1)[-1]
    subprocess.run(["go", "build", "-o", path, f"./{name}"], cwd=ROOT, check=True)
    return path


class Program:
    """A program that runs beside a test."""

    def __init__(self, args: list[str | Path], pipe: str) -> None:
        pipes = {"stdin": subprocess.PIPE, pipe: subprocess.PIPE}
        self.process = subprocess.Popen(args, **pipes)  # type: ignore[call-overload]
        lines: IO[bytes] = getattr(self.process, pipe)
        self.lines = lines

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
        self.lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Suite(Program):
    """The server of the conformance suite, which ends when its standard input does."""

    def __init__(self) -> None:
        super().__init__([build("clients/conformance/testserver")], "stdout")
        self.url = self.lines.readline().decode().strip()


class Trouped(Program):
    """A server on loopback. Its log is read up to the line that says that it is ready."""

    def __init__(self, *args: str) -> None:
        self._dir = tempfile.mkdtemp(prefix="troupe-py-")
        flags = ["--listen=127.0.0.1:0", "--admin-listen=", "--log-format=json", "--cancel-grace=1s"]
        super().__init__([BUILD / "trouped", *flags, f"--data-dir={self._dir}", *args], "stderr")
        log = b""
        for line in self.lines:
            log += line
            if ready := re.search(rb'"msg":"ready".*"listen":"([^"]+)"', line):
                self.address = ready[1].decode()
                self.url = f"ws://{self.address}/ws"
                break
        else:
            raise RuntimeError(f"trouped did not start: {log.decode()}")
        self._drain = subprocess.Popen(["cat"], stdin=self.lines, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self.process.terminate()
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()  # the second does not wait
        super().stop()
        self._drain.wait()
        shutil.rmtree(self._dir, ignore_errors=True)


def build_trouped() -> None:
    """Builds trouped, its runner, and what moves files."""
    build("cmd/troupe-runner")
    build("cmd/troupe-files")
    build("cmd/trouped")


def start_pods(n: int, *args: str) -> list[Trouped]:
    """Starts several trouped that are one service."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        ports = [s.getsockname()[1] for s in sockets]
    peers = ",".join(f"pod-{i}=127.0.0.1:{port}" for i, port in enumerate(ports))
    return [
        Trouped(f"--pod=pod-{i}", f"--peers={peers}", "--peer-insecure", f"--peer-listen=127.0.0.1:{port}", *args)
        for i, port in enumerate(ports)
    ]


def call(method: str, url: str, body: object = None) -> Any:
    """Makes a request of the suite's control API, and raises what it answers."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=40) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as e:
        with e:
            raise AssertionError(f"{method} {url}: {e.code} {e.read().decode()}") from None


async def acall(method: str, url: str, body: object = None) -> Any:
    return await asyncio.to_thread(call, method, url, body)


def fill(begin: int, end: int) -> bytes:
    """The bytes of a range of the suite's transcript."""
    return bytes(33 + (p + p // 256 * 7) % 94 for p in range(begin, end))


class AsyncTestCase(unittest.IsolatedAsyncioTestCase):
    """Runs in asyncio's debug mode, and fails if a test leaves a task behind or makes asyncio complain."""

    async def asyncSetUp(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 60  # a busy machine is no fault
        self.complaints: list[str] = []
        loop.set_exception_handler(lambda _, context: self.complaints.append(str(context)))
        self._before = asyncio.all_tasks()

    async def asyncTearDown(self) -> None:
        left = asyncio.all_tasks() - self._before - {asyncio.current_task()}
        self.assertFalse(left, "tasks are left behind")
        self.assertFalse(self.complaints)


def environment() -> dict[str, str]:
    """For a program that uses the package: with warnings, but not those of asyncio that the machine is busy."""
    path = os.pathsep.join(filter(None, [str(PACKAGE / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "always"}
