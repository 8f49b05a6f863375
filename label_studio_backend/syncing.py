"""What source and target storages share when they Sync: one Sync at a time, a heartbeat, and a truthful end.

Label Studio's own lock does nothing on SQLite (two clicks import everything twice), its progress is written by the
working thread (a long step looks like a dead one after 25 s), and its target export reports errors as success.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from core.current_request import get_current_request
from django.conf import settings
from django.db import connection, models
from django.db.models import Q
from django.utils import timezone
from rest_framework.exceptions import ValidationError

from .mount_api import MountError

logger = logging.getLogger(__name__)

STALE = timedelta(seconds=25)  # five missed heartbeats, as Label Studio counts them


class Superseded(Exception):
    """Another Sync took over because this one had given no sign of life."""


def reason_of(error: BaseException) -> str:
    """An error as one sentence for the storage's card."""
    if isinstance(error, ValidationError):
        detail = error.detail
        while isinstance(detail, (dict, list)) and detail:
            detail = next(iter(detail.values())) if isinstance(detail, dict) else detail[0]
        return str(detail)
    if isinstance(error, (MountError, ValueError, Superseded)):
        return str(error)
    return f"{type(error).__name__}: {error}"


class SyncedStorage(models.Model):
    """Mixin for a storage whose Sync is `run_sync(pressed_by) -> (count, meta)`; see `sync`."""

    heartbeat = models.DateTimeField(null=True, editable=False)
    ticket = models.CharField(max_length=32, default="", blank=True, editable=False)

    class Meta:
        abstract = True

    def run_sync(self, pressed_by: str) -> tuple[int, dict[str, Any]]:
        """Do the work. Returns: what `last_sync_count` becomes, and what is added to `meta`."""
        raise NotImplementedError

    def progress(self, count: int, **meta: Any) -> None:
        """Report progress; the heartbeat writes it to the card. Raises: Superseded."""
        self._progress = (count, meta)
        if getattr(self, "_lost", False):
            self.still_mine()

    def still_mine(self) -> None:
        """Asked before something is made that a second Sync must not make again; in the same transaction, if any.

        Raises: Superseded when another Sync took over, or the storage is gone.
        """
        tickets = type(self).objects.select_for_update() if connection.in_atomic_block else type(self).objects
        ticket = tickets.filter(pk=self.pk).values_list("ticket", flat=True).first()
        if ticket is None:
            raise Superseded(f"{self} was deleted meanwhile.")
        if ticket != self.ticket:
            raise Superseded("Another Sync of this storage took over. Press Sync again if it failed.")

    def info_set_queued(self) -> bool:
        """Take the lock: one conditional UPDATE decides, in every database. False: another Sync is alive."""
        now, status = timezone.now(), self.Status
        ticket = uuid.uuid4().hex
        free = ~Q(status__in=[status.QUEUED, status.IN_PROGRESS])
        dead = Q(heartbeat__isnull=True) | Q(heartbeat__lt=now - STALE)
        won = (
            type(self)
            .objects.filter(Q(pk=self.pk) & (free | dead))
            .update(status=status.QUEUED, heartbeat=now, ticket=ticket)
        )
        if not won:
            return False
        self.refresh_from_db()
        self.meta = self.meta or {}
        self._update_queued_status()
        return True

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        stop = threading.Event()

        def beat() -> None:
            try:
                while not stop.wait(settings.STORAGE_IN_PROGRESS_TIMER):
                    now = timezone.now()
                    count, meta = self._progress
                    meta = {**self.meta, **meta, "time_last_ping": str(now)}
                    try:
                        mine = (
                            type(self)
                            .objects.filter(pk=self.pk, ticket=self.ticket)
                            .update(heartbeat=now, meta=meta, last_sync_count=count, status=self.Status.IN_PROGRESS)
                        )
                        self._lost = not mine
                    except Exception:
                        logger.warning("%s: the heartbeat could not be written", self, exc_info=True)
            finally:
                connection.close()

        self._progress, self._lost = (0, {}), False
        thread = threading.Thread(target=beat, name=f"sync-heartbeat-{self.pk}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _finish(self, status: str, **values: Any) -> None:
        now = timezone.now()
        self.meta["duration"] = (now - self._started).total_seconds()
        self.meta["time_last_ping"] = str(now)
        mine = type(self).objects.filter(pk=self.pk, ticket=self.ticket).update(status=status, meta=self.meta, **values)
        if not mine:
            logger.warning("%s: its result is not recorded, another Sync took over or the storage is gone", self)

    def sync(self, save_only_new_annotations: bool = False) -> None:
        """One Sync, in this request. Never raises: the storage's status, meta and traceback say how it ended.

        Does nothing when another Sync of this storage is alive. `save_only_new_annotations` is Label Studio's and
        makes no difference here: only what is new is ever written.
        """
        request = get_current_request()
        user = getattr(request, "user", None)
        pressed_by = getattr(user, "email", "") or "Label Studio"
        if not self.info_set_queued():
            logger.info("%s: a Sync is already running", self)
            return
        self._started = timezone.now()
        try:
            self.info_set_in_progress()
            with self._beating():
                count, meta = self.run_sync(pressed_by)
        except Exception as error:
            known = isinstance(error, (MountError, ValueError, Superseded))
            logger.warning("%s: Sync failed: %s", self, error, exc_info=not known)
            self.meta["time_failure"] = str(timezone.now())
            self.meta["error"] = reason_of(error)
            self._finish(self.Status.FAILED, traceback=reason_of(error), last_sync=timezone.now())
            return
        self.meta["time_completed"] = str(timezone.now())
        self.meta.update(meta)
        problems = meta.get("problems") or []
        done = self.Status.COMPLETED_WITH_ERRORS if problems else self.Status.COMPLETED
        self._finish(done, last_sync=timezone.now(), last_sync_count=count, traceback="\n".join(problems) or None)

    def info_set_failed(self) -> None:
        """Label Studio's own way to report a failure: the reason, without a Python traceback on the card."""
        import sys

        error = sys.exc_info()[1]
        self.status = self.Status.FAILED
        self.traceback = reason_of(error) if error else "The Sync failed."
        self.save(update_fields=["status", "traceback"])

    def health_check(self) -> None:
        """Label Studio's check when cards are shown: a Sync without a sign of life has failed.

        One conditional UPDATE: what is in memory here may be older than the end of that Sync.
        """
        active = [self.Status.QUEUED, self.Status.IN_PROGRESS]
        dead = Q(heartbeat__isnull=True) | Q(heartbeat__lt=timezone.now() - STALE)
        if self.status in active and self._interrupted(dead, pk=self.pk):
            self.refresh_from_db(fields=["status", "traceback"])

    @classmethod
    def release_interrupted(cls, alone: bool = True) -> int:
        """At the start of the server: Syncs that a stopped process left behind are failed. Returns: how many.

        Args: alone — no other process serves this database, so that whatever runs there was interrupted.
        """
        dead = Q() if alone else Q(heartbeat__isnull=True) | Q(heartbeat__lt=timezone.now() - STALE)
        return cls._interrupted(dead)

    @classmethod
    def _interrupted(cls, dead: Q, **which: Any) -> int:
        running = cls.objects.filter(dead, status__in=[cls.Status.QUEUED, cls.Status.IN_PROGRESS], **which)
        reason = "Label Studio was stopped during this Sync. Nothing is lost: press Sync again."
        return int(running.update(status=cls.Status.FAILED, traceback=reason, heartbeat=None))
