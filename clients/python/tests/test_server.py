"""What the client does with a real trouped."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import tracemalloc
import unittest
from contextlib import ExitStack
from pathlib import Path

from support import (
    PACKAGE,
    AsyncTestCase,
    Suite,
    Trouped,
    acall,
    build_trouped,
    environment,
    impatient,
    start_pods,
)

import troupe

SIZE = 10 << 20
NUMBERS = ["sh", "-c", f"seq 1 1600000 | head -c {SIZE}"]
# Ignores SIGTERM, as does its child, whose pid it prints: only SIGKILL ends the tree.
STUBBORN = "trap '' TERM; sleep 600 & echo $!; wait; wait"


def digest_of_numbers() -> str:
    return hashlib.sha256("".join(f"{i}\n" for i in range(1, 1_600_001)).encode()[:SIZE]).hexdigest()


def is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class ServerTestCase(AsyncTestCase):
    server: Trouped

    @classmethod
    def setUpClass(cls) -> None:
        build_trouped()
        cls.server = Trouped()
        cls.addClassCleanup(cls.server.stop)

    def open(self) -> troupe.Opening:
        return troupe.open(self.server.url, **impatient())


class Programs(ServerTestCase):
    async def program(self, name: str) -> str:
        code = (PACKAGE / "tests" / name).read_text()
        self.assertIn(f"```python\n{code}```", (PACKAGE / "README.md").read_text(), f"README.md differs from {name}")
        env = {**environment(), "TROUPE_SERVER": self.server.url}
        process = await asyncio.create_subprocess_exec(
            sys.executable, PACKAGE / "tests" / name, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        stdout, stderr = await process.communicate()
        self.assertEqual(stderr.decode(), "")
        return stdout.decode()

    async def test_the_quick_start_of_the_readme_runs_as_it_is_printed(self) -> None:
        self.assertEqual(await self.program("quickstart.py"), "step 1\nstep 2\nstep 3\nexit code 3, exited\n")

    async def test_the_synchronous_example_of_the_readme_runs_as_it_is_printed(self) -> None:
        self.assertEqual(await self.program("quickstart_sync.py"), "Linux\napple\npear\n")


class Connecting(ServerTestCase):
    async def test_the_token_provider_is_asked_for_every_connection(self) -> None:
        calls = 0

        async def token() -> str:
            nonlocal calls
            calls += 1
            return "correct-horse-battery-staple-1"

        with ExitStack() as stack:
            tokens = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "tokens"
            tokens.touch(0o600)
            tokens.write_text("alice correct-horse-battery-staple-1\n")
            closed = stack.enter_context(Trouped("--auth=token", f"--token-file={tokens}"))
            session = await troupe.open(closed.url, token=token)
            saved = await session.detach()
            async with troupe.attach(closed.url, saved, token=token) as again:
                self.assertEqual((await again.run("echo $((6 * 7))")).stdout, "42\n")
            self.assertEqual(calls, 2)
            with self.assertRaises(troupe.HandshakeError) as refused:
                await troupe.open(closed.url, token=lambda: "wrong")
            self.assertEqual(refused.exception.status, 401)
            with self.assertRaisesRegex(ValueError, "line break"):
                await troupe.open(closed.url, token=tokens.read_text())

    async def test_name_labels_and_resume_window_reach_the_server(self) -> None:
        labels = {"team": "build", "run": "4711"}
        async with troupe.open(self.server.url, name="nightly", labels=labels, resume_window=77) as session:
            status = await session.status()
            self.assertEqual((status.name, status.labels), ("nightly", labels))
            self.assertEqual(status.limits.resume_window, 77)
        with self.assertRaises(troupe.HandshakeError) as refused:
            await troupe.open(self.server.url, name="No!")
        self.assertEqual(refused.exception.status, 400)
        self.assertIn("name", refused.exception.body)

    async def test_a_socket_of_the_callers_own_is_used(self) -> None:
        asked = []

        async def connect(host: str, port: int) -> socket.socket:
            asked.append((host, port))
            sock = socket.socket()
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(self.server.address.split(":")[1])))
            return sock

        async with troupe.open("ws://troupe.example.com/ws", connect=connect) as session:
            self.assertEqual((await session.run("echo hello")).stdout, "hello\n")
        self.assertEqual(asked, [("troupe.example.com", 80)])

    async def test_an_ssl_context_decides_which_certificates_are_trusted(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            cert, key = f"{directory}/cert.pem", f"{directory}/key.pem"
            subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
            files = ["-keyout", key, "-out", cert]
            new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *subject]
            subprocess.run(new, check=True, capture_output=True)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert, key)
            host, port = self.server.address.split(":")
            front = await asyncio.start_server(lambda r, w: forward(r, w, host, int(port)), "localhost", ssl=context)
            async with front:
                url = f"wss://localhost:{front.sockets[0].getsockname()[1]}/ws"
                trusting = ssl.create_default_context(cafile=cert)
                async with troupe.open(url, **impatient(ssl=trusting)) as session:
                    data = "x" * (1 << 20)
                    end = await session.run("cat", stdin=False)
                    self.assertEqual(end.exit_code, 0)
                    count = await session.exec("wc -c", stdin=True)
                    await count.write(data)
                    await count.close_input()
                    text = b"".join([piece.data async for piece in count.output])
                    self.assertEqual(int(text), len(data))
                # The server in front complains of a client that goes, and has the same loop.
                asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
                with self.assertRaisesRegex(troupe.TransportError, "certificate"):
                    await troupe.open(url)

    async def test_what_the_server_could_not_read_is_refused_here(self) -> None:
        async with self.open() as session:
            with self.assertRaisesRegex(ValueError, "not UTF-8"):
                await session.exec(["cat", os.fsdecode(b"\xff")])
            with self.assertRaisesRegex(TypeError, "unknown option 'tiemout'"):
                await session.exec("true", tiemout=1)  # type: ignore[call-arg]
            with self.assertRaisesRegex(TypeError, "unknown option 'windw'"):
                troupe.open(self.server.url, windw=1)  # type: ignore[call-arg]
            with self.assertRaises(troupe.TooLargeError):
                await session.exec(["echo", "x" * session.limits.max_message])
            self.assertEqual((await session.run("true")).exit_code, 0)
        for url in ("localhost:8003", "ftp://localhost/ws"):
            with self.assertRaisesRegex(ValueError, "wss://"):
                await troupe.open(url)
        with self.assertRaises(troupe.TransportError):
            await troupe.open("ws://127.0.0.1:1/ws")


async def forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, works: asyncio.Event | None = None
) -> None:
    """Connects a connection to another server, until both directions have ended. Nothing passes unless it works."""
    there, back = await asyncio.open_connection(host, port)

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                if works:
                    await works.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()

    await asyncio.gather(copy(reader, back), copy(there, writer))


class Cuts(AsyncTestCase):
    suite: Suite

    @classmethod
    def setUpClass(cls) -> None:
        build_trouped()
        cls.suite = Suite()
        cls.addClassCleanup(cls.suite.stop)

    async def proxy(self, pods: list[Trouped], cuts: int, max_bytes: int) -> tuple[str, str]:
        """Starts a proxy that cuts connections, and returns its URL for clients and for the test."""
        seed = int(os.environ.get("SEED", random.randrange(1_000_000)))
        print(f"SEED={seed}")
        wanted = {"targets": [p.address for p in pods], "cuts": cuts, "max_bytes": max_bytes, "seed": seed}
        proxy = await acall("POST", f"{self.suite.url}/proxies", wanted)
        return f"ws://{proxy['address']}/ws", proxy["url"]

    async def test_10_mib_through_50_random_cuts_and_two_pods(self) -> None:
        pods = await asyncio.to_thread(start_pods, 2)
        for pod in pods:
            self.addCleanup(pod.stop)
        url, control = await self.proxy(pods, 50, 350_000)
        resumed = 0

        def notice(notice: troupe.Notice) -> None:
            nonlocal resumed
            resumed += isinstance(notice, troupe.Resumed)

        want = digest_of_numbers()
        async with troupe.open(url, **impatient(open_retry=30, on_notice=notice)) as session:
            while (await acall("GET", control))["cuts"] < 50:
                digest = hashlib.sha256()
                await session.run(NUMBERS, retain="unread", on_output=lambda piece: digest.update(piece.data))
                self.assertEqual(digest.hexdigest(), want)
        self.assertGreaterEqual(resumed, 40)

    async def test_input_through_30_cuts(self) -> None:
        pods = [Trouped()]
        self.addCleanup(pods[0].stop)
        url, _ = await self.proxy(pods, 30, 3000)  # answers to input are short
        data = random.randbytes(4 << 20)
        async with troupe.open(url, **impatient(open_retry=30)) as session:
            digest = await session.exec(["sha256sum"], stdin=True)
            await digest.write(data)
            await digest.close_input()
            text = b"".join([piece.data async for piece in digest.output])
        self.assertEqual(text.split()[0].decode(), hashlib.sha256(data).hexdigest())

    async def test_a_terminal_gets_each_key_once_through_30_cuts(self) -> None:
        pods = [Trouped()]
        self.addCleanup(pods[0].stop)
        url, _ = await self.proxy(pods, 30, 3000)
        data = random.randbytes(1 << 20)
        command = f"stty raw -echo; echo ready; head -c {len(data)} | sha256sum"
        async with troupe.open(url, **impatient(open_retry=30)) as session:
            e = await session.exec(command, terminal={"cols": 80, "rows": 24})
            text = b""
            async for event in e.events:
                if isinstance(event, troupe.Output):
                    text += event.data
                    if event.data.endswith(b"ready\n"):
                        await e.write(data)
        self.assertIn(hashlib.sha256(data).hexdigest(), text.decode())


class Terminal(ServerTestCase):
    async def test_a_shell_is_used_like_by_a_person(self) -> None:
        async with self.open() as session:
            shell = await session.exec(
                ["bash", "--norc", "-i"], terminal={"cols": 80, "rows": 24}, env={"PS1": "ready> "}
            )
            text = ""
            sizes = []

            async def shows(wanted: str) -> None:
                nonlocal text
                while wanted not in text:
                    event = await shell.next()
                    assert event, text
                    if isinstance(event, troupe.Output):
                        text += event.data.decode()
                    if isinstance(event, troupe.Resized):
                        sizes.append((event.cols, event.rows))
                text = text.partition(wanted)[2]

            await shows("ready> ")
            await shell.resize(100, 30)
            await shell.write("stty size\r")
            await shows("30 100\r\n")
            await shell.write("read -s -p 'Pass''word: ' X; echo got ${#X}\r")
            await shows("Password: ")
            await shell.write("horse\r")
            await shows("got 5\r\n")
            self.assertEqual(sizes, [(80, 24), (100, 30)])
            saved = session.save()
            saved["offsets"] = {shell.id: 0}
            async with troupe.attach(self.server.url, saved, **impatient()) as other:
                terminal = (await session.status()).executions[shell.id].terminal
                self.assertEqual(terminal and (terminal["cols"], terminal["rows"]), (100, 30))
                await other.executions[shell.id].write("exit 3\r")  # both may type
                await shows("exit")
                shell.discard()
                self.assertEqual((await shell.wait()).exit_code, 3)
                await other.leave()


class Output(ServerTestCase):
    async def test_a_slow_loop_holds_no_more_than_its_window(self) -> None:
        window = 256 << 10
        async with troupe.open(self.server.url, window=window) as session:
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            slow = await session.exec(NUMBERS)
            size = most = count = 0
            async for piece in slow.output:
                size += len(piece.data)
                count += 1
                if count % 20 == 0:
                    await asyncio.sleep(0.02)
                    most = max(most, tracemalloc.get_traced_memory()[0])
        print(f"{size} bytes went through a window of {window}; at most {most} were held")
        self.assertEqual(size, SIZE)
        self.assertGreater(most, window / 2, "the loop was not slow")
        self.assertLess(most, 4 * window)

    async def test_events_come_in_order(self) -> None:
        async with self.open() as session:
            e = await session.exec("trap 'echo int; exit 7' INT; echo ready; while :; do sleep 0.05; done")
            names = []
            async for event in e.events:
                names.append(event.state if isinstance(event, troupe.StateChange) else type(event).__name__)
                if names.count("Output") == 1 and names[-1] == "Output":
                    await e.pause()
                    await e.resume()
                    await e.signal("INT")
            self.assertEqual(names, ["started", "Output", "paused", "resumed", "Output", "Completed"])
            self.assertEqual((await e.wait()).exit_code, 7)

    async def test_a_gap_is_an_error_of_the_loop_and_the_next_goes_on(self) -> None:
        async with troupe.open(self.server.url, window=4096) as session:
            e = await session.exec(["seq", "200000"], retain="last", scrollback=65536, framing="raw")
            while not (await session.status()).executions[e.id].completed:
                await asyncio.sleep(0.05)
            seen = missing = 0
            while not e.completed or seen + missing < e.completed.output_bytes:
                try:
                    async for piece in e.output:
                        seen += len(piece.data)
                except troupe.GapError as gap:
                    missing += gap.missing
                    self.assertEqual((gap.offset, e.offset), (seen + missing, seen + missing))
            self.assertGreater(missing, 0)
            self.assertEqual(seen + missing, (await e.wait()).output_bytes)

    async def test_both_streams_and_the_error_of_a_command_that_cannot_start(self) -> None:
        async with self.open() as session:
            result = await session.run("echo out; echo err >&2; exit 3")
            self.assertEqual((result.stdout, result.stderr, result.exit_code), ("out\n", "err\n", 3))
            with self.assertRaises(troupe.StartFailedError) as failed:
                await session.exec(["nosuch-command"])
            self.assertEqual(failed.exception.data["exit_code"], 127)


class Cancellation(ServerTestCase):
    def run_that_is_cancelled(self, session: troupe.Session) -> tuple[asyncio.Task[troupe.Result], list[int]]:
        """Runs STUBBORN until it tells its pid, which the list then has."""
        pids: list[int] = []

        def first(piece: troupe.Output) -> None:
            pids.append(int(piece.data))
            run.cancel()

        run = asyncio.create_task(session.run(STUBBORN, on_output=first))
        return run, pids

    async def test_run_raises_cancelled_error_when_the_tree_is_dead(self) -> None:
        async with self.open() as session:
            run, pids = self.run_that_is_cancelled(session)
            with self.assertRaises(asyncio.CancelledError):
                await run
            self.assertTrue(is_dead(pids[0]), "run has returned before the tree was dead")
            self.assertEqual((await session.run("echo on")).stdout, "on\n")

    async def test_a_timeout_around_run_cancels_the_command(self) -> None:
        pids: list[int] = []
        async with self.open() as session:
            with self.assertRaises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await session.run("echo $$; exec sleep 600", on_output=lambda p: pids.append(int(p.data)))
            self.assertTrue(is_dead(pids[0]))

    async def test_a_second_cancellation_ends_the_waiting_and_not_the_cancelling(self) -> None:
        async with self.open() as session:
            run, pids = self.run_that_is_cancelled(session)
            while not pids:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            self.assertFalse(run.done())
            run.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await run
            self.assertFalse(is_dead(pids[0]), "the grace of 1 s has not passed yet")
            async with asyncio.timeout(20):
                while not is_dead(pids[0]):
                    await asyncio.sleep(0.02)

    async def test_exec_that_is_cancelled_leaves_no_command_behind(self) -> None:
        async with self.open() as session:
            cancelled = 0
            for i in range(8):
                starting = asyncio.create_task(session.exec("sleep 600"))
                for _ in range(i):
                    await asyncio.sleep(0)  # at a different point each time
                starting.cancel()
                await asyncio.wait([starting])
                if starting.cancelled():
                    cancelled += 1
                else:
                    async with starting.result():
                        pass
            self.assertGreater(cancelled, 2)
            self.assertEqual(session.executions, {})
            states = [e.state for e in (await session.status()).executions.values()]
            self.assertNotEqual(states, [], "none was cancelled after it was sent")
            self.assertEqual(set(states), {"exited"})

    async def test_exec_that_is_cancelled_twice_does_not_wait_and_leaves_no_command_behind(self) -> None:
        async with self.open() as session:
            starting = asyncio.create_task(session.exec("sleep 600"))
            await asyncio.sleep(0)  # it is sent
            starting.cancel()
            await asyncio.sleep(0)
            starting.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await starting
            async with asyncio.timeout(10):
                while [e.state for e in (await session.status()).executions.values()] != ["exited"]:
                    await asyncio.sleep(0.02)

    async def test_cancelling_anything_else_bounds_the_waiting_only(self) -> None:
        async with self.open() as session:
            cat = await session.exec("echo ready; sleep 0.5; cat; echo end", stdin=True, framing="raw")
            for waiting in (cat.wait, lambda: cat.write("x" * 1_000_000), cat.pause):
                with self.assertRaises(TimeoutError):
                    async with asyncio.timeout(0 if waiting == cat.pause else 0.1):
                        await waiting()
            await cat.resume()
            self.assertIsNone(cat.completed)
            await cat.close_input()
            data = b"".join([piece.data async for piece in cat.output])
            self.assertTrue(data.startswith(b"ready\nx") and data.endswith(b"xend\n"), data[-20:])
            self.assertEqual((await cat.wait()).exit_code, 0)

    async def test_an_execution_that_leaves_its_block_is_cancelled(self) -> None:
        async with self.open() as session:
            async with await session.exec("yes | head -c 3000000; sleep 600") as e:
                pass
            completed = (await session.status()).executions[e.id].completed
            self.assertEqual(completed and completed.reason, "canceled")

    async def test_a_session_that_leaves_its_block_ends_on_the_server(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            async with self.open() as session:
                saved = session.save()
                raise ZeroDivisionError
        with self.assertRaises(troupe.NoSessionError):
            await troupe.attach(self.server.url, saved)
        with self.assertRaises(troupe.ClosedError):
            await session.exec("true")

    async def test_close_that_is_cancelled_leaves_nothing_behind(self) -> None:
        for turns in range(6):
            session = await self.open()
            await session.exec("sleep 600")
            closing = asyncio.create_task(session.close())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await closing
            await session.close()
            self.assertEqual(asyncio.all_tasks(), {asyncio.current_task()})

    async def test_close_leaves_no_task_and_no_socket(self) -> None:
        session = await self.open()
        last = session._link._last
        self.assertEqual(len(asyncio.all_tasks()), 2)
        await session.close()
        self.assertEqual(asyncio.all_tasks(), {asyncio.current_task()})
        self.assertTrue(last and last.closed.done())


class Keepalive(ServerTestCase):
    """A connection through a network that may lose all packets without ending it."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.works = asyncio.Event()
        self.works.set()
        host, port = self.server.address.split(":")
        self.network = await asyncio.start_server(
            lambda r, w: forward(r, w, host, int(port), self.works), "127.0.0.1", limit=1 << 20
        )
        self.url = f"ws://127.0.0.1:{self.network.sockets[0].getsockname()[1]}/ws"
        self.notices: list[troupe.Notice] = []

    async def asyncTearDown(self) -> None:
        self.works.set()
        self.network.close()
        await self.network.wait_closed()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
        await super().asyncTearDown()

    def open_through_the_network(self) -> troupe.Opening:
        options = impatient(keepalive=0.3, handshake_timeout=0.5, on_notice=self.notices.append)
        return troupe.open(self.url, **options)

    async def test_a_silent_connection_is_given_up_and_resumed(self) -> None:
        async with self.open_through_the_network() as session:
            self.works.clear()
            while not self.notices:
                await asyncio.sleep(0.05)
            self.assertRegex(str(self.notices[0]), "nothing was heard from the server for 0.3 s")
            self.works.set()
            self.assertEqual((await session.run("echo on")).stdout, "on\n")

    async def test_an_idle_connection_and_a_program_that_blocks_its_loop_lose_nothing(self) -> None:
        async with self.open_through_the_network() as session:
            await asyncio.sleep(1)
            time.sleep(1)
            await asyncio.sleep(0.5)
            self.assertEqual((await session.run("echo on")).stdout, "on\n")
            self.assertEqual(self.notices, [])


if __name__ == "__main__":
    unittest.main()
