"""Keeps a session connected: one connection after another, until it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from . import _frames
from ._connection import Connection
from ._options import Draining, Lost, Notice, Resumed, Retry, Settings
from ._wire import Connected
from .errors import (
    ClosedError,
    DrainingError,
    ExecutionLimitError,
    HandshakeError,
    InternalError,
    LimitError,
    ServerError,
    SessionEndedError,
    TransportError,
    UnreachableError,
    server_error,
)

logger = logging.getLogger("troupe")

# How long a connection must last, in seconds, to reset the backoff: others must not be made at full rate.
STABLE_AFTER = 5

# Bounds how long closing may take to tell the server. Seconds.
CLOSE_TIMEOUT = 5

# Used where the server does not announce its own. Seconds.
DEFAULT_RESUME_WINDOW = 300


@dataclass(frozen=True, slots=True)
class Resume:
    """A request to attach. `attach`: the executions are new to this client."""

    offsets: Mapping[str, int] | None
    attach: bool


class Peer(Protocol):
    """The session, as its link sees it."""

    connected: Connected

    def greeted(self, connected: Connected) -> None: ...

    def resumed(self, resume: Resume, result: Mapping[str, Any]) -> None: ...

    def attached(self, connection: Connection) -> None: ...

    def receive_text(self, connection: Connection, message: dict[str, Any]) -> None: ...

    def receive_binary(self, connection: Connection, message: bytes | bytearray | memoryview) -> None: ...

    def positions(self) -> dict[str, int]: ...

    def all_received(self) -> bool: ...

    def connection_lost(self, *, too_big: bool) -> None: ...

    def finished(self, end: Exception) -> None: ...


class _Opening:
    """A connection that is not attached yet."""

    def __init__(self, resume: Resume | None) -> None:
        self.resume = resume
        self.attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, cause: Exception) -> None:
        if not self.attached.done():
            self.attached.set_exception(cause)
            self.attached.exception()  # nobody may wait for it any more


class Link:
    """The connections of a session."""

    def __init__(self, url: str, settings: Settings, peer: Peer) -> None:
        #: The connection that is attached, if there is one.
        self.current: Connection | None = None
        #: Done with the reason when the session has ended for this client.
        self.ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        #: Set when the client is about to end the session: how it ends.
        self.leaving: Exception | None = None
        self._url = _endpoint(url)
        self._settings = settings
        self._peer = peer
        self._opening: _Opening | None = None
        self._last: Connection | None = None
        self._hanging_up = False  # no connection is to be made again
        self._draining = False
        self._server: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # Connecting.

    async def start(self, resume: Resume | None) -> None:
        """Makes the first connection."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.open_retry
        attempt = 1
        while True:
            try:
                connection = await self._connect(resume)
                break
            except Exception as e:
                if end := _end_of_session(e):
                    raise (end if resume else e) from e.__cause__
                delay = max(self._settings.delay(attempt), _retry_after(e))
                if loop.time() + delay > deadline:
                    raise
                self._notify(Retry(e, attempt, delay))
            await asyncio.sleep(delay)
            attempt += 1
        self._server = self.spawn(self._serve(connection))

    async def _connect(self, resume: Resume | None) -> Connection:
        """Makes one connection. When it returns, the session is attached."""
        query = {"frames": "binary"}  # a server that does not know it sends text
        if resume:
            query["session"] = self._peer.connected.session_id
        url = _with_query(self._url, query, () if resume else self._settings.query)
        opening = self._opening = _Opening(resume)
        connection = None
        try:
            async with asyncio.timeout(self._settings.handshake_timeout) as bound:
                connection = await Connection.open(url, self._settings, self)
                self._last = connection
                connection.ended.add_done_callback(lambda ended: opening.fail(ended.result()))
                if resume:
                    self._send_resume(connection, resume)
                await opening.attached
                return connection
        except BaseException as e:
            if connection:
                connection.fail(e if isinstance(e, Exception) else TransportError("connecting was given up"))
            if self.current:  # it was attached just when the time had passed
                self.current = None
                self._peer.connection_lost(too_big=False)
            if isinstance(e, TimeoutError) and bound.expired():
                raise TransportError("the server did not answer the handshake in time") from None
            raise
        finally:
            self._opening = None

    def _send_resume(self, connection: Connection, resume: Resume) -> None:
        params = {"resume_token": self._peer.connected.resume_token, "window": self._settings.window}
        if resume.offsets is not None:
            params["executions"] = dict(resume.offsets)
        connection.send_text(_frames.encode({"jsonrpc": "2.0", "id": 0, "method": "resume", "params": params}))

    async def _serve(self, connection: Connection) -> None:
        """Serves one connection after another until the session ends."""
        loop = asyncio.get_running_loop()
        attempt = 0
        end: Exception | None = None
        try:
            while True:
                began = loop.time()
                await asyncio.wait([connection.ended])
                cause = connection.ended.result()
                self.current = None
                self._peer.connection_lost(too_big=isinstance(cause, TransportError) and cause.close_code == 1009)
                if end := self._end_by(cause):
                    return
                if loop.time() - began >= STABLE_AFTER:
                    attempt = 0
                self._notify(Lost(cause))
                connection, attempt = await self._reconnect(attempt, cause)
        except UnreachableError as e:
            end = e
        except Exception as e:
            end = self.leaving or e
        finally:
            self._finish(end or self.leaving or ClosedError("the event loop ends"))

    async def _reconnect(self, attempt: int, lost: Exception) -> tuple[Connection, int]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        window = self._settings.reconnect
        if window is None:
            window = self._peer.connected.limits.resume_window or DEFAULT_RESUME_WINDOW
        # The first attempt follows at once, nearly: usually only the connection was lost.
        delay = self._settings.delay(attempt)
        while True:
            left = began + window - loop.time()
            if left <= 0:
                raise UnreachableError(f"no connection for the whole resume window: {lost}") from lost
            await asyncio.sleep(min(delay, left))
            attempt += 1
            try:
                connection = await self._connect(Resume(self._peer.positions(), attach=False))
            except Exception as e:
                if end := _end_of_session(e):
                    raise end from e.__cause__
                lost = e
                delay = max(self._settings.delay(attempt), _retry_after(e))
                self._notify(Retry(e, attempt, delay))
            else:
                self._notify(Resumed(attempt, loop.time() - began))
                return connection, attempt

    def _notify(self, notice: Notice) -> None:
        logger.debug("session %s: %s", self._peer.connected.session_id, notice)
        if self._settings.on_notice:
            try:
                self._settings.on_notice(notice)
            except Exception:
                logger.exception("on_notice has failed")

    # Receiving.

    def receive_text(self, connection: Connection, message: dict[str, Any]) -> None:
        method = message.get("method")
        if method == "ping":
            connection.send_text(_frames.PONG)
        elif self.current is not connection:
            self._greeted(connection, message)
        elif method == "server.draining":
            self._draining = True
            self._notify(Draining(message["params"]["deadline_seconds"]))
        else:
            self._peer.receive_text(connection, message)

    def receive_binary(self, connection: Connection, message: bytes | bytearray | memoryview) -> None:
        if self.current is not connection:
            raise _frames.MalformedError("the server sent output before the session was attached")
        self._peer.receive_binary(connection, message)

    def _greeted(self, connection: Connection, message: dict[str, Any]) -> None:
        """Handles a message up to `connected` or the answer to resume."""
        opening = self._opening
        if not opening:
            return
        resume = opening.resume
        if error := message.get("error"):
            opening.fail(server_error(error))
            return
        if not resume and message.get("method") == "connected":
            self._peer.greeted(Connected.decode(message["params"]))
        elif resume and message.get("id") == 0 and "method" not in message:
            self._peer.resumed(resume, message["result"])
        else:
            return
        self.current = connection
        if not opening.attached.done():
            opening.attached.set_result(None)
        self._peer.attached(connection)
        connection.watch(self._settings.keepalive)

    # Ending.

    def _end_by(self, cause: Exception) -> Exception | None:
        """The end of the session that the end of a connection means, if any."""
        if self._hanging_up:
            return self.leaving
        if end := _end_of_socket(cause):
            return self.leaving or end
        drained = self._draining and isinstance(cause, TransportError) and cause.close_code == 1012
        if drained and self._peer.all_received():
            return SessionEndedError("the server has ended the session: it is stopping")
        return None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a task that `close` waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, why: Exception, code: int) -> None:
        """Ends the connection, and waits until nothing of the session is left in this program."""
        if not self.ended.done():
            self.leaving = why
            self._hanging_up = True
            try:
                if self.current:
                    await self.current.close(code, CLOSE_TIMEOUT)
                elif self._server:
                    self._server.cancel()
            except asyncio.CancelledError:
                self.abandon()
                raise
        await self.settle()

    def abandon(self) -> None:
        """Ends the connection at once, without telling the server."""
        self._hanging_up = True
        self._finish(self.leaving or ClosedError("the client is closed"))
        if self._server:
            self._server.cancel()

    async def settle(self) -> None:
        """Waits for the tasks and the socket of a session that has ended."""
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks)
        if self._last:
            await asyncio.wait([self._last.closed])

    def _finish(self, end: Exception) -> None:
        if self.ended.done():
            return
        self.ended.set_result(end)
        if self._last:
            self._last.fail(end)
        self.current = None
        self._peer.finished(end)


def _end_of_socket(cause: Exception) -> Exception | None:
    """The end of the session that a close code means."""
    match cause.close_code if isinstance(cause, TransportError) else None:
        case 1000:
            return SessionEndedError("the server has ended the session")
        case 4006:
            return server_error({"code": -32006, "message": "no such session"})
        case 4007:
            return server_error({"code": -32007, "message": "the pod that owned the session is gone"})
    return None


def _end_of_session(error: Exception) -> Exception | None:
    """The end of the session that a failed attempt to connect means; None: another may succeed."""
    if isinstance(error, HandshakeError):
        return None if error.temporary else error
    if isinstance(error, ServerError):
        temporary = isinstance(error, (LimitError, DrainingError, InternalError, ExecutionLimitError))
        return None if temporary else error
    if isinstance(error, TransportError) and error.close_code == 1009:
        return error
    if isinstance(error, (ValueError, TypeError)):
        return error
    return _end_of_socket(error)


def _retry_after(error: Exception) -> float:
    seconds = error.data.get("retry_after_seconds", 0) if isinstance(error, ServerError) else 0
    return float(seconds)


def _endpoint(url: str) -> SplitResult:
    """Reads the URL of a server."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL of a server: it must be such as wss://troupe.example.com/ws")
    return parts._replace(scheme=scheme, fragment="")


def _with_query(url: SplitResult, replaced: Mapping[str, str], added: tuple[tuple[str, str], ...]) -> str:
    query = [(name, value) for name, value in parse_qsl(url.query, keep_blank_values=True) if name not in replaced]
    return url._replace(query=urlencode([*query, *added, *replaced.items()])).geturl()
