"""What an execution's reader has not taken."""

from __future__ import annotations

import tracemalloc
import unittest

import support  # noqa: F401  # finds the package

from troupe import Completed, Event, Output
from troupe._queue import JOIN_BELOW, Queue


class QueueTest(unittest.TestCase):
    def test_tiny_pieces_cost_little_more_than_their_bytes(self) -> None:
        queue, size = Queue(), 256 << 10
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for i in range(size):
            queue.push(Output("stdout", b"x", False, i + 1))
        self.assertLess(tracemalloc.get_traced_memory()[0], 2 * size)
        at = 0
        while queue:
            piece = queue.popleft()
            assert isinstance(piece, Output)
            self.assertLessEqual(len(piece.data), JOIN_BELOW)
            at += len(piece.data)
            self.assertEqual(piece.offset, at)
        self.assertEqual(at, size)

    def test_only_pieces_that_belong_together_are_joined(self) -> None:
        events: list[Event] = [
            Output("stdout", b"a", False, 1),
            Output("stderr", b"b", False, 2),
            Output("stderr", b"[TRUNCATED]", True, 3),
            Output("stderr", b"c", False, 4),
            Completed("x"),
            Output("stderr", b"d", False, 5),
            Output("stderr", b"e" * JOIN_BELOW, False, 5 + JOIN_BELOW),
        ]
        queue = Queue()
        for event in events:
            queue.push(event)
        self.assertEqual([queue.popleft() for _ in range(len(queue))], events)


if __name__ == "__main__":
    unittest.main()
