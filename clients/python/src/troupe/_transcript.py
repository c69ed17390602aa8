"""The output of an execution as it arrives: made contiguous over connections, queued for its reader, acknowledged."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from ._queue import Queue
from ._wire import Completed, Event, ExecutionStatus, Gap, Output, ProcessWarning
from .errors import DetachedError, DiscardedError

# Acks are sent when this part of a window was taken.
ACK_PARTS = 2

# U+FFFD, which stands for one to three bytes of the output.
REPLACEMENT = "\ufffd".encode()


class Phase(enum.Enum):
    """The state of the receiving side."""

    PENDING = "execute is not answered yet: a resume does not name the execution"
    RECEIVING = "events are queued"
    DISCARDING = "discard was called: output is only counted, and acknowledged"
    ENDED = "the end was received, and nothing follows it"
    FAILED = "the session ended first"


class HoleError(Exception):
    """Raised to ask for a new connection, because output is missing."""


class Piece(NamedTuple):
    """A piece of output as it has arrived."""

    stream: Literal["stdout", "stderr"]
    data: bytes
    truncated: bool
    offset: int
    gap: int
    exact: bool  # the length of data is that of the command's bytes


class Acknowledge(Protocol):
    """Sends an ack, and says whether there is a connection that takes it."""

    def __call__(self, execution_id: str, offset: int, *, completed: bool = False) -> bool: ...


class Transcript:
    """What was received of one execution, and how much of it was taken."""

    def __init__(self, id: str, offset: int, window: int, acknowledge: Acknowledge, over: Callable[[], None]) -> None:
        self.phase = Phase.PENDING
        self.completed: Completed | None = None
        #: How the session has ended, if it was before the execution.
        self.error: Exception | None = None
        #: Position after the last event that was taken.
        self.delivered = offset
        #: Set for an instant at every change, which wakes those that wait for it.
        self.changed = asyncio.Event()

        self._id = id
        self._window = window
        self._send_ack = acknowledge
        self._over = over  # called when there is nothing left to take

        # Receive state.
        self._offset = offset  # after the last queued event
        self._gap_retried_at = -1  # where missing bytes were asked for again
        self._last_warning: ProcessWarning | None = None  # recognizes what a resumed transcript repeats
        self._end_queued = False  # survivors may still write after it

        # Consumer state.
        self._queue = Queue()
        self._end_taken = False
        self._at_end: Exception | Literal["end"] | None = None  # what comes once the queue is empty; None: more

        # What the current connection has brought, and what it was told.
        self._arrived = offset
        self._end_arrived = False
        self._acked = offset
        self._end_acked = False

    # Taking.

    async def next(self) -> Event | None:
        """The next event, or None when all were taken."""
        while True:
            if self._queue:
                return self._take()
            if self._at_end == "end":
                return None
            if self._at_end:
                raise self._at_end
            await self.changed.wait()

    def _take(self) -> Event:
        event = self._queue.popleft()
        if isinstance(event, (Output, Gap)):
            self.delivered = event.offset
        elif isinstance(event, Completed):
            self._end_taken = True
        self._acknowledge()
        if self.phase is Phase.ENDED and not self._queue:
            self._over()
        return event

    def discard(self) -> None:
        """Drops what is queued and what still comes."""
        if self.phase in (Phase.PENDING, Phase.RECEIVING):
            self.phase = Phase.DISCARDING
        self._at_end = DiscardedError(f"the output of {self._id} is discarded")
        self._queue.clear()
        self.delivered = self._offset
        self._end_taken = self._end_queued
        self._acknowledge()
        if self.phase is Phase.ENDED:
            self._over()
        self._wake()

    # Receiving.

    def answered(self) -> None:
        """Execute was answered."""
        if self.phase is Phase.PENDING:
            self.phase = Phase.RECEIVING

    def attached_to(self, status: ExecutionStatus) -> None:
        """Takes over what a resume says of an execution that another client has started."""
        self.phase = Phase.RECEIVING
        done = status.completed
        # The end lies before what survivors wrote, and the server does not go back for it.
        if done and done.output_bytes < self._offset and done.survivors and done.survivors.kept:
            self.completed = done
            self._end_queued = self._end_arrived = True
            self._queue.push(done)

    def receive_output(self, piece: Piece) -> None:
        """Queues a piece after making it contiguous with what was queued before."""
        self._arrived = max(self._arrived, piece.offset)
        if self.phase is Phase.DISCARDING:
            self.delivered = self._offset = max(self._offset, piece.offset)
            self._acknowledge()
            return
        advance = piece.offset - self._offset  # new bytes that the gap and the data cover
        if not self._queues or advance <= 0:
            self._acknowledge()  # a repetition
            return
        data, gap = piece.data, piece.gap
        longest = shortest = len(data)
        if not piece.exact:
            shortest -= 2 * data.count(REPLACEMENT)
        if advance > longest + gap:
            self._ask_again()
            gap = advance - longest
        elif advance < shortest:
            data, gap = _last_bytes(data, advance, exact=piece.exact), 0
        elif advance < shortest + gap:
            gap = advance - shortest
        if gap > 0:
            self._push_gap(gap, self._offset + gap, unreported=gap > piece.gap)
        self._offset = piece.offset
        if data:
            self.receive(Output(piece.stream, data, piece.truncated, piece.offset))

    def _ask_again(self) -> None:
        """Raises once for each place where bytes are missing: a new connection may bring them."""
        if self._gap_retried_at != self._offset:
            self._gap_retried_at = self._offset
            raise HoleError(f"the output of {self._id} is not contiguous at {self._offset}")

    def _push_gap(self, missing: int, offset: int, *, unreported: bool) -> None:
        self._offset = offset
        self.receive(Gap(missing, offset, unreported))

    def receive_completed(self, completed: Completed) -> None:
        self._end_arrived = True
        if not self.completed and not self.error:
            self.completed = completed
            self._wake()
        if not self._queues or self._end_queued:
            self._acknowledge()
            return
        discarding = self.phase is Phase.DISCARDING
        missing = 0 if discarding else completed.output_bytes - self._offset
        if missing > 0:
            self._ask_again()
            self._push_gap(missing, completed.output_bytes, unreported=True)
        self._end_queued = True
        if discarding:
            self._end_taken = True
        else:
            self.receive(completed)
        if not (completed.survivors and completed.survivors.kept):
            self.phase = Phase.ENDED
            self._at_end = self._at_end or "end"
            if discarding:
                self._over()
        self._acknowledge()
        self._wake()

    def receive_warning(self, warning: ProcessWarning) -> None:
        """Queues a warning unless it repeats one after a resume."""
        last = self._last_warning
        if not (last and last.code == warning.code and last.offset == warning.offset):
            self._last_warning = warning
            self.receive(warning)

    def receive(self, event: Event) -> None:
        """Queues an event."""
        if self._queues and self.phase is not Phase.DISCARDING:
            self._queue.push(event)
            self._wake()

    @property
    def _queues(self) -> bool:
        return self.phase not in (Phase.ENDED, Phase.FAILED)

    def _wake(self) -> None:
        self.changed.set()
        self.changed.clear()

    # Acknowledging.

    def _acknowledge(self) -> None:
        """Acknowledges what was taken, where that is due.

        Of what this connection has brought, that is: the server ignores an ack of what it has not sent on it.
        """
        offset = min(self.delivered, self._arrived)
        completed = self._end_taken and self._end_arrived
        progress = offset - self._acked
        due = (
            progress >= self._window / ACK_PARTS
            or (completed and not self._end_acked)
            or (completed and progress > 0 and not self._queue)  # no mark follows what survivors write
        )
        if due and self._send_ack(self._id, offset, completed=completed):
            self._acked = offset
            self._end_acked = completed

    # Connections.

    def connection_lost(self) -> None:
        self._arrived = self._acked
        self._end_arrived = False

    def resumed_at(self, offset: int) -> None:
        """A new connection follows from `offset`, which acknowledges that and nothing else."""
        self._acked = self._arrived = offset
        self._end_acked = self._end_arrived = False

    def position(self) -> int | None:
        """Where a resume continues, or None if it must not name the execution."""
        return None if self.phase in (Phase.PENDING, Phase.FAILED) else self.delivered

    @property
    def received(self) -> bool:
        """Whether everything that the server has for the execution was received."""
        return self.phase is Phase.PENDING or not self._queues or self._end_queued

    def fail(self, error: Exception) -> None:
        """Ends the execution with its session. What is queued stays readable."""
        if self._queues:
            self.phase = Phase.FAILED
        self._at_end = self._at_end or error
        self.error = self.error or error
        self._wake()

    def detach(self) -> int | None:
        """Ends it for this client, and returns where another continues, if there is anything left."""
        follow = self.phase is not Phase.PENDING and not (self.phase is Phase.ENDED and not self._queue)
        self._queue.clear()
        error = DetachedError("the client is detached")
        if follow and self._at_end == "end":
            self._at_end = error  # the events before the end were dropped
        self.fail(error)
        return self.delivered if follow else None


def _last_bytes(data: bytes, n: int, *, exact: bool) -> bytes:
    """The last n bytes of the output. Where U+FFFD makes that inexact, each is taken for one byte."""
    if exact:
        return data[len(data) - n :]
    i = len(data)
    while n > 0 and i > 0:
        i -= 3 if data[max(i - 3, 0) : i] == REPLACEMENT else 1
        n -= 1
    return data[i:]
