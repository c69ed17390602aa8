"""The client for programs without asyncio: the same names, and calls that block.

    with troupe.sync.open("ws://localhost:8003/ws") as session:
        execution = session.exec("make")
        for piece in execution.output:
            sys.stdout.buffer.write(piece.data)
        print(execution.wait().exit_code)

Each session has a thread with an event loop, which keeps it connected. Its methods may be called from any other
thread, and from several at once. A KeyboardInterrupt cancels the call that it interrupts, with what that means in
`troupe`: one in `run` cancels the command and goes on when its tree is dead, unless it is repeated.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Literal, TypeVar, Unpack

import troupe

from ._execution import Execution as AsyncExecution
from ._link import CLOSE_TIMEOUT
from ._options import Options
from ._session import Command
from ._session import Session as AsyncSession
from ._wire import Completed, Connected, Event, ExecuteOptions, Limits, Output, Result, SavedSession, Started, Status

T = TypeVar("T")


class _Loop:
    """A thread that runs an event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held to begin a call or the end, so that no call begins behind it
        self._running = True
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="troupe", daemon=True)
        self._thread.start()
        ready.wait()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        ready.set()
        await self._stopped.wait()
        if calls := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(calls, timeout=CLOSE_TIMEOUT)  # they are about to fail, since the session has ended

    @property
    def running(self) -> bool:
        return self._running

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Runs a coroutine in the loop, and returns what it returns.

        An exception that interrupts the waiting, such as KeyboardInterrupt, cancels it, and goes on when it has ended.
        """
        done = threading.Event()
        tasks: list[asyncio.Task[T]] = []

        async def bounded() -> T:
            async with asyncio.timeout(timeout):
                return await work

        def ended(task: asyncio.Task[T]) -> None:
            if not task.cancelled():
                task.exception()  # nobody may ask for it any more
            done.set()

        def start() -> None:
            tasks.append(self._loop.create_task(bounded()))
            tasks[0].add_done_callback(ended)

        try:
            self._schedule(start)
        except BaseException:
            work.close()
            raise
        try:
            done.wait()
        except BaseException:
            self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            done.wait()
            raise
        if tasks[0].cancelled():
            raise troupe.ClosedError("the session was closed meanwhile")
        return tasks[0].result()

    def _schedule(self, start: Callable[[], None]) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("troupe.sync was called in a session's own thread: use the asynchronous client there")
        with self._lock:
            if not self._running:
                raise troupe.ClosedError("the session is closed")
            self._loop.call_soon_threadsafe(start)

    def soon(self, work: Callable[[], T]) -> T:
        """Calls a function in the loop."""

        async def call() -> T:
            return work()

        return self.call(call())

    def stop(self) -> None:
        with self._lock:
            if self._running:
                self._running = False
                self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()


class Session:
    """A session on a server, as `troupe.Session`."""

    def __init__(self, loop: _Loop, session: AsyncSession) -> None:
        self._loop = loop
        self._session = session

    def __repr__(self) -> str:
        return repr(self._session).replace("troupe.", "troupe.sync.", 1)

    @property
    def id(self) -> str:
        return self._session.id

    @property
    def connected(self) -> Connected:
        return self._session.connected

    @property
    def limits(self) -> Limits:
        return self._session.limits

    @property
    def error(self) -> Exception | None:
        """Why the session has ended for this client, or None."""
        return self._session.error

    @property
    def executions(self) -> dict[str, Execution]:
        """The executions that are followed and were not read to their end, by their ids."""
        executions = self._loop.soon(lambda: self._session.executions)
        return {id: Execution(self._loop, e) for id, e in executions.items()}

    def wait_ended(self, timeout: float | None = None) -> Exception:
        """Waits until the session has ended for this client, and returns the reason, or raises TimeoutError."""
        return self._loop.call(self._session.wait_ended(), timeout)

    def exec(self, command: Command, **options: Unpack[ExecuteOptions]) -> Execution:
        """Starts a command: a string for `/bin/sh -c`, or a list of arguments."""
        return Execution(self._loop, self._loop.call(self._session.exec(command, **options)))

    def run(self, command: Command, **options: Unpack[ExecuteOptions]) -> Result:
        """Runs a command to its end, and returns that with its output as text."""
        return self._loop.call(self._session.run(command, **options))

    def control(self, type: Literal["PAUSE", "RESUME", "CANCEL"], execution_id: str | None = None) -> None:
        """Pauses, resumes or cancels any execution of the session. The id is needed when several run."""
        self._loop.call(self._session.control(type, execution_id))

    def signal(self, name: str, execution_id: str | None = None) -> None:
        """Sends a signal to any execution of the session."""
        self._loop.call(self._session.signal(name, execution_id))

    def resize(self, cols: int, rows: int, execution_id: str) -> None:
        """Says how large this client's view of the terminal of an execution is."""
        self._loop.call(self._session.resize(cols, rows, execution_id))

    def status(self) -> Status:
        """Asks for the session's executions and limits."""
        return self._loop.call(self._session.status())

    def save(self) -> SavedSession:
        """What `detach` would return now."""
        return self._loop.soon(self._session.save)

    def detach(self) -> SavedSession:
        """Ends the connection, and leaves the session to its resume window."""
        return self._end(self._session.detach())

    def leave(self) -> None:
        """Ends the connection only: the session ends with its last one."""
        self._end(self._session.leave())

    def close(self) -> None:
        """Ends the session and everything that runs in it. Closing it twice is no error."""
        if self._loop.running:
            self._end(self._session.close())

    def _end(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._loop.call(work)
        finally:
            self._loop.stop()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loop.running:
            self._end(self._session.__aexit__(kind, error, traceback))


class Execution:
    """One command of a session, as `troupe.Execution`.

    As a context manager it cancels the command when the block is left, and waits for the end.
    """

    def __init__(self, loop: _Loop, execution: AsyncExecution) -> None:
        self._loop = loop
        self._execution = execution

    def __repr__(self) -> str:
        return repr(self._execution).replace("troupe.", "troupe.sync.", 1)

    @property
    def id(self) -> str:
        return self._execution.id

    @property
    def started(self) -> Started:
        """The server's answer to execute."""
        return self._execution.started

    @property
    def offset(self) -> int:
        """Position in the output after the last event that was read."""
        return self._execution.offset

    @property
    def completed(self) -> Completed | None:
        """The end, if it was received."""
        return self._execution.completed

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event, or None when all were read; TimeoutError if none comes in time."""
        return self._loop.call(self._execution.next(), timeout)

    @property
    def events(self) -> Iterator[Event]:
        """All events. Leaving the loop leaves the rest for another one."""
        return self._iterate(self._execution.events)

    @property
    def output(self) -> Iterator[Output]:
        """The output alone, in order. It raises a GapError where bytes are missing; another loop goes on there."""
        return self._iterate(self._execution.output)

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> T | None:
            return await anext(items, None)

        while (item := self._loop.call(following())) is not None:
            yield item

    def wait(self, timeout: float | None = None) -> Completed:
        """Waits for the end without reading, or raises TimeoutError. Read or discard the output first."""
        return self._loop.call(self._execution.wait(), timeout)

    def discard(self) -> None:
        """Drops the unread output and all further output. `wait` still works."""
        self._loop.soon(self._execution.discard)

    def pause(self) -> None:
        """Stops the whole process tree, and its timers."""
        self._loop.call(self._execution.pause())

    def resume(self) -> None:
        """Lets a paused execution go on."""
        self._loop.call(self._execution.resume())

    def cancel(self) -> None:
        """Begins the end. It does not wait for it, `wait` does."""
        self._loop.call(self._execution.cancel())

    def signal(self, name: str) -> None:
        """Sends a signal, such as "INT", to the command's process group; KILL to the whole tree."""
        self._loop.call(self._execution.signal(name))

    def resize(self, cols: int, rows: int) -> None:
        """Says how large this client's view of the terminal is."""
        self._loop.call(self._execution.resize(cols, rows))

    def write(self, data: bytes | bytearray | memoryview | str) -> None:
        """Writes to stdin, and returns when the bytes are in the command's pipe."""
        self._loop.call(self._execution.write(data))

    def close_input(self) -> None:
        """Closes stdin."""
        self._loop.call(self._execution.close_input())

    def __enter__(self) -> Execution:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call(self._execution.__aexit__(kind, error, traceback))


def open(url: str, **options: Unpack[Options]) -> Session:
    """Opens a session. Use it with `with`, which closes it, or call `close`. Callables in options run in its thread."""
    return _begin(lambda: troupe.open(url, **options))


def attach(url: str, saved: SavedSession, **options: Unpack[Options]) -> Session:
    """Attaches to a session that another client has detached from, or still uses, as `troupe.attach`."""
    return _begin(lambda: troupe.attach(url, saved, **options))


def _begin(opening: Callable[[], troupe.Opening]) -> Session:
    async def begin() -> AsyncSession:
        return await opening()

    loop = _Loop()
    try:
        return Session(loop, loop.call(begin()))
    except BaseException:
        loop.stop()
        raise
