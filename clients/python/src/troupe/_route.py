"""Takes the notifications of a connection to the executions that they concern."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ._frames import MalformedError, parse_output
from ._transcript import Piece
from ._wire import Completed, ErrorInfo, ProcessFault, ProcessWarning, Resized, Screen, StateChange, decode

if TYPE_CHECKING:
    from ._connection import Connection
    from ._session import Session


def route_notification(session: Session, connection: Connection, method: str, params: Mapping[str, Any]) -> None:
    """Handles a notification. Unknown ones are ignored: a newer server may add some."""
    if method == "process.output":
        _route_text(session, params)
        return
    if method == "process.stream":
        connection.streams[params["stream"]] = params["execution_id"]
        connection.numbers[params["execution_id"]] = params["stream"]
        session._calls.offsets = True  # a server with binary messages takes inputs by their offset
        return
    if method == "process.input":
        session._calls.input_taken(params["execution_id"], params["offset"], params.get("error"))
        return
    if method == "process.completed":
        completed = Completed.decode(params)
        if followed := session._followed.get(completed.execution_id):
            followed._transcript.receive_completed(completed)
        else:
            session._send_ack(completed.execution_id, completed.output_bytes, completed=True)
        return
    e = session._followed.get(params["execution_id"]) if method.startswith("process.") else None
    if not e:
        return
    match method.removeprefix("process."):
        case ("started" | "paused" | "resumed" | "canceled") as state:
            e._transcript.receive(StateChange(state))
        case "resized":
            e._transcript.receive(decode(Resized, params))
        case "screen":
            e._transcript.receive(decode(Screen, params, data=base64.b64decode(params["data"])))
        case "warning":
            e._transcript.receive_warning(decode(ProcessWarning, params))
        case "error":
            e._transcript.receive(ProcessFault(decode(ErrorInfo, params["error"])))


def _route_text(session: Session, params: Mapping[str, Any]) -> None:
    exact = params.get("encoding") == "base64"
    data = base64.b64decode(params["data"]) if exact else params["data"].encode("utf-8", "replace")
    piece = Piece(params["type"], data, params["truncated"], params["offset"], params.get("gap", 0), exact)
    _route_piece(session, params["execution_id"], piece)


def route_binary(session: Session, connection: Connection, message: bytes | bytearray | memoryview) -> None:
    """Handles a binary message."""
    frame = parse_output(message)
    id = connection.streams.get(frame.stream)
    if id is None:
        raise MalformedError(f"binary message: stream {frame.stream} was not opened")
    stream: Literal["stdout", "stderr"] = "stderr" if frame.stderr else "stdout"
    _route_piece(session, id, Piece(stream, frame.data, frame.truncated, frame.offset, frame.gap, exact=True))


def _route_piece(session: Session, id: str, piece: Piece) -> None:
    # What is not followed any more is acknowledged, so that it keeps neither the command nor its session waiting.
    if e := session._followed.get(id):
        e._transcript.receive_output(piece)
    else:
        session._send_ack(id, piece.offset)
