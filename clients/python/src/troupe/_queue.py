"""The events that an execution's reader has not taken yet."""

from __future__ import annotations

from collections import deque

from ._wire import Event, Output

# Pieces are joined up to this size, so that a window of tiny ones costs little more than their bytes.
JOIN_BELOW = 16 << 10


class _Joined:
    """Pieces of output that were joined."""

    __slots__ = ("data", "offset", "stream")

    def __init__(self, first: Output) -> None:
        self.stream = first.stream
        self.data = bytearray(first.data)
        self.offset = first.offset


class Queue:
    """A queue of events that joins small neighbouring pieces of output."""

    def __init__(self) -> None:
        self._events: deque[Event | _Joined] = deque()

    def __len__(self) -> int:
        return len(self._events)

    def push(self, event: Event) -> None:
        if not (isinstance(event, Output) and self._join(event)):
            self._events.append(event)

    def _join(self, piece: Output) -> bool:
        """Appends a piece to the last one if they belong together."""
        last = self._events[-1] if self._events else None
        if piece.truncated or not isinstance(last, (Output, _Joined)) or last.stream != piece.stream:
            return False
        if len(last.data) + len(piece.data) > JOIN_BELOW:
            return False
        if isinstance(last, Output):
            if last.truncated:
                return False
            last = self._events[-1] = _Joined(last)
        last.data += piece.data
        last.offset = piece.offset
        return True

    def popleft(self) -> Event:
        event = self._events.popleft()
        if isinstance(event, _Joined):
            return Output(event.stream, bytes(event.data), False, event.offset)
        return event

    def clear(self) -> None:
        self._events.clear()
