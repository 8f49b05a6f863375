"""Label Studio's signals: a label that was saved or deleted is queued for staging.

A hook must neither raise (the row is already committed, the labeler would see an error for a saved label) nor wait.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any

from django.db import transaction
from django.db.models import Case, F, Value, When
from django.db.models.signals import post_delete, post_save, pre_delete

logger = logging.getLogger(__name__)


def connect() -> None:
    """Connect the hooks; called once when the app is ready."""
    from tasks.models import Annotation, Task, post_bulk_create

    from .models import PachydermExportStorage

    pre_delete.connect(_target_deleted, sender=PachydermExportStorage, dispatch_uid="pachyderm-target-deleted")
    post_save.connect(_annotation_saved, sender=Annotation, dispatch_uid="pachyderm-annotation-saved")
    post_delete.connect(_annotation_deleted, sender=Annotation, dispatch_uid="pachyderm-annotation-deleted")
    post_bulk_create.connect(_annotations_created, sender=Annotation, dispatch_uid="pachyderm-annotations-created")
    post_save.connect(_task_saved, sender=Task, dispatch_uid="pachyderm-task-saved")


def _queue(project_id: int | None, task_ids: list[int]) -> None:
    from .models import PachydermExportStorage
    from .sender import sender

    try:
        storages = list(PachydermExportStorage.objects.filter(project_id=project_id).values_list("pk", flat=True))
        for storage_id in storages:
            # Only what is committed can be read by the sender's own connection.
            transaction.on_commit(lambda pk=storage_id: sender().put(pk, task_ids), robust=True)
    except Exception:
        logger.exception("Labels of %d tasks could not be queued; the next Sync stages them", len(task_ids))


def _annotation_saved(sender: Any, instance: Any, **_: Any) -> None:
    _queue(instance.project_id, [instance.task_id])


def _annotation_deleted(sender: Any, instance: Any, **_: Any) -> None:
    _queue(instance.project_id, [instance.task_id])


def _annotations_created(sender: Any, objs: Any, **_: Any) -> None:
    """Imports with annotations, and predictions turned into annotations: there is no post_save for these."""
    by_project: dict[int | None, list[int]] = defaultdict(list)
    for annotation in objs:
        by_project[annotation.project_id].append(annotation.task_id)
    for project_id, task_ids in by_project.items():
        _queue(project_id, task_ids)


def _task_saved(sender: Any, instance: Any, created: bool, update_fields: Any, **_: Any) -> None:
    """A task whose data or meta changed has another label file, although no annotation changed."""
    if created or (update_fields is not None and not {"data", "meta"} & set(update_fields)):
        return
    from tasks.models import Annotation

    from .models import LabelledTask, PachydermExportStorage

    try:
        targets = set(
            PachydermExportStorage.objects.filter(project_id=instance.project_id).values_list("pk", flat=True)
        )
        if not targets:
            return
        rows = LabelledTask.objects.filter(task_id=instance.pk, storage__in=targets)
        # Every mark is another number: who has read the task before this one sees it, even where one was there.
        marked = Case(When(count__gt=0, then=Value(-1)), default=F("count") - 1)
        found = rows.exclude(count=0).update(count=marked)
        if found < len(targets) and Annotation.objects.filter(task_id=instance.pk).exists():
            # Its labels are perhaps being staged for the first time just now, with the old data.
            new = targets - set(rows.values_list("storage_id", flat=True))
            marks = [LabelledTask(storage_id=pk, task_id=instance.pk, path="", count=-1) for pk in new]
            found += len(LabelledTask.objects.bulk_create(marks, ignore_conflicts=True))
        if found:
            _queue(instance.project_id, [instance.pk])
    except Exception:
        logger.exception("Task %s could not be marked as changed", instance.pk)


def _target_deleted(sender: Any, instance: Any, **_: Any) -> None:
    """What a target storage staged and no Sync committed must not come into the next Sync of another one."""
    from .staging import staging_lock, unstage

    try:
        ref, left = instance.ref, instance.pending_paths()
    except Exception:
        logger.exception("%s: its staged labels could not be listed", instance)
        return

    def take_back() -> None:
        with staging_lock(ref):
            unstage(ref, left)

    if left:
        transaction.on_commit(take_back, robust=True)
