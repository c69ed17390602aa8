"""How a session begins."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import Any, Unpack

from ._options import Options, Settings
from ._session import Session
from ._wire import SavedSession


class Opening:
    """A session that is about to be opened: await it, or use it with `async with`, which closes it again."""

    def __init__(self, url: str, options: Options, saved: SavedSession | None) -> None:
        self._url = url
        self._settings = Settings.of(options)
        self._saved = saved
        self._session: Session | None = None

    def __await__(self) -> Generator[Any, None, Session]:
        return self._open().__await__()

    async def _open(self) -> Session:
        session = Session(self._url, self._settings)
        await session._start(self._saved)
        return session

    async def __aenter__(self) -> Session:
        self._session = await self._open()
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.__aexit__(kind, error, traceback)


def open(url: str, **options: Unpack[Options]) -> Opening:
    """Opens a session: `async with troupe.open(url) as session`, or `session = await troupe.open(url)`.

    `url` has the scheme ws, wss, http or https and the path of the server's endpoint, usually `/ws`. It raises a
    HandshakeError, a LimitError or a TransportError; with `open_retry` it tries again where that may help.
    """
    return Opening(url, options, None)


def attach(url: str, saved: SavedSession, **options: Unpack[Options]) -> Opening:
    """Attaches to a session that another client has detached from, or still uses.

    It follows what `offsets` names, each from its offset on; without `offsets` everything, from the beginning.
    `session.executions` has them. Used with `async with`, it ends the session for everybody, as `open` does.
    """
    return Opening(url, options, saved)
