"""Messages as bytes: JSON in text messages, and the binary ones as docs/protocol.md lays them out."""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

KIND_OUTPUT = 1
KIND_INPUT = 2
FLAG_STDERR = 1
FLAG_TRUNCATED = 2
FLAG_GAP = 4
FLAG_EOF = 1

HEADER = struct.Struct("!BBHQ")
GAP = struct.Struct("!Q")

PONG = b'{"jsonrpc":"2.0","method":"pong"}'


class MalformedError(Exception):
    """The server has sent what this client cannot read. The connection ends by it."""


class OutputFrame(NamedTuple):
    """A binary message with output."""

    stream: int
    stderr: bool
    truncated: bool
    offset: int  # position in the output after the piece
    gap: int
    data: bytes


def parse_output(message: bytes | bytearray | memoryview) -> OutputFrame:
    """Reads an output frame."""
    if len(message) < HEADER.size:
        raise MalformedError(f"malformed binary message of {len(message)} bytes")
    kind, flags, stream, offset = HEADER.unpack_from(message)
    begin = HEADER.size + (GAP.size if flags & FLAG_GAP else 0)
    if kind != KIND_OUTPUT or flags > 7 or len(message) < begin:
        raise MalformedError(f"malformed binary message of {len(message)} bytes, kind {kind}, flags {flags}")
    gap = GAP.unpack_from(message, HEADER.size)[0] if flags & FLAG_GAP else 0
    data = bytes(memoryview(message)[begin:])
    return OutputFrame(stream, bool(flags & FLAG_STDERR), bool(flags & FLAG_TRUNCATED), offset, gap, data)


def input_frame(stream: int, offset: int, data: bytes, eof: bool) -> bytes:
    """Makes a binary message with input."""
    return HEADER.pack(KIND_INPUT, FLAG_EOF if eof else 0, stream, offset) + data


def encode(message: dict[str, Any]) -> bytes:
    """Makes a text message, and refuses what the server could not read."""
    try:
        return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as e:
        raise ValueError(
            f"{e.object[e.start : e.start + 1]!a} is no text: Python makes such characters of a file name that is not"
            " UTF-8, which JSON cannot carry. Pass it to the command by its input"
        ) from None


def decode(text: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Reads a text message."""
    try:
        message = json.loads(str(text, "utf-8"))
    except ValueError as e:
        raise MalformedError(f"the server has sent a text message that is not JSON: {e}") from None
    if not isinstance(message, dict):
        raise MalformedError("the server has sent a text message that is not an object")
    return message
