"""The background sender: labels are on their way to the mount server milliseconds after they were saved.

A save only puts the task's number into this queue. What cannot be sent is dropped with a line in the log: the
database still knows it, and the next Sync stages it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable

from django.db import close_old_connections

from .mount_api import MountError
from .staging import BATCH, stage, staging

logger = logging.getLogger(__name__)

LIMIT = 100_000  # queued tasks of a storage; more are left for the Sync
TIMEOUT = 5.0  # seconds for an answer of the mount server
PAUSE = (
    0.04  # seconds before a batch: the save that queued it gets the processor and the database to itself until it ends
)


class Sender:
    """One thread per process that stages queued tasks in batches, in the order of their storages."""

    def __init__(self) -> None:
        self._queued: dict[int, set[int]] = {}
        self._wake = threading.Condition()
        self._working = False
        self._down = False
        self._thread: threading.Thread | None = None

    def put(self, storage_id: int, task_ids: Iterable[int]) -> None:
        """Queue tasks of a target storage. Returns at once and never raises for a mount server that is down."""
        with self._wake:
            waiting = self._queued.setdefault(storage_id, set())
            if len(waiting) < LIMIT:
                waiting.update(task_ids)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="label-sender", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def drain(self, timeout: float) -> bool:
        """Wait until the queue is empty, at most `timeout` seconds. Returns: whether it is."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._queued and not self._working, timeout)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: bool(self._queued))
            time.sleep(PAUSE)
            with self._wake:
                storage_id, waiting = next(iter(self._queued.items()))
                batch = sorted(waiting)[:BATCH]
                waiting.difference_update(batch)
                if not waiting:
                    del self._queued[storage_id]
                self._working = True
            try:
                close_old_connections()
                self._send(storage_id, batch)
            except Exception:
                logger.exception("Labels of %d tasks could not be staged; the next Sync stages them", len(batch))
            finally:
                with self._wake:
                    self._working = False
                    self._wake.notify_all()

    def _send(self, storage_id: int, batch: list[int]) -> None:
        from .models import PachydermExportStorage

        storage = PachydermExportStorage.objects.select_related("project").filter(pk=storage_id).first()
        if storage is None:
            return
        try:
            with staging(storage):
                stage(storage, batch, TIMEOUT)
        except (MountError, ValueError) as error:
            if not self._down:  # one line when it begins, not one per label
                logger.warning("%s: labels wait for the next Sync: %s", storage, error)
            self._down = True
            return
        self._down = False


_senders: dict[int, Sender] = {}
_lock = threading.Lock()


def sender() -> Sender:
    """This process's sender (a thread does not survive a fork, so each process has its own)."""
    with _lock:
        return _senders.setdefault(os.getpid(), Sender())
