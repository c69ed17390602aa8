"""The requests of a session that the server has not answered yet."""

from __future__ import annotations

import asyncio
import base64
import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _frames
from .errors import InputConflictError, TooLargeError, UnknownOutcomeError, server_error

if TYPE_CHECKING:
    from ._connection import Connection


class Repeat(enum.Enum):
    """What happens to a request whose connection ended before the answer."""

    SAFE = "it is sent again"
    NEVER = "it fails with an UnknownOutcomeError"
    OFFSET = "SAFE if the server takes inputs by their offset, else NEVER"


class Input(NamedTuple):
    """What a call carries to the stdin of an execution."""

    execution: str
    offset: int  # position in stdin of the first byte
    data: bytes
    eof: bool
    writer: str | None = None  # of a terminal: who of those that share it types, whose bytes the position counts


class Call:
    """One request."""

    __slots__ = ("answered", "binary", "done", "frame", "id", "input", "method", "repeat", "sent", "written")

    def __init__(self, id: int, method: str, frame: bytes, repeat: Repeat, input: Input | None) -> None:
        self.id = id
        self.method = method
        self.frame = frame
        self.repeat = repeat
        self.input = input
        self.sent = False  # on the current connection
        self.written = False  # on any connection
        self.binary = False
        #: Called with the answer before any later message is received.
        self.answered: Callable[[Any], None] = lambda result: None
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # A call whose caller has gone may fail, which asyncio would report.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())

    def succeed(self, result: Any) -> None:
        if not self.done.done():
            self.answered(result)
            self.done.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Calls:
    """The unanswered requests, in order."""

    def __init__(self) -> None:
        #: Whether the server takes inputs by their offset.
        self.offsets = False
        self._calls: dict[int, Call] = {}
        self._last_id = 0  # 0 is resume's

    def make(self, method: str, params: Any, repeat: Repeat, max_message: int, input: Input | None = None) -> Call:
        self._last_id += 1
        frame = b""
        if input is None:
            request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}
            frame = _frames.encode(request)
        if 0 < max_message < len(frame):
            raise TooLargeError(f"{method} of {len(frame)} bytes: the server accepts {max_message}")
        return Call(self._last_id, method, frame, repeat, input)

    def add(self, call: Call) -> None:
        self._calls[call.id] = call

    def flush(self, connection: Connection) -> None:
        """Sends what the connection was not sent yet."""
        for call in self._calls.values():
            if call.sent:
                continue
            call.sent = call.written = True
            if call.input is None:
                connection.send_text(call.frame)
                continue
            execution, offset, data, eof, writer = call.input
            stream = connection.numbers.get(execution) if writer is None else None
            call.binary = stream is not None
            if stream is not None:
                connection.send_binary(_frames.input_frame(stream, offset, data, eof))
            else:
                text = base64.b64encode(data).decode()
                params = {"execution_id": execution, "data": text, "encoding": "base64", "eof": eof, "offset": offset}
                if writer is not None:
                    params["writer"] = writer
                request = {"jsonrpc": "2.0", "id": call.id, "method": "input", "params": params}
                connection.send_text(_frames.encode(request))

    def answer(self, id: int, result: Any, error: Mapping[str, Any] | None) -> None:
        call = self._calls.pop(id, None)
        if call and error:
            call.fail(server_error(error))
        elif call:
            call.succeed(result)

    def input_taken(self, execution: str, offset: int, error: Mapping[str, Any] | None) -> None:
        """Passes the answer to a binary input to the oldest one of the execution."""
        sent = [c for c in self._calls.values() if c.sent and c.binary and c.input and c.input.execution == execution]
        if not sent:
            return
        oldest, newest = sent[0], sent[-1].input
        del self._calls[oldest.id]
        if error:
            oldest.fail(server_error(error))
        elif newest and offset > newest.offset + len(newest.data):
            oldest.fail(InputConflictError(f"another client writes to the stdin of {execution}"))
        else:
            oldest.succeed({})

    def withdraw(self, call: Call) -> None:
        """Drops a call whose caller has gone.

        Input that was written stays, since later input follows it: if the connection ends, it must be repeated.
        """
        if not (call.written and call.input):
            self._calls.pop(call.id, None)

    def connection_lost(self, too_big: bool) -> None:
        """Decides what is sent again on the next connection. `too_big`: the server has refused one for its size."""
        for call in list(self._calls.values()):
            never = call.repeat is Repeat.NEVER or (call.repeat is Repeat.OFFSET and not self.offsets)
            if call.sent and (too_big or never):
                del self._calls[call.id]
                if too_big:
                    call.fail(TooLargeError("a request is larger than the server accepts"))
                else:
                    call.fail(UnknownOutcomeError(f"the connection ended before the answer to {call.method}"))
            call.sent = False

    def fail(self, error: Exception) -> None:
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.fail(error)
