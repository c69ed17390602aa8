"""A session on a server, which survives the loss of its connections."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import os
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, TypeAlias, Unpack

from . import _frames
from ._calls import Call, Calls, Input, Repeat
from ._connection import Connection
from ._execution import Execution
from ._files import Files
from ._link import CLOSE_TIMEOUT, Link, Resume
from ._options import Settings
from ._route import route_binary, route_notification
from ._wire import (
    Connected,
    ExecuteOptions,
    ExecutionStatus,
    Gap,
    Limits,
    Output,
    Result,
    SavedSession,
    Started,
    Status,
    decode,
)
from .errors import (
    ClosedError,
    DetachedError,
    FollowedError,
    GapError,
    NoSessionError,
    SessionEndedError,
    SessionLostError,
    TroupeError,
    UnknownExecutionError,
)

#: A command: a string for `/bin/sh -c`, or a list of arguments, without a shell.
Command: TypeAlias = str | Sequence[str | os.PathLike[str]]

#: What is done with a piece of output. It may be asynchronous, and is awaited.
OnOutput: TypeAlias = Callable[[Output], object]


class Session:
    """A session on a server. `open` and `attach` make one; it survives the loss of its connections.

    Every method may be cancelled. That ends the waiting and not the command, but for `exec` and `run`.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        #: The server's greeting. After `attach` it has only the id, the token and the limits.
        self.connected = Connected()
        self.window = settings.window
        #: The files of the session.
        self.files = Files(url, settings, self._for_files)
        self._link = Link(url, settings, self)
        self._calls = Calls()
        self._followed: dict[str, Execution] = {}

    def __repr__(self) -> str:
        return f"<troupe.Session {self.id}{f': {self.error}' if self.error else ''}>"

    @property
    def id(self) -> str:
        return self.connected.session_id

    @property
    def limits(self) -> Limits:
        return self.connected.limits

    @property
    def error(self) -> Exception | None:
        """Why the session has ended for this client, or None."""
        return self._link.ended.result() if self._link.ended.done() else None

    @property
    def executions(self) -> dict[str, Execution]:
        """The executions that are followed and were not read to their end, by their ids."""
        return {id: e for id, e in self._followed.items() if not e._pending}

    def _for_files(self) -> tuple[str, str, float]:
        return self.id, self.connected.resume_token, self.limits.resume_window

    async def wait_ended(self) -> Exception:
        """Waits until the session has ended for this client, and returns the reason."""
        await asyncio.wait([self._link.ended])
        return self._link.ended.result()

    # Commands.

    async def exec(self, command: Command, **options: Unpack[ExecuteOptions]) -> Execution:
        """Starts a command: a string for `/bin/sh -c`, or a list of arguments.

        If it is cancelled once the request is under way, the command is cancelled as well, and CancelledError is
        raised when its tree is dead. A second cancellation ends the waiting.
        """
        params = _params(command, options)
        execution = Execution(self, params["execution_id"])
        if "terminal" in params:
            execution._has_terminal()
        if execution.id in self._followed:
            raise FollowedError(f"{execution.id} is followed already")
        call = self._call("execute", {**params, "window": self.window}, Repeat.SAFE)
        call.answered = lambda result: execution._answered(decode(Started, result))
        self._followed[execution.id] = execution
        try:
            self._submit(call)
            await asyncio.shield(call.done)
        except asyncio.CancelledError:
            if call.written:
                await self._uninterrupted(self._undo(call, execution))
            else:
                self._calls.withdraw(call)
                self._forget(execution)
            raise
        except BaseException:
            self._forget(execution)
            raise
        return execution

    async def _undo(self, call: Call, execution: Execution) -> None:
        """Ends a command that may have been started."""
        try:
            await call.done
        except TroupeError:
            self._forget(execution)  # it was not
            return
        with contextlib.suppress(TroupeError):
            await execution._end()

    async def run(
        self, command: Command, *, on_output: OnOutput | None = None, **options: Unpack[ExecuteOptions]
    ) -> Result:
        """Runs a command to its end.

        `on_output` gets the output piece by piece, and is awaited if it is asynchronous, so that a slow one slows the
        command down where `retain` is "unread". Without it, the output is collected, and decoded as UTF-8.

        If it is cancelled, or `on_output` raises, the command is cancelled, and the exception goes on when its
        whole tree is dead. A second cancellation ends the waiting. It raises a GapError where output is missing.
        """
        retain = options.get("retain", "first")
        if not on_output and retain != "first":
            raise ValueError(f"output with retain {retain!r} has no bound: give on_output")
        options.setdefault("framing", "raw")
        options.setdefault("encoding", "base64")
        execution = await self.exec(command, **options)
        collected = {"stdout": bytearray(), "stderr": bytearray()}
        missing: list[Gap] = []
        try:
            async for event in execution.events:
                if isinstance(event, Gap):
                    missing.append(event)
                elif not isinstance(event, Output):
                    continue
                elif not on_output:
                    collected[event.stream] += event.data
                elif inspect.isawaitable(done := on_output(event)):
                    await done
        except BaseException:
            with contextlib.suppress(TroupeError):
                await self._uninterrupted(execution._end())
            raise
        completed = await execution.wait()
        if missing:
            raise GapError(execution.id, sum(gap.missing for gap in missing), missing[-1].offset)
        fields = {f.name: getattr(completed, f.name) for f in dataclasses.fields(completed)}
        stdout, stderr = (data.decode("utf-8", "replace") for data in collected.values())
        return Result(**fields, stdout=stdout, stderr=stderr)

    async def control(self, type: Literal["PAUSE", "RESUME", "CANCEL"], execution_id: str | None = None) -> None:
        """Pauses, resumes or cancels any execution of the session. The id is needed when several run."""
        await self._request("control", _on(execution_id, {"type": type}), Repeat.SAFE)

    async def signal(self, name: str, execution_id: str | None = None) -> None:
        """Sends a signal to any execution of the session.

        It raises an UnknownOutcomeError if the connection ends before the answer, unless the signal is KILL.
        """
        kill = name.upper().removeprefix("SIG") == "KILL"
        await self._request("signal", _on(execution_id, {"signal": name}), Repeat.SAFE if kill else Repeat.NEVER)

    async def resize(self, cols: int, rows: int, execution_id: str) -> None:
        """Says how large this client's view of the terminal of an execution is."""
        await self._request("resize", {"execution_id": execution_id, "cols": cols, "rows": rows}, Repeat.SAFE)

    async def status(self) -> Status:
        """Asks for the session's executions and limits."""
        return Status.decode(await self._request("status", {}, Repeat.SAFE))

    # Ending.

    async def close(self) -> None:
        """Ends the session and everything that runs in it.

        If the server cannot be told within 5 s, the session ends there when its resume window has passed, and
        `close` raises. Closing a session that has ended is no error.
        """
        if self._link.ended.done():
            await self._link.settle()
            return
        leaving = self._link.leaving = self._link.leaving or ClosedError("the client is closed")
        failure: Exception | None = None
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._request("close", {}, Repeat.SAFE)
        except TimeoutError:
            failure = TimeoutError(f"no answer within {CLOSE_TIMEOUT} s")
        except (ClosedError, NoSessionError, SessionLostError, SessionEndedError):
            pass
        except TroupeError as e:
            failure = e
        except asyncio.CancelledError:
            self._link.abandon()
            raise
        await self._link.close(leaving, 1000)
        if failure:
            raise TroupeError(f"closing session {self.id}: {failure}") from failure

    async def leave(self) -> None:
        """Ends the connection only: the session ends with its last one. `close` ends it for everybody."""
        await self._link.close(ClosedError("the client has left"), 1000)

    async def detach(self) -> SavedSession:
        """Ends the connection, and leaves the session to its resume window.

        Events that were not read are dropped: the offsets are those after the last ones that were.
        """
        offsets = {id: e._transcript.detach() for id, e in self.executions.items()}
        saved = self._saved({id: offset for id, offset in offsets.items() if offset is not None})
        await self._link.close(DetachedError("the client is detached"), 1001)
        return saved

    def save(self) -> SavedSession:
        """What `detach` would return now."""
        return self._saved({id: e.offset for id, e in self.executions.items()})

    def _saved(self, offsets: dict[str, int]) -> SavedSession:
        return {"session_id": self.id, "resume_token": self.connected.resume_token, "offsets": offsets}

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except TroupeError:
            if error is None:
                raise

    # Requests.

    def _call(self, method: str, params: Any, repeat: Repeat, input: Input | None = None) -> Call:
        return self._calls.make(method, params, repeat, self.limits.max_message, input)

    def _submit(self, call: Call) -> None:
        if self.error:
            raise self.error
        self._calls.add(call)
        if self._link.current:
            self._calls.flush(self._link.current)

    async def _request(self, method: str, params: dict[str, Any], repeat: Repeat) -> Any:
        call = self._call(method, params, repeat)
        self._submit(call)
        return await self._answer(call)

    async def _answer(self, call: Call) -> Any:
        try:
            return await call.done
        except asyncio.CancelledError:
            self._calls.withdraw(call)
            raise

    def _send_input(self, input: Input) -> Call:
        call = self._call("input", None, Repeat.SAFE if input.eof else Repeat.OFFSET, input)
        self._submit(call)
        return call

    def _send_ack(self, execution_id: str, offset: int, *, completed: bool = False) -> bool:
        """Says whether there is a connection that takes it."""
        connection = self._link.current
        if not connection or not connection.is_open:
            return False
        params = {"execution_id": execution_id, "offset": offset, **({"completed": True} if completed else {})}
        connection.send_text(_frames.encode({"jsonrpc": "2.0", "method": "ack", "params": params}))
        return True

    async def _uninterrupted(self, work: Coroutine[Any, Any, None]) -> None:
        """Waits for work that goes on if the waiting is cancelled."""
        await asyncio.shield(self._link.spawn(work))

    def _forget(self, e: Execution) -> None:
        if self._followed.get(e.id) is e:
            del self._followed[e.id]

    # The link's peer.

    async def _start(self, saved: SavedSession | None) -> None:
        resume = None
        if saved:
            self.connected = Connected(session_id=saved["session_id"], resume_token=saved["resume_token"])
            resume = Resume(saved.get("offsets"), attach=True)
        await self._link.start(resume)

    def greeted(self, connected: Connected) -> None:
        self.connected = connected
        self._calls.offsets = "input_offset" in connected.capabilities

    def resumed(self, resume: Resume, result: Mapping[str, Any]) -> None:
        if limits := result.get("limits"):
            self.connected = dataclasses.replace(self.connected, limits=decode(Limits, limits))
        offsets = resume.offsets or {}
        if resume.attach:
            for id, status in (result.get("executions") or {}).items():
                if resume.offsets is None or id in offsets:
                    e = self._followed[id] = Execution(self, id, offsets.get(id, 0))
                    e._attached_to(ExecutionStatus.decode(status))
        for id in result.get("unknown") or ():
            if gone := self._followed.pop(id, None):
                gone._transcript.fail(UnknownExecutionError(f"the session does not know execution {id}"))
        for id, offset in offsets.items():
            if followed := self._followed.get(id):
                followed._transcript.resumed_at(offset)

    def attached(self, connection: Connection) -> None:
        self._calls.flush(connection)

    def receive_text(self, connection: Connection, message: dict[str, Any]) -> None:
        if method := message.get("method"):
            route_notification(self, connection, method, message.get("params", {}))
        elif isinstance(id := message.get("id"), int):
            self._calls.answer(id, message.get("result"), message.get("error"))

    def receive_binary(self, connection: Connection, message: bytes | bytearray | memoryview) -> None:
        route_binary(self, connection, message)

    def positions(self) -> dict[str, int]:
        """Positions up to which output was taken: what is queued arrives again, and is dropped."""
        positions = {id: e._transcript.position() for id, e in self._followed.items()}
        return {id: position for id, position in positions.items() if position is not None}

    def all_received(self) -> bool:
        return all(e._transcript.received for e in self._followed.values())

    def connection_lost(self, *, too_big: bool) -> None:
        self._calls.connection_lost(too_big)
        for e in self._followed.values():
            e._transcript.connection_lost()

    def finished(self, end: Exception) -> None:
        self._calls.fail(end)
        for e in self._followed.values():
            e._transcript.fail(end)


def _on(execution_id: str | None, params: dict[str, Any]) -> dict[str, Any]:
    """The params of a request about an execution, or about the only one that runs."""
    return params if execution_id is None else {**params, "execution_id": execution_id}


def _params(command: Command, options: ExecuteOptions) -> dict[str, Any]:
    """The params of execute. Options that are None are left out."""
    if unknown := sorted(set(options) - ExecuteOptions.__optional_keys__):
        known = ", ".join(sorted(ExecuteOptions.__optional_keys__))
        raise TypeError(f"unknown option {unknown[0]!r} of a command: use one of {known}")
    params: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if isinstance(command, str):
        params["command"] = command
    else:
        params["argv"] = [os.fspath(argument) for argument in command]
    if "cwd" in params:
        params["cwd"] = os.fspath(params["cwd"])
    params.setdefault("execution_id", str(uuid.uuid4()))
    return params
