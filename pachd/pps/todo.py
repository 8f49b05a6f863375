"""The datums of a job that no worker has begun yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from pachd.pps.datums import Datum


class Todo:
    """What is left, for so many workers.

    A worker that has a datum may hold the next one, whose files it puts ready.  It either begins that one or gives it
    back, soon: the others do not end before.
    """

    def __init__(self, datums: Iterable[Datum], workers: int = 1) -> None:
        self._left, self._workers = deque(datums), workers
        self._held = 0
        self._changed = threading.Condition()

    def take(self) -> Datum | None:
        """The next datum; None when there are no more, and nobody can give one back."""
        with self._changed:
            while not self._left and self._held:
                self._changed.wait()
            return self._left.popleft() if self._left else None

    def hold(self) -> Datum | None:
        """The next datum, where there is one for every worker; `begin` or `give_back` must follow."""
        with self._changed:
            if len(self._left) < self._workers:
                return None
            self._held += 1
            return self._left.popleft()

    def begin(self) -> None:
        """A datum that was held is worked on now."""
        with self._changed:
            self._held -= 1
            self._changed.notify_all()

    def give_back(self, datum: Datum) -> None:
        """A datum that was held is for whoever is the first to take it."""
        with self._changed:
            self._held -= 1
            self._left.appendleft(datum)
            self._changed.notify_all()
