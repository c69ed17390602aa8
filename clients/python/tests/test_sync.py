"""The client without asyncio."""

from __future__ import annotations

import os
import signal
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from support import Trouped, build_trouped, impatient

import troupe
import troupe.sync


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "troupe"]


class Sync(unittest.TestCase):
    server: Trouped

    @classmethod
    def setUpClass(cls) -> None:
        build_trouped()
        cls.server = Trouped()
        cls.addClassCleanup(cls.server.stop)

    def setUp(self) -> None:
        # The thread ends with its session, by whatever end.
        self.addCleanup(lambda: self.assertEqual(threads(), []))

    def open(self) -> troupe.sync.Session:
        return troupe.sync.open(self.server.url, **impatient())

    def test_commands_output_and_input(self) -> None:
        with self.open() as session:
            result = session.run("echo out; echo err >&2; exit 3")
            self.assertEqual((result.stdout, result.stderr, result.exit_code), ("out\n", "err\n", 3))
            cat = session.exec(["cat"], stdin=True, framing="raw")
            self.assertEqual(list(session.executions), [cat.id])
            data = bytes(range(256)) * 4000

            def write() -> None:
                cat.write(data)
                cat.close_input()

            writer = threading.Thread(target=write)
            writer.start()
            self.assertEqual(b"".join(piece.data for piece in cat.output), data)
            writer.join()
            self.assertEqual(cat.wait().exit_code, 0)
            self.assertIsNone(cat.next())

    def test_leaving_a_loop_leaves_the_rest_for_the_next(self) -> None:
        with self.open() as session:
            e = session.exec("echo one; sleep 0.2; echo two")
            first = next(e.output)
            self.assertEqual(first.data, b"one\n")
            rest = [type(event).__name__ for event in e.events]
            self.assertEqual(rest, ["Output", "Completed"])

    def test_timeouts_bound_the_waiting(self) -> None:
        with self.open() as session:
            with session.exec("sleep 600") as e:
                self.assertIsInstance(e.next(timeout=10), troupe.StateChange)
                for waiting in (e.wait, e.next, session.wait_ended):
                    with self.assertRaises(TimeoutError):
                        waiting(timeout=0.05)
            assert e.completed
            self.assertEqual(e.completed.reason, "canceled")

    def test_control_signal_and_status(self) -> None:
        with self.open() as session:
            e = session.exec("sleep 600")
            e.pause()
            self.assertEqual(session.status().executions[e.id].state, "paused")
            e.resume()
            session.signal("TERM", e.id)
            e.discard()
            self.assertEqual(e.wait(timeout=10).exit_code, -15)

    def test_a_session_is_detached_and_attached_again(self) -> None:
        session = self.open()
        e = session.exec("echo one; sleep 0.5; echo two")
        self.assertEqual(next(e.output).data, b"one\n")
        saved = session.detach()
        self.assertEqual(threads(), [])
        with troupe.sync.attach(self.server.url, saved, **impatient()) as again:
            self.assertEqual([piece.data for piece in again.executions[e.id].output], [b"two\n"])

    def test_a_closed_session_says_so(self) -> None:
        with self.open() as session:
            session.exec("sleep 600")
            with ThreadPoolExecutor() as pool:
                waiting = pool.submit(session.wait_ended)
                time.sleep(0.1)
                session.close()
                self.assertIsInstance(waiting.result(), troupe.ClosedError)
        session.close()
        with self.assertRaises(troupe.ClosedError):
            session.run("true")
        self.assertIsInstance(session.error, troupe.ClosedError)
        with self.assertRaises(troupe.TransportError):
            troupe.sync.open("ws://127.0.0.1:1/ws")

    def test_a_keyboard_interrupt_in_run_cancels_the_command(self) -> None:
        with self.open() as session:
            session.exec("sleep 600", execution_id="other")
            interrupt = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
            interrupt.start()
            with self.assertRaises(KeyboardInterrupt):
                session.run("sleep 600", execution_id="interrupted")
            interrupt.join()
            executions = session.status().executions
            completed = executions["interrupted"].completed
            self.assertEqual(completed and completed.reason, "canceled")
            self.assertEqual(executions["other"].state, "running")

    def test_a_call_in_the_sessions_own_thread_is_refused_instead_of_hanging(self) -> None:
        errors: list[Exception] = []

        def token() -> str:
            try:
                session.status()
            except RuntimeError as e:
                errors.append(e)
            return ""

        with self.open() as session:
            other = troupe.sync.Session(session._loop, session._session)  # the same thread, for the provider
            other._loop.soon(token)
            self.assertRegex(str(errors[0]), "session's own thread")


if __name__ == "__main__":
    unittest.main()
