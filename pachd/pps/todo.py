"""The datums of a job that no worker has begun yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from pachd.pps.datums import Datum


class Datums(Protocol):
    """Where a worker gets its datums."""

    def take(self) -> Datum | None:
        """The next datum; None when there are no more, and nobody can give one back."""

    def release(self) -> None:
        """Let others have what is held for this worker: it has a datum that takes longer."""


class Todo:
    """What is left, for so many workers.

    A worker may hold some datums to begin one after the other; those that it cannot begin soon it gives back. The
    others do not end before.
    """

    def __init__(self, datums: Iterable[Datum], workers: int = 1) -> None:
        self._left, self._workers = deque(datums), workers
        self._held = 0
        self._changed = threading.Condition()

    def take(self) -> Datum | None:
        with self._changed:
            while not self._left and self._held:
                self._changed.wait()
            return self._left.popleft() if self._left else None

    def release(self) -> None:
        """Nothing: `take` holds none."""

    def hold(self, most: int) -> list[Datum]:
        """The next datums, at most so many, and fewer when the others would get none; [] as `take` gives None.

        `settle` must follow.
        """
        with self._changed:
            while not self._left and self._held:
                self._changed.wait()
            count = min(most, -(-len(self._left) // (2 * self._workers)))
            self._held += count
            return [self._left.popleft() for _ in range(count)]

    def settle(self, count: int, back: Sequence[Datum] = ()) -> None:
        """Of ``count`` datums that were held all have been begun but those that are given back."""
        with self._changed:
            self._held -= count
            self._left.extendleft(reversed(back))
            self._changed.notify_all()
