"""A Sync of a target storage: everything labelled since the last one becomes one commit."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.db.models import F
from django.utils import timezone
from tasks.models import Annotation
from users.models import User

from .mount_api import MountError, mount_api
from .refs import Ref, mount_name
from .source import SHOWN
from .staging import BATCH, same_target, stage, staging, unstaged

if TYPE_CHECKING:
    from .models import PachydermExportStorage

logger = logging.getLogger(__name__)


def commit_labels(storage: PachydermExportStorage, pressed_by: str) -> tuple[int, dict[str, Any]]:
    """Stage what is not staged, then make one commit of all that is; none when nothing changed.

    Returns: the number of label files in the commit, and what the card says: {"commit": id or None, "added",
    "changed", "deleted", "by", "annotators", "problems"}. Raises: MountError, ValueError, Superseded; what was staged
    stays staged, and the next Sync goes on from there.
    """
    ref = storage.ref
    _forget_lost_commits(storage, ref)
    problems: list[str] = []
    staged = 0
    # Most of it without holding up the background sender for long; the rest below, together with the commit.
    found = unstaged(storage)
    for batch in _batches(found):
        with staging(storage):
            done = stage(storage, batch)
        problems += done.problems
        staged += len(batch)
        storage.progress(staged)
    with staging(storage):
        # What was saved while those were staged. Nothing to stage took no time: it need not be looked for twice.
        late = unstaged(storage) if found and not problems else []
        for batch in _batches(late):
            problems += stage(storage, batch).problems
        storages = same_target(storage)
        result = _commit(storage, storages, ref, pressed_by)
    if problems:
        result["problems"] = sorted(set(problems))[:SHOWN]
    result["total_annotations"] = Annotation.objects.filter(project_id=storage.project_id).count()
    return result["added"] + result["changed"] + result["deleted"], result


def _batches(ids: list[int]) -> Iterator[list[int]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _forget_lost_commits(storage: PachydermExportStorage, ref: Ref) -> None:
    """When our last commit is gone (the repository was made anew), all labels are to be committed again."""
    if not storage.last_commit:
        return
    try:
        mount_api().resolve(Ref(ref.project, ref.repo, None, storage.last_commit))
    except MountError as error:
        if error.status != 404:
            raise
        logger.warning("%s: commit %s is gone, its labels are committed again", storage, storage.last_commit)
        storage.files.update(committed="", since=None)
        type(storage).objects.filter(pk=storage.pk).update(last_commit="")


def _commit(
    storage: PachydermExportStorage, storages: list[PachydermExportStorage], ref: Ref, by: str
) -> dict[str, Any]:
    counts = _pending_counts(storages)
    result: dict[str, Any] = {"commit": None, "added": 0, "changed": 0, "deleted": 0, "by": by}
    if not counts.total():
        return result
    api = mount_api()
    status = api.status(api.writing(ref, again=True))
    if int(status.get("dirty_files") or 0) + int(status.get("dirty_deletes") or 0) < counts.total():
        # The mount server knows less than we brought (its state was lost, or a commit was made that we did not see).
        logger.warning("%s: staged labels are missing at the mount server, they are brought again", storage)
        for one in storages:
            _bring_again(one)
        counts = _pending_counts(storages)
    annotators = _annotators(storages)
    title = storage.project.title
    metadata = {
        "howdah.kind": "label-sync",
        "howdah.by": by,
        "howdah.project": str(storage.project_id),
        "howdah.project_title": title,
        "howdah.added": str(counts["added"]),
        "howdah.changed": str(counts["changed"]),
        "howdah.deleted": str(counts["deleted"]),
        "howdah.annotators": json.dumps(annotators, sort_keys=True),
    }
    message = f"Sync by {by}: +{counts['added']} ~{counts['changed']} -{counts['deleted']} labels (project {title})"
    before = timezone.now()
    made = api.commit(ref, message, metadata, key=f"{mount_name('sync', ref)}.{storage.ticket}")
    for one in storages:
        _mark_committed(one, before)
    if made.get("commit"):
        ids = [one.pk for one in storages]
        type(storage).objects.filter(pk__in=ids).update(last_commit=made["commit"])
        for name in ("added", "changed", "deleted"):
            result[name] = int(made.get(f"files_{name}", counts[name]))
        result.update(commit=made["commit"], annotators=annotators)
    return result


def _pending_counts(storages: list[PachydermExportStorage]) -> Counter[str]:
    from .models import LabelFile

    counts: Counter[str] = Counter()
    seen: set[str] = set()  # two storages of one project may bring the same file
    rows = LabelFile.objects.filter(storage__in=storages).exclude(staged=F("committed"))
    for path, staged, committed in rows.values_list("path", "staged", "committed"):
        if path not in seen:
            seen.add(path)
            counts["deleted" if not staged else "changed" if committed else "added"] += 1
    return counts


def _annotators(storages: list[PachydermExportStorage]) -> dict[str, int]:
    """How many new or changed annotations each annotator has in the label files that are about to be committed."""
    from .models import LabelFile, LabelledTask

    marks = ", ".join(["%s"] * len(storages))
    sql = f"""
        SELECT email, COUNT(*) FROM (
            SELECT DISTINCT a.id, u.email FROM {LabelFile._meta.db_table} f
            JOIN {LabelledTask._meta.db_table} t ON t.storage_id = f.storage_id AND t.path = f.path
            JOIN {Annotation._meta.db_table} a ON a.task_id = t.task_id
            JOIN {User._meta.db_table} u ON u.id = a.completed_by_id
            WHERE f.storage_id IN ({marks}) AND f.staged <> f.committed AND f.staged <> ''
                  AND (f.since IS NULL OR a.updated_at > f.since)) labels
        GROUP BY email ORDER BY email"""
    with connection.cursor() as cursor:
        cursor.execute(sql, [one.pk for one in storages])
        return dict(cursor.fetchall())


def _bring_again(storage: PachydermExportStorage) -> None:
    paths = list(storage.files.exclude(staged=F("committed")).values_list("path", flat=True))
    for start in range(0, len(paths), BATCH):
        part = storage.labelled_tasks.filter(path__in=paths[start : start + BATCH])
        stage(storage, list(part.values_list("task_id", flat=True)), force=True)


def _mark_committed(storage: PachydermExportStorage, before: Any) -> None:
    files = storage.files.filter(staged_at__lte=before)
    files.exclude(staged=F("committed")).update(committed=F("staged"), since=F("newest"))
    gone = files.filter(staged="", committed="")
    storage.labelled_tasks.filter(count=0, path__in=gone.values("path")).delete()
    gone.delete()
