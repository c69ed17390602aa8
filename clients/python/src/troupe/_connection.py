"""One WebSocket: the sans-I/O protocol of `websockets` on a transport of asyncio.

That layer has the same interface from version 10.4 on, unlike `websockets.connect`. It also never follows a
redirect, which would show the token to another server, and tells the body of a refusal.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import re
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import websockets.client
import websockets.uri
from websockets.frames import Opcode

from . import _frames
from ._options import Settings
from .errors import HandshakeError, TransportError, TroupeError

# It was renamed in 11.0.
_ClientProtocol: Any = getattr(websockets.client, "ClientProtocol", None) or getattr(
    websockets.client, "ClientConnection"
)

# Bounds a message of the server. The largest are output of 64 KiB, which escapes may make six times that, and the
# status of a session with many executions.
MAX_MESSAGE = 16 << 20

# Bounds the answer to a handshake.
MAX_HEAD = 64 << 10
MAX_BODY = 1024

# How long the next address of a host is waited for: RFC 8305.
HAPPY_EYEBALLS_DELAY = 0.25


class Receiver(Protocol):
    """Where the messages of a connection go. An exception ends the connection."""

    def receive_text(self, connection: Connection, message: dict[str, Any]) -> None: ...

    def receive_binary(self, connection: Connection, message: bytes | bytearray | memoryview) -> None: ...


class Connection(asyncio.Protocol):
    """A connection. It ends once, by whatever comes first, and then passes nothing on any more."""

    def __init__(self, ws: Any, receiver: Receiver) -> None:
        loop = asyncio.get_running_loop()
        #: Executions by the numbers of their binary messages, and the reverse.
        self.streams: dict[int, str] = {}
        self.numbers: dict[str, int] = {}
        #: Done when the connection has ended, with the cause.
        self.ended: asyncio.Future[Exception] = loop.create_future()
        #: Done when its socket is closed, too.
        self.closed: asyncio.Future[None] = loop.create_future()
        self._ws = ws
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] = loop.create_future()
        self._head: bytearray | None = bytearray()  # of the answer to the handshake; None: it was 101
        self._closing = False  # a close frame was sent
        self._opcode = Opcode.CONT  # of the message whose fragments arrive
        self._fragments: list[bytes] = []
        self._heard = False  # since the last check
        self._pings = 0  # that were sent since something was heard
        self._check_timer: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, url: str, s: Settings, receiver: Receiver) -> Connection:
        """Makes a WebSocket.

        It raises a HandshakeError if the server refused, and else a TransportError or what the token provider raised.
        """
        token = await s.current_token()
        uri = websockets.uri.parse_uri(url)
        ws = _ClientProtocol(uri, max_size=MAX_MESSAGE)
        connection = cls(ws, receiver)
        request = ws.connect()
        for name, value in {**s.headers, **({"Authorization": f"Bearer {token}"} if token else {})}.items():
            if not re.fullmatch(r"[\t -~]*", value):
                raise ValueError(f"the header {name} may have printable ASCII only: is there a line break at its end?")
            if name in request.headers:
                del request.headers[name]
            request.headers[name] = value
        tls: dict[str, Any] = {"ssl": s.ssl or True, "server_hostname": uri.host} if uri.secure else {}
        loop = asyncio.get_running_loop()
        try:
            if s.connect:
                sock = await s.connect(uri.host, uri.port)
                await loop.create_connection(lambda: connection, sock=sock, **tls)
            else:
                await loop.create_connection(
                    lambda: connection, uri.host, uri.port, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY, **tls
                )
            ws.send_request(request)
            connection._flush()
            await connection._opened
        except OSError as e:
            raise TransportError(f"connecting to {urlsplit(url).netloc}: {e}") from e
        except asyncio.CancelledError:
            connection.fail(TransportError("connecting was given up"))
            raise
        return connection

    @property
    def is_open(self) -> bool:
        return not self.ended.done()

    # Sending.

    def send_text(self, data: bytes) -> None:
        if self.is_open and not self._closing:
            self._ws.send_text(data)
            self._flush()

    def send_binary(self, data: bytes) -> None:
        if self.is_open and not self._closing:
            self._ws.send_binary(data)
            self._flush()

    def _flush(self) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(b"".join(self._ws.data_to_send()))

    # Receiving.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.ended.done():
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self.ended.done():
            return
        if self._head is not None:
            self._head += data
            if not self._read_head(eof=False):
                return
            data, self._head = bytes(self._head), None
        try:
            self._ws.receive_data(data)
            for event in self._ws.events_received():
                self._receive(event)
        except Exception as e:  # that of a message which makes no sense, above all
            self.fail(e)
        else:
            self._flush()
            if self.is_open and not self._closing and self._ws.close_expected():
                why = getattr(self._ws, "parser_exc", None)
                self.fail(TransportError(f"the server does not speak WebSocket: {why!r}"))

    def _read_head(self, *, eof: bool) -> bool:
        """Says whether the server has accepted the WebSocket. If it has not, the connection fails with the answer."""
        assert self._head is not None
        raw = bytes(self._head)
        if b"\r\n\r\n" not in raw:
            if len(raw) > MAX_HEAD:
                self.fail(TransportError("the server's answer to the handshake has no end"))
            return False
        if re.match(rb"HTTP/1\.[01] 101 ", raw):
            return True
        try:
            refusal = _refusal(raw, eof=eof)
        except http.client.HTTPException as e:
            self.fail(TransportError(f"the server's answer to the handshake is not HTTP: {e!r}"))
        else:
            if refusal:
                self.fail(refusal)
        return False

    def _receive(self, event: Any) -> None:
        """Handles a frame, or the answer to the handshake."""
        if not self.is_open:
            return
        opcode = getattr(event, "opcode", None)
        if opcode is None:
            if self._ws.handshake_exc:
                raise TransportError(f"the server does not speak WebSocket: {self._ws.handshake_exc}")
            self._opened.set_result(None)
        elif opcode is Opcode.CLOSE:
            code = int.from_bytes(event.data[:2], "big") if event.data else 1005
            reason = str(event.data[2:], "utf-8", "replace")
            message = f"the connection ended with close code {code}{f': {reason}' if reason else ''}"
            self._flush()  # the answer
            self._finish(TransportError(message, code))
        elif opcode in (Opcode.TEXT, Opcode.BINARY) and event.fin:
            self._message(opcode, event.data)
        elif opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if opcode is not Opcode.CONT:
                self._opcode = opcode
            self._fragments.append(event.data)
            if event.fin:
                fragments, self._fragments = self._fragments, []
                self._message(self._opcode, b"".join(fragments))

    def _message(self, opcode: Opcode, data: bytes) -> None:
        if opcode is Opcode.TEXT:
            self._receiver.receive_text(self, _frames.decode(data))
        else:
            self._receiver.receive_binary(self, data)

    def eof_received(self) -> None:
        if self._head is not None:
            self._read_head(eof=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(TransportError(f"the connection was lost{f': {exc}' if exc else ''}"))
        if not self.closed.done():
            self.closed.set_result(None)

    # Ending.

    def watch(self, seconds: float) -> None:
        """Gives the connection up when nothing arrives for a time, in thirds of which it is checked.

        A server that is silent for one third is sent a WebSocket ping, which makes a live one answer. Two checks
        with a ping before come between the last byte and the end, so that a program that has blocked its loop
        for long does not take its own silence for the server's.
        """
        if seconds <= 0 or not self.is_open or self._closing:
            return
        if self._heard:
            self._pings = 0
        elif self._pings < 2:
            self._pings += 1
            self._ws.send_ping(b"")
            self._flush()
        else:
            self.fail(TransportError(f"nothing was heard from the server for {seconds:g} s"))
            return
        self._heard = False
        self._check_timer = asyncio.get_running_loop().call_later(seconds / 3, self.watch, seconds)

    def fail(self, cause: Exception) -> None:
        """Ends the connection at once: the server keeps the session."""
        self._finish(cause)

    async def close(self, code: int, seconds: float) -> None:
        """Closes with a code, and waits for the server's answer for a bounded time."""
        if self.is_open:
            if not self._closing:
                self._closing = True
                self._ws.send_close(code)
                self._flush()
            await asyncio.wait([self.ended], timeout=seconds)
            self._finish(TransportError("the server did not answer the close frame"))

    def _finish(self, cause: Exception) -> None:
        if self.ended.done():
            return
        self.ended.set_result(cause)
        if self._check_timer:
            self._check_timer.cancel()
        if not self._opened.done():
            self._opened.set_exception(cause)
            self._opened.exception()  # nobody may wait for it any more
        if self._transport:
            self._transport.abort()  # what was written is in the kernel, unless the server does not read
        else:
            self.closed.set_result(None)


class _Memory:
    """What http.client reads an answer from."""

    def __init__(self, raw: bytes) -> None:
        self._file = io.BytesIO(raw)

    def makefile(self, mode: str) -> io.BytesIO:
        return self._file


def _refusal(raw: bytes, *, eof: bool) -> TroupeError | None:
    """Reads the answer to a handshake that was refused; None: more of it may follow."""
    response = http.client.HTTPResponse(cast(Any, _Memory(raw)))
    response.begin()
    try:
        body = response.read(MAX_BODY)
        complete = response.isclosed() or len(body) == MAX_BODY
    except http.client.IncompleteRead as e:
        body, complete = e.partial, False
    # Without a length the body ends with the connection.
    until_eof = response.length is None and not response.chunked
    if eof or (complete and not (until_eof and len(body) < MAX_BODY)):
        return HandshakeError(response.status, body.decode("utf-8", "replace").strip())
    return None
