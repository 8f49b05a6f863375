"""The clock of triggers: a thread that moves branches when the cron spec of their trigger says so."""

import logging
import sqlite3
import threading

from pachd.errors import PachError
from pachd.pfs import propagate, schedule, triggers
from pachd.store import Store, system

log = logging.getLogger(__name__)
_SECOND = 1_000_000_000
_LONGEST = 60.0  # seconds: the wall clock may be set while we wait
_RETRY = 5 * _SECOND  # ns until a branch that could not be moved is tried again


class Clock:
    """Moves the branches of one store from `start` to `stop`.

    The time of a branch's head is its last tick, so what was missed while no pachd ran happens once, at the start.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._last: dict[tuple[int, str], int] = {}  # (branch, cron spec): its last tick, ns
        self._changed = triggers.changed(store)
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="trigger clock", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, after a tick that is under way."""
        self._stopping = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._changed.clear()
            try:
                upcoming = self.tick()
            except (PachError, sqlite3.Error, OSError):
                log.exception("the branches that move by the clock could not be read")
                upcoming = system.now_ns() + _RETRY
            self._changed.wait(min(max((upcoming - system.now_ns()) / _SECOND, 0.0), _LONGEST))

    def tick(self) -> int:
        """Move every branch whose time has come; returns when the next one is due (ns since 1970)."""
        with self.store.read() as snapshot:
            found = triggers.timed(snapshot)
        known, upcoming = self._last, schedule.NEVER
        self._last = {}
        for pk, branch, trigger, started in found:
            key = pk, trigger.cron_spec
            last = known.get(key, started)
            due = schedule.parse(trigger.cron_spec)(last)
            now = system.now_ns()
            if due <= now:
                try:
                    with propagate.writing(self.store) as txn:
                        triggers.tick(txn, pk, trigger.cron_spec)
                    last = due
                    skipped = schedule.parse(trigger.cron_spec)(due)
                    if skipped <= now:
                        last = now  # one tick stands for all that were missed
                    due = schedule.parse(trigger.cron_spec)(last)
                except (PachError, sqlite3.Error, OSError):
                    log.exception("the trigger of %s could not fire: it is tried again", branch)
                    due = now + _RETRY
            self._last[key] = last
            upcoming = min(upcoming, due)
        return upcoming
