"""One command of a session."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING

from ._calls import Input
from ._transcript import Phase, Transcript
from ._wire import Completed, Event, ExecutionStatus, Gap, Output, Started
from .errors import (
    GapError,
    InputConflictError,
    InputError,
    InputUnavailableError,
    LimitError,
    NoProcessError,
    ServerError,
    TroupeError,
)

if TYPE_CHECKING:
    from ._session import Session

# How much of an input one request carries: a pipe's capacity, far below the server's max_message.
INPUT_CHUNK = 64 << 10


class Execution:
    """One command of a session. `Session.exec` starts it.

    As an asynchronous context manager it cancels the command when the block is left, and waits for the end.
    """

    def __init__(self, session: Session, id: str, offset: int = 0) -> None:
        #: By which another client of the session can follow it.
        self.id = id
        #: The server's answer to execute.
        self.started = Started(id)
        self._session = session
        self._transcript = Transcript(id, offset, session.window, session._send_ack, lambda: session._forget(self))
        self._input_lock = asyncio.Lock()  # one input at a time, so that the offsets have no holes
        self._input_offset = 0
        self._writer: str | None = None  # of a terminal: names this client among those that type

    def __repr__(self) -> str:
        return f"<troupe.Execution {self.id} {self._transcript.phase.name.lower()} at {self.offset}>"

    # Output.

    @property
    def offset(self) -> int:
        """Position in the output after the last event that was read."""
        return self._transcript.delivered

    @property
    def completed(self) -> Completed | None:
        """The end, if it was received."""
        return self._transcript.completed

    async def next(self) -> Event | None:
        """The next event, or None when all were read.

        Then all output was delivered but for what a Gap, or the counts of Completed, have reported. If the
        session ends first, it raises its end.
        """
        return await self._transcript.next()

    @property
    def events(self) -> AsyncIterator[Event]:
        """All events. Leaving the loop leaves the rest for another one."""
        return _Events(self)

    @property
    def output(self) -> AsyncIterator[Output]:
        """The output alone, in order, both streams.

        What was taken is acknowledged, so a slow loop holds at most a window of output. It raises a GapError
        where bytes are missing; another loop goes on behind them. The end is `await execution.wait()`.
        """
        return _Outputs(self)

    async def wait(self) -> Completed:
        """Waits for the end without reading.

        The end comes behind the output: a command that prints more than a window has none before its output is
        read or discarded.
        """
        transcript = self._transcript
        while True:
            if transcript.completed:
                return transcript.completed
            if transcript.error:
                raise transcript.error
            await transcript.changed.wait()

    def discard(self) -> None:
        """Drops the unread output and all further output. `wait` still works."""
        self._transcript.discard()

    # Control.

    async def pause(self) -> None:
        """Stops the whole process tree, and its timers."""
        await self._session.control("PAUSE", self.id)

    async def resume(self) -> None:
        """Lets a paused execution go on."""
        await self._session.control("RESUME", self.id)

    async def cancel(self) -> None:
        """Begins the end: SIGTERM to the whole tree, SIGKILL after the server's grace.

        It does not wait for the end, `wait` does. It may be repeated, also after the end.
        """
        await self._session.control("CANCEL", self.id)

    async def signal(self, name: str) -> None:
        """Sends a signal, such as "INT", to the command's process group; KILL to the whole tree."""
        await self._session.signal(name, self.id)

    async def resize(self, cols: int, rows: int) -> None:
        """Says how large this client's view of the terminal is.

        The terminal takes the size of whoever typed last, and a Resized event says when it has changed. The server
        forgets the size with the connection: say it again after Resumed.
        """
        await self._session.resize(cols, rows, self.id)

    async def __aenter__(self) -> Execution:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session._uninterrupted(self._end())

    async def _end(self) -> None:
        """Cancels the execution if it runs, drops its output, and waits until its tree is dead."""
        transcript = self._transcript
        self.discard()
        if transcript.completed or transcript.error:
            return
        try:
            await self.cancel()
            await self.wait()
        except TroupeError as e:
            if not transcript.error and not isinstance(e, NoProcessError):
                raise

    # Input.

    async def write(self, data: bytes | bytearray | memoryview | str) -> None:
        """Writes to stdin, and returns when the bytes are in the command's pipe, which paces a writer.

        The command gets every byte once and in order, whatever happens to the connection. It raises an
        InputError. What a cancellation leaves in doubt may still arrive, before the next write.

        Several clients may type into a terminal.
        """
        whole = memoryview(data.encode() if isinstance(data, str) else data).cast("B")
        size = min(INPUT_CHUNK, (self._session.limits.max_message or 1 << 20) // 2)
        for at in range(0, len(whole), size):
            chunk = bytes(whole[at : at + size])
            try:
                await self._input(chunk, eof=False)
            except _Undelivered as e:
                raise InputError(at, len(chunk) if e.in_doubt else 0, e.reason) from e.reason

    async def close_input(self) -> None:
        """Closes stdin. Closing it twice is no error. A terminal cannot be closed so: write Ctrl-D, "\\x04"."""
        try:
            await self._input(b"", eof=True)
        except _Undelivered as e:
            if not isinstance(e.reason, InputUnavailableError):
                raise e.reason from None

    async def _input(self, data: bytes, *, eof: bool) -> None:
        async with self._input_lock:
            call, taken = None, True
            try:
                call = self._session._send_input(Input(self.id, self._input_offset, data, eof, self._writer))
                await self._session._answer(call)
            except TroupeError as e:
                taken = not isinstance(e, LimitError)  # which says that nothing of it was passed to the command
                answered = isinstance(e, (ServerError, InputConflictError))
                raise _Undelivered(e, in_doubt=call is not None and call.written and not answered) from None
            finally:
                if call and call.written and taken:
                    self._input_offset += len(data)

    # Session.

    def _answered(self, started: Started) -> None:
        self.started = started
        self._transcript.answered()

    def _attached_to(self, status: ExecutionStatus) -> None:
        self.started = Started(self.id, status.pid, status.pgid, attached=True)
        if status.terminal:
            self._has_terminal()
        else:
            self._input_offset = status.input_offset
        self._transcript.attached_to(status)

    def _has_terminal(self) -> None:
        self._writer = str(uuid.uuid4())

    @property
    def _pending(self) -> bool:
        return self._transcript.phase is Phase.PENDING


class _Undelivered(Exception):
    """An input has failed. `in_doubt`: the server may have received it."""

    def __init__(self, reason: TroupeError, *, in_doubt: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.in_doubt = in_doubt


class _Events(AsyncIterator[Event]):
    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    async def __anext__(self) -> Event:
        event = await self._execution.next()
        if event is None:
            raise StopAsyncIteration
        return event


class _Outputs(AsyncIterator[Output]):
    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    async def __anext__(self) -> Output:
        while (event := await self._execution.next()) is not None:
            if isinstance(event, Output):
                return event
            if isinstance(event, Gap):
                raise GapError(self._execution.id, event.missing, event.offset)
        raise StopAsyncIteration
