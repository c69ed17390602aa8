"""HTTP/1.1, as far as the files of a session need it: each request has a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ._connection import HAPPY_EYEBALLS_DELAY
from ._options import Settings
from .errors import TransportError

# How much is read or written at a time.
PIECE = 256 << 10

# How long the server may take to say that it wants a body, before that is sent anyway: a proxy may not pass the
# answer on. Seconds.
EXPECT_TIMEOUT = 2

# After so many seconds of silence the kernel asks whether the other end is still there, and again after as many.
PROBE_INTERVAL = 15


class Answer:
    """The answer to a request. Its body comes once, by `pieces` or `read`."""

    def __init__(
        self, reader: asyncio.StreamReader, method: str, status: int, headers: http.client.HTTPMessage
    ) -> None:
        self.status = status
        self.headers = headers
        #: The fields behind the body, once that was read to its end.
        self.trailers = http.client.HTTPMessage()
        self._reader = reader
        self._method = method

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. It raises a TransportError if the connection ends first."""
        try:
            if self._method == "HEAD" or self.status in (204, 304):
                return
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                async for piece in self._chunks():
                    yield piece
            elif (length := self.headers.get("Content-Length")) is not None:
                async for piece in self._exactly(int(length)):
                    yield piece
            else:
                while piece := await self._reader.read(PIECE):
                    yield piece
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as e:
            raise TransportError(f"the answer broke off: {e}") from e

    async def _exactly(self, left: int) -> AsyncIterator[bytes]:
        while left:
            piece = await self._reader.read(min(left, PIECE))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            async for piece in self._exactly(size):
                yield piece
            await self._reader.readexactly(2)
        trailers = b""
        while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
            trailers += line
        self.trailers = http.client.parse_headers(io.BytesIO(trailers + b"\r\n"))

    async def read(self, limit: int = 1 << 20) -> bytes:
        """The whole body, as far as the limit goes."""
        body = b""
        async for piece in self.pieces():
            body += piece
            if len(body) >= limit:
                break
        return body[:limit]


@contextlib.asynccontextmanager
async def request(
    s: Settings,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: AsyncGenerator[bytes, None] | None = None,
    length: int = 0,
) -> AsyncIterator[Answer]:
    """Makes a request whose body has so many bytes. It raises a TransportError, or what the body raises."""
    token = await s.current_token()
    own = {"Authorization": f"Bearer {token}"} if token else {}
    all_headers = {**s.headers, **own, **headers, "Connection": "close"}
    if body is not None or method in ("PUT", "PATCH", "POST"):
        all_headers["Content-Length"] = str(length)
    try:
        async with asyncio.timeout(s.handshake_timeout):
            reader, writer = await _connect(s, url)
    except (OSError, TimeoutError) as e:
        raise TransportError(f"connecting to {urlsplit(url).netloc}: {e}") from e
    try:
        try:
            writer.write(_head(method, url, all_headers))
            answer = await _send(reader, writer, method, body)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as e:
            raise TransportError(f"the connection to {urlsplit(url).netloc} was lost: {e}") from e
        yield answer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _connect(s: Settings, url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    tls: dict[str, Any] = {"ssl": s.ssl or True, "server_hostname": host} if secure else {}
    if s.connect:
        reader, writer = await asyncio.open_connection(sock=await s.connect(host, port), limit=PIECE, **tls)
    else:
        reader, writer = await asyncio.open_connection(
            host, port, limit=PIECE, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY, **tls
        )
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):  # a socket of another kind, or another system
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_INTERVAL)
    return reader, writer


def _head(method: str, url: str, headers: Mapping[str, str]) -> bytes:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}"]
    for name, value in headers.items():
        if not re.fullmatch(r"[\t -~]*", value):
            raise ValueError(f"the header {name} may have printable ASCII only: is there a line break at its end?")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def _send(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, body: AsyncGenerator[bytes, None] | None
) -> Answer:
    """Sends the body, unless the server answers before, and returns the answer."""
    if body is not None:
        first = asyncio.ensure_future(_answer(reader, method, interim=True))
        try:
            await asyncio.wait([first], timeout=EXPECT_TIMEOUT)
            if first.done() and first.result().status >= 200:
                return first.result()
            async with contextlib.aclosing(body):
                with contextlib.suppress(ConnectionError):  # the server says why it reads no further
                    async for piece in body:
                        writer.write(piece)
                        await writer.drain()
            answer = await first
            if answer.status >= 200:
                return answer
        finally:
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await first
    return await _answer(reader, method, interim=False)


async def _answer(reader: asyncio.StreamReader, method: str, *, interim: bool) -> Answer:
    """Reads the head of an answer, and with `interim` that of one which says that the body may come."""
    while True:
        head = io.BytesIO(await reader.readuntil(b"\r\n\r\n"))
        line = head.readline().split(None, 2)
        if len(line) < 2 or not line[0].startswith(b"HTTP/1."):
            raise ValueError("the answer is not HTTP")
        status = int(line[1])
        if status >= 200 or interim and status == 100:
            return Answer(reader, method, status, http.client.parse_headers(head))
