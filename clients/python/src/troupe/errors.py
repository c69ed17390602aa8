"""The errors of this package. Each is a `TroupeError`; wrong arguments are `ValueError` and `TypeError`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TroupeError(Exception):
    """The base of every error that is no mistake of the caller."""


class ServerError(TroupeError):
    """The server answered with an error. Each code has a class; an unknown one is a plain ServerError."""

    def __init__(self, code: int, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        #: What the server adds to some codes: `limit`, `value`, `retry_after_seconds`, `exit_code`.
        self.data: Mapping[str, Any] = data or {}


class ParseError(ServerError):
    """-32700: a frame was not JSON."""


class InvalidRequestError(ServerError):
    """-32600: the JSON was not a request."""


class MethodNotFoundError(ServerError):
    """-32601: the server does not know the method."""


class InvalidParamsError(ServerError):
    """-32602: the params are wrong. The message says which, and what would be right."""


class InternalError(ServerError):
    """-32603: a defect of the server, unless `data` has `retry_after_seconds`."""


class LimitError(ServerError):
    """-32001: a limit of the server or of the subject, which `limit` in `data` names."""


class NotAllowedError(ServerError):
    """-32002: the command, or a variable of its environment, is not allowed."""


class NoProcessError(ServerError):
    """-32003: no such execution, or it has ended."""


class StreamTimeoutError(ServerError):
    """-32004: the execution was silent for the stream timeout."""


class ExecutionLimitError(ServerError):
    """-32005: the session runs as many executions as it may."""


class NoSessionError(ServerError):
    """-32006: no such session, or the wrong resume token. A session whose resume window passed is gone as well."""


class SessionLostError(ServerError):
    """-32007: the pod that owned the session is gone, with everything that ran in it."""


class DrainingError(ServerError):
    """-32008: the server is stopping and starts nothing new."""


class InputUnavailableError(ServerError):
    """-32009: stdin is closed, or was not asked for."""


class StartFailedError(ServerError):
    """-32010: the command could not be started. `exit_code` in `data` is 127 or 126, as a shell's."""


CODES: Mapping[int, type[ServerError]] = {
    -32700: ParseError,
    -32600: InvalidRequestError,
    -32601: MethodNotFoundError,
    -32602: InvalidParamsError,
    -32603: InternalError,
    -32001: LimitError,
    -32002: NotAllowedError,
    -32003: NoProcessError,
    -32004: StreamTimeoutError,
    -32005: ExecutionLimitError,
    -32006: NoSessionError,
    -32007: SessionLostError,
    -32008: DrainingError,
    -32009: InputUnavailableError,
    -32010: StartFailedError,
}


def server_error(error: Mapping[str, Any]) -> ServerError:
    """Makes the error of the class that belongs to the code."""
    code = error["code"]
    return CODES.get(code, ServerError)(code, error["message"], error.get("data"))


class SessionEndedError(TroupeError):
    """The server ended the session, for example after its idle timeout."""


class UnreachableError(TroupeError):
    """No connection could be made for the whole resume window. `__cause__` is the last failure."""


class ClosedError(TroupeError):
    """`close` or `leave` was called."""


class DetachedError(TroupeError):
    """`detach` was called. The session goes on without this client."""


class UnknownExecutionError(TroupeError):
    """The session does not know the execution."""


class UnknownOutcomeError(TroupeError):
    """The connection ended before the answer, and sending the request again could do it twice."""


class InputConflictError(TroupeError):
    """Another client has written to the stdin of the execution as well."""


class FollowedError(TroupeError):
    """This session already follows an execution of that id."""


class DiscardedError(TroupeError):
    """`discard` was called on the execution."""


class TooLargeError(TroupeError):
    """The request is larger than the server accepts (`max_message`)."""


class HandshakeError(TroupeError):
    """The HTTP answer to the WebSocket handshake was not 101."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"the server answered the WebSocket handshake with {status}{f': {body}' if body else ''}")
        #: The HTTP status.
        self.status = status
        #: At most the first 1,024 bytes, as text.
        self.body = body

    @property
    def temporary(self) -> bool:
        """Whether trying again may help. Some ingresses answer 404 while a service has no ready pod."""
        return self.status in (404, 408, 425, 429) or self.status >= 500


class TransportError(TroupeError):
    """A connection could not be made, or has ended.

    Only `open` and `attach` raise it: later the session reconnects.
    """

    def __init__(self, message: str, close_code: int = 1006) -> None:
        super().__init__(message)
        #: The server's close code, or 1006 without one.
        self.close_code = close_code


class FileError(TroupeError):
    """The server refused a request for files. docs/files.md has what the codes mean."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail or f"the server answered with {status}")
        #: The HTTP status.
        self.status = status
        #: Such as not_found, outside or no_space; empty for some.
        self.code = code
        self.detail = detail

    @property
    def temporary(self) -> bool:
        """Whether trying again may help."""
        return self.status in (429, 502, 503, 504) or (self.status == 409 and self.code == "offset")


class GapError(TroupeError):
    """Bytes of the output are no longer on the server. Reading can go on behind them."""

    def __init__(self, execution_id: str, missing: int, offset: int) -> None:
        super().__init__(f"{missing} bytes of the output of {execution_id} are no longer on the server")
        self.execution_id = execution_id
        #: Bytes.
        self.missing = missing
        #: Position in the output after the gap.
        self.offset = offset


class InputError(TroupeError):
    """Says how much of an input was delivered. `__cause__` says why the rest was not."""

    def __init__(self, delivered: int, in_doubt: int, cause: Exception) -> None:
        doubt = f", {in_doubt} may have" if in_doubt else ""
        super().__init__(f"input: {delivered} bytes arrived{doubt}: {cause}")
        #: Bytes that are known to be in the command's pipe.
        self.delivered = delivered
        #: Bytes after those that may or may not have arrived, or still may.
        self.in_doubt = in_doubt
        self.__cause__ = cause
