"""The files of a session, over HTTP beside its WebSocket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias
from urllib.parse import quote, unquote_to_bytes, urlencode, urlsplit

from . import _http
from ._options import Settings
from .errors import FileError, TransportError, TroupeError

#: A path in a session: relative to its working directory, or absolute and beneath it.
SessionPath: TypeAlias = str | os.PathLike[str]

# Bounds how long the cancellation of an upload may take. Seconds.
CANCEL_TIMEOUT = 5

# Used where the session does not say how long it waits for a connection. Seconds.
DEFAULT_PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file, a directory or a link."""

    name: str
    """Bytes that are not UTF-8 are as `os.fsdecode` has them."""
    kind: Literal["file", "directory", "symlink", "other"]
    size: int
    mode: int
    """Permission bits."""
    modified: datetime
    tag: str
    """Changes whenever the file does."""
    link: str = ""
    """Where a symbolic link points to."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """What happened to a file.

    `ready` comes first: what changes after it is told. After `overflow` changes are missing.
    """

    kind: Literal["ready", "created", "modified", "mode", "removed", "renamed", "overflow"]
    path: str = ""
    """Relative to the watched directory."""


class Files:
    """The files of a session. `session.files` has them.

    A transfer goes on after a lost connection, on any pod, until it has made no progress for `reconnect` seconds, and
    its SHA-256 is checked. What the server refuses is a FileError; a TransportError says that it cannot be reached.
    """

    def __init__(self, url: str, settings: Settings, who: Callable[[], tuple[str, str, float]]) -> None:
        parts = urlsplit(url)
        scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
        self._root = f"{scheme}://{parts.netloc}"
        self._prefix = parts.path.rstrip("/").removesuffix("/ws")
        self._settings = settings
        self._who = who  # the session's id, its resume token, and seconds for which it waits for a connection

    # Transfers.

    async def upload(
        self,
        source: str | os.PathLike[str] | bytes,
        path: SessionPath,
        *,
        mode: int | None = None,
        modified: datetime | None = None,
        parents: bool = False,
        new: bool = False,
    ) -> FileInfo:
        """Writes a file of the session: the content of a file of this machine, or bytes.

        It appears under its name when it is whole. `parents` makes missing directories, `new` refuses to replace a
        file. Without `mode` and `modified`, those of a file of this machine are taken. If it fails or is cancelled,
        nothing is left of it.
        """
        query: dict[str, str] = {}
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as content:
            if not isinstance(source, bytes):
                st = os.stat(content.fileno())
                mode = st.st_mode & 0o777 if mode is None else mode
                modified = modified or datetime.fromtimestamp(st.st_mtime, UTC)
            if mode is not None:
                query["mode"] = f"{mode:o}"
            if modified:
                query["modified"] = modified.astimezone(UTC).isoformat().replace("+00:00", "Z")
            if parents:
                query["parents"] = ""
            upload = _Upload(self, self._url(path, query), content, new)
            try:
                await self._retried(upload.attempt, lambda: upload.reached)
            except BaseException:
                await upload.cancel()
                raise
            assert upload.info
            return upload.info

    async def download(self, path: SessionPath, target: str | os.PathLike[str]) -> None:
        """Copies a file of the session to one of this machine, with its mode and time. It appears when it is whole."""
        target = Path(target)
        info = await self.stat(path)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".troupe-", delete=False) as part:
            try:
                await self._download(path, part)
                part.close()
                os.chmod(part.name, info.mode if info.kind == "file" else 0o644)
                if info.kind == "file":
                    os.utime(part.name, (info.modified.timestamp(), info.modified.timestamp()))
                os.replace(part.name, target)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part.name)
                raise

    async def read(self, path: SessionPath) -> bytes:
        """The content of a file, all of it."""
        content = io.BytesIO()
        await self._download(path, content)
        return content.getvalue()

    async def _download(self, path: SessionPath, target: IO[bytes]) -> None:
        download = _Download(self, self._url(path), target)
        await self._retried(download.attempt, lambda: download.reached)

    # Everything else.

    async def stat(self, path: SessionPath) -> FileInfo:
        """Describes a file. Of a symbolic link it describes the link."""
        return _info(await self._json("GET", self._url(path, {"stat": ""})))

    async def list(self, path: SessionPath = ".") -> AsyncGenerator[FileInfo, None]:
        """The entries of a directory, in the order of their names."""
        query = {"list": ""}
        while True:
            page = await self._json("GET", self._url(path, query))
            for entry in page["entries"]:
                yield _info(entry)
            if not page.get("continue"):
                return
            query["continue"] = page["continue"]

    async def mkdir(self, path: SessionPath) -> None:
        """Makes a directory and those above it. One that is there already is no error."""
        await self._json("POST", self._url(path, {"mkdir": "", "parents": ""}))

    async def move(self, path: SessionPath, to: SessionPath) -> None:
        """Gives a file another path, and replaces what is there."""
        await self._json("POST", self._url(path, {"move": os.fsencode(to)}))

    async def remove(self, path: SessionPath, *, recursive: bool = False) -> None:
        """Removes a file or an empty directory; with `recursive` a directory with everything in it."""
        await self._json("DELETE", self._url(path, {"recursive": ""} if recursive else {}))

    async def watch(self, path: SessionPath = ".", *, recursive: bool = False) -> AsyncGenerator[FileChange, None]:
        """What changes in a directory, and with `recursive` below it. `contextlib.aclosing` ends it at once.

        It raises a TransportError when the connection is lost: begin again, and list what matters.
        """
        url = self._url(path, {"watch": "", **({"recursive": ""} if recursive else {})})
        rest = b""
        async with self.request("GET", url) as answer:
            async for piece in answer.pieces():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    change = json.loads(line)
                    if change.get("kind"):  # otherwise the server says that it is there
                        yield FileChange(change["kind"], _name(change.get("path", "")))
        raise TransportError("the watch has ended")

    # Requests.

    def _url(self, path: SessionPath, query: Mapping[str, str | bytes] | None = None) -> str:
        id, _, _ = self._who()
        target = f"{self._root}{self._prefix}/api/v1/sessions/{quote(id, safe='')}/files/{_escape(path)}"
        return f"{target}?{urlencode(query)}" if query else target

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: AsyncGenerator[bytes, None] | None = None,
        length: int = 0,
    ) -> AsyncIterator[_http.Answer]:
        _, token, _ = self._who()
        own = {"Troupe-Resume-Token": token} if token else {}
        async with _http.request(self._settings, method, url, {**own, **(headers or {})}, body, length) as answer:
            if answer.status >= 300:
                raise _refusal(answer.status, await answer.read(16 << 10))
            yield answer

    async def _json(self, method: str, url: str) -> Any:
        async with self.request(method, url) as answer:
            body = await answer.read()
        return json.loads(body) if body else {}

    async def _retried(self, attempt: Callable[[], Awaitable[None]], reached: Callable[[], int]) -> None:
        """Tries until it succeeds, fails for good, or makes no progress for long."""
        loop = asyncio.get_running_loop()
        patience = self._settings.reconnect or self._who()[2] or DEFAULT_PATIENCE
        best, since, tries = -1, loop.time(), 0
        while True:
            try:
                return await attempt()
            except (FileError, TransportError) as e:
                if isinstance(e, FileError) and not e.temporary:
                    raise
                if reached() > best:
                    best, since, tries = reached(), loop.time(), 0
                delay = self._settings.delay(tries)
                if loop.time() + delay - since > patience:
                    raise
            await asyncio.sleep(delay)
            tries += 1


class _Upload:
    """A file on its way to the session: https://datatracker.ietf.org/doc/draft-ietf-httpbis-resumable-upload/."""

    def __init__(self, files: Files, url: str, content: IO[bytes], new: bool) -> None:
        self.reached = 0  # bytes that have arrived
        self.info: FileInfo | None = None
        self._files = files
        self._url = url
        self._content = content
        self._new = new
        self._size = content.seek(0, os.SEEK_END)
        self._at = ""  # URL of the upload; empty: it has not begun
        self._sum = hashlib.sha256()
        self._summed = 0

    async def attempt(self) -> None:
        """Goes on as far as the connection goes."""
        if self._at:
            await self._look()
        if not self._at:
            await self._uninterrupted(self._begin())
        if self.reached < self._size:
            await self._send()
        await self._finish()

    async def _uninterrupted(self, begin: Coroutine[Any, Any, None]) -> None:
        """Begins, also if that is cancelled: only the answer says what there is to cancel."""
        task = asyncio.ensure_future(begin)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task], timeout=CANCEL_TIMEOUT)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def _begin(self) -> None:
        headers = {"Upload-Complete": "?0", "Upload-Length": str(self._size)}
        if self._new:
            headers["If-None-Match"] = "*"
        async with self._files.request("PUT", self._url, headers) as answer:
            at = answer.headers.get("Location", "")
        if not at.startswith("/"):
            raise TroupeError(f"the server began an upload at {at!r}")
        self._at, self.reached = self._files._root + self._files._prefix + at, 0

    async def _look(self) -> None:
        """Finds out how much has arrived. An upload that has ended is begun again."""
        try:
            async with self._files.request("HEAD", self._at) as answer:
                self.reached = min(int(answer.headers["Upload-Offset"]), self._size)  # its digest may follow
        except FileError as e:
            if e.status not in (404, 410):
                raise
            self._at = ""

    async def _send(self) -> None:
        # Nothing is sent for an offset that is wrong, because what an earlier connection brought has arrived meanwhile.
        headers = {
            "Upload-Offset": str(self.reached),
            "Upload-Complete": "?0",
            "Content-Type": "application/partial-upload",
            "Expect": "100-continue",
        }
        left = self._size - self.reached
        async with self._files.request("PATCH", self._at, headers, self._pieces(self.reached), left):
            self.reached = self._size

    async def _pieces(self, position: int) -> AsyncGenerator[bytes, None]:
        self._content.seek(position)
        while position < self._size:
            size = min(_http.PIECE, self._size - position)
            piece = await asyncio.to_thread(self._content.read, size)
            if not piece:
                raise TroupeError(f"the content has {position} bytes, not {self._size}: it changed while it was read")
            position += len(piece)
            if position > self._summed:
                self._sum.update(piece[self._summed - position :])
                self._summed = position
            yield piece

    async def _finish(self) -> None:
        headers = {
            "Upload-Offset": str(self.reached),
            "Upload-Complete": "?1",
            "Repr-Digest": _digest(self._sum.digest()),
        }
        async with self._files.request("PATCH", self._at, headers) as answer:
            body = await answer.read()
        self._at, self.info = "", _info(json.loads(body))

    async def cancel(self) -> None:
        """Removes what has arrived."""
        if self._at:
            with contextlib.suppress(TroupeError, TimeoutError):
                async with asyncio.timeout(CANCEL_TIMEOUT), self._files.request("DELETE", self._at):
                    pass


class _Download:
    """A file on its way from the session."""

    def __init__(self, files: Files, url: str, target: IO[bytes]) -> None:
        self.reached = 0  # bytes that the target has
        self._files = files
        self._url = url
        self._target = target
        self._tag = ""
        self._want = ""  # the digest, once the server has said it
        self._sum = hashlib.sha256()
        self._whole = False

    async def attempt(self) -> None:
        """Goes on as far as the connection goes."""
        if not self._whole:
            await self._receive()
        if not self._want:  # a part has no digest of the file
            async with self._files.request("HEAD", self._url, {"Want-Repr-Digest": "sha-256=10"}) as answer:
                if answer.headers.get("ETag") != self._tag:
                    raise TroupeError("the file changed while it was read")
                self._want = answer.headers.get("Repr-Digest", "")
        if (got := _digest(self._sum.digest())) != self._want:
            raise TroupeError(f"the SHA-256 of what has arrived is {got}, that of the file {self._want}")

    async def _receive(self) -> None:
        headers = {"Want-Repr-Digest": "sha-256=10"}
        if self.reached:
            headers = {"Range": f"bytes={self.reached}-", "If-Match": self._tag}
        try:
            async with self._files.request("GET", self._url, headers) as answer:
                if self.reached and answer.status != 206:
                    raise TroupeError("the server does not resume the download")
                self._tag = answer.headers.get("ETag", "")
                if not self._tag:
                    raise TroupeError("it is not a file")
                async for piece in answer.pieces():
                    await asyncio.to_thread(self._target.write, piece)
                    self._sum.update(piece)
                    self.reached += len(piece)
                self._want = answer.trailers.get("Repr-Digest", "")
        except FileError as e:
            if e.status != 416 or not self.reached:
                raise  # otherwise the connection was lost behind the last byte
        self._whole = True


def _digest(sum: bytes) -> str:
    return f"sha-256=:{base64.b64encode(sum).decode()}:"


def _refusal(status: int, body: bytes) -> FileError:
    try:
        problem = json.loads(body)
        return FileError(status, str(problem.get("code", "")), str(problem.get("detail", "")))
    except (ValueError, AttributeError):
        return FileError(status, "", body[:200].decode("utf-8", "replace"))


def _name(text: str) -> str:
    """A name as JSON has it: percent signs and bytes that are not UTF-8 are escaped."""
    return os.fsdecode(unquote_to_bytes(text))


def _info(entry: Mapping[str, Any]) -> FileInfo:
    return FileInfo(
        name=_name(entry["name"]),
        kind=entry["kind"],
        size=entry["size"],
        mode=entry["mode"],
        modified=datetime.fromisoformat(entry["modified"]),
        tag=entry["tag"],
        link=_name(entry.get("link", "")),
    )


def _escape(path: SessionPath) -> str:
    """The path for a URL. Proxies resolve names of dots, and join two slashes."""
    names = [quote(name, safe="") for name in os.fsencode(path).split(b"/")]
    escaped = "/".join(name.replace(".", "%2E") if name in (".", "..") else name for name in names)
    return f"%2F{escaped[1:]}" if escaped.startswith("/") else escaped
