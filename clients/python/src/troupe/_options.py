"""What a session can be opened with."""

from __future__ import annotations

import inspect
import random
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

MIN_WINDOW = 4096
MAX_WINDOW = 16 << 20


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is lost."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Retry:
    """An attempt to connect has failed, and another follows."""

    error: Exception
    attempt: int
    delay: float
    """Seconds until the next attempt."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The session has a connection again."""

    attempt: int
    gone: float
    """Seconds without a connection."""


@dataclass(frozen=True, slots=True)
class Draining:
    """The server is stopping: it starts nothing new, and cancels what still runs at its deadline."""

    deadline: float
    """Seconds."""


#: What happened to the connection, for logs and users.
Notice: TypeAlias = Lost | Retry | Resumed | Draining

TokenProvider: TypeAlias = Callable[[], str | Awaitable[str]]
Connector: TypeAlias = Callable[[str, int], Awaitable[socket.socket]]


class Options(TypedDict, total=False):
    """What `open` and `attach` take by keyword."""

    token: str | TokenProvider
    """A bearer token, or what supplies one, at once or asynchronously: it is called before every connection."""
    headers: Mapping[str, str]
    """More headers of the handshake."""
    ssl: ssl.SSLContext
    """How to check the server's certificate, and what to show of one's own. Default: the system's certificates."""
    connect: Connector
    """Called with a host and a port for every connection; returns a connected socket, such as a proxy's tunnel."""
    name: str
    """What a new session is called, for people: `a-z 0-9 -`."""
    labels: Mapping[str, str]
    """What a new session belongs to, for programs."""
    resume_window: int
    """Seconds without a connection after which the server ends a new session. Default: the server's."""
    isolation: Literal["session"]
    """Refuse a session that the kernel does not separate from others."""
    open_retry: float
    """Seconds for which opening is tried again where that may help. Default: 0, one attempt."""
    reconnect: float
    """Seconds for which to reconnect before the session is given up. Default: the server's `resume_window`."""
    backoff: tuple[float, float]
    """Attempt n waits a random time up to min(second, first * 2**n) seconds. Default: 0.1 and 5."""
    handshake_timeout: float
    """Bounds one attempt to connect, up to the first message. Default: 15 seconds."""
    keepalive: float
    """A connection on which nothing arrives for this long is given up. Default: 45 seconds; 0: never."""
    window: int
    """Bytes of unread output that are held for each execution, 4,096 to 16,777,216. Default: 1,048,576."""
    on_notice: Callable[[Notice], object]
    """Called when the connection is lost, retried and resumed, and when the server drains."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Options whose defaults are filled in."""

    token: str | TokenProvider | None
    headers: Mapping[str, str]
    ssl: ssl.SSLContext | None
    connect: Connector | None
    query: tuple[tuple[str, str], ...]
    open_retry: float
    reconnect: float | None
    backoff: tuple[float, float]
    handshake_timeout: float
    keepalive: float
    window: int
    on_notice: Callable[[Notice], object] | None

    @classmethod
    def of(cls, o: Options) -> Settings:
        """Fills in the defaults, and refuses what cannot work."""
        if unknown := sorted(set(o) - Options.__optional_keys__):
            raise TypeError(f"unknown option {unknown[0]!r}: use one of {', '.join(sorted(Options.__optional_keys__))}")
        window = o.get("window", 1 << 20)
        if not MIN_WINDOW <= window <= MAX_WINDOW:
            raise ValueError(f"window of {window} bytes: it must be from {MIN_WINDOW} to {MAX_WINDOW}")
        return cls(
            token=o.get("token"),
            headers=o.get("headers", {}),
            ssl=o.get("ssl"),
            connect=o.get("connect"),
            query=_query(o),
            open_retry=o.get("open_retry", 0),
            reconnect=o.get("reconnect"),
            backoff=o.get("backoff", (0.1, 5)),
            handshake_timeout=o.get("handshake_timeout", 15),
            keepalive=o.get("keepalive", 45),
            window=window,
            on_notice=o.get("on_notice"),
        )

    async def current_token(self) -> str:
        """The token for the next connection, or nothing."""
        token = self.token() if callable(self.token) else self.token
        return (await token if inspect.isawaitable(token) else token) or ""

    def delay(self, attempt: int) -> float:
        """A random time, which spreads the clients of a pod that has died. Seconds."""
        first, most = self.backoff
        return random.random() * min(most, first * 2.0 ** min(attempt, 30))


def _query(o: Options) -> tuple[tuple[str, str], ...]:
    """The parameters of the URL's query for a new session."""
    query = [("label", f"{key}={value}") for key, value in o.get("labels", {}).items()]
    if "name" in o:
        query.append(("name", o["name"]))
    if "resume_window" in o:
        query.append(("resume_window", str(o["resume_window"])))
    if "isolation" in o:
        query.append(("isolation", o["isolation"]))
    return tuple(query)
