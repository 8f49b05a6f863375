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

from .canonical import digest
from .media import read_label
from .mount_api import MountApi, MountError, mount_api
from .refs import FileAddress, Ref, mount_name
from .source import SHOWN
from .staging import BATCH, same_target, stage, staging, unstaged

if TYPE_CHECKING:
    from .models import PachydermExportStorage

logger = logging.getLogger(__name__)

TRIES = 5  # of a commit, while the branch moves or the mount server loses what it was brought
_KINDS = ("added", "changed", "deleted")


def commit_labels(storage: PachydermExportStorage, pressed_by: str) -> tuple[int, dict[str, Any]]:
    """Stage what is not staged, then make one commit of all that is; none when nothing changed.

    Returns: the number of label files in the commit, and what the card says: {"commit": id or None, "added",
    "changed", "deleted", "by", "annotators", "problems"}. Raises: MountError, ValueError, Superseded; what was staged
    stays staged, and the next Sync goes on from there.
    """
    ref = storage.ref
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
        result = _commit_on_head(storage, ref, pressed_by)
    problems += result.pop("lost", [])
    if problems:
        result["problems"] = sorted(set(problems))[:SHOWN]
    result["total_annotations"] = Annotation.objects.filter(project_id=storage.project_id).count()
    return result["added"] + result["changed"] + result["deleted"], result


def _batches(ids: list[Any]) -> Iterator[list[Any]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _commit_on_head(storage: PachydermExportStorage, ref: Ref, by: str) -> dict[str, Any]:
    """One commit on the branch as it was looked at: whoever moves it in between makes us look again."""
    for _ in range(TRIES):
        storages = same_target(storage)
        head, note = _follow_branch(storages, ref)
        try:
            result = _commit(storage, storages, ref, head, by)
        except MountError as error:
            if error.code != "head_moved":
                raise
            logger.info("%s: the branch moved, it is looked at again", storage)
            continue
        return {**result, "note": note} if note else result
    raise MountError(f"{ref} moves all the time: others commit to it. Nothing is lost: press Sync again.", 409)


def _follow_branch(storages: list[PachydermExportStorage], ref: Ref) -> tuple[str | None, str]:
    """Where the branch is now. Labels whose commit it does not come from any more are to be committed again.

    Moved back (a rollback), it is left there: labels of later commits stay out until they change.
    Returns: the head, and a sentence for the card, "" as a rule.
    """
    api, note = mount_api(), ""
    head = api.head(ref)
    for last in sorted({one.last_commit for one in storages} - {"", head}):
        kinship = _kinship(api, ref, last, head)
        if kinship == "after":
            continue
        if kinship == "before":
            note = f"{ref} was moved back: labels of later commits are left out of it until they change."
            continue
        logger.warning("%s does not come from commit %s any more: its labels are committed again", ref, last)
        for one in storages:
            if one.last_commit == last:
                one.files.update(committed="", since=None)
                type(one).objects.filter(pk=one.pk).update(last_commit="")
    return head, note


def _kinship(api: MountApi, ref: Ref, last: str, head: str | None) -> str:
    """Whether a head comes "after" a commit, from "before" it (or a fork there), or is "" nothing to it."""
    if head is None:
        return ""
    known: list[set[str]] = [{head}, {last}]
    walk: list[str | None] = [head, last]
    while any(walk):  # both sides in step, so that it takes no longer than the way to where they meet
        for side, other in ((0, 1), (1, 0)):
            at = walk[side]
            if at is None:
                continue
            try:
                at = walk[side] = api.resolve(Ref(ref.project, ref.repo, None, at)).parent
            except MountError as error:
                if error.status != 404:
                    raise
                at = walk[side] = None
                if side == 1 and known[1] == {last}:
                    return ""  # it was deleted, with the repository or by itself
            if at:
                known[side].add(at)
                if at in known[other]:
                    return "after" if at == last else "before"
    return ""


def _commit(
    storage: PachydermExportStorage,
    storages: list[PachydermExportStorage],
    ref: Ref,
    head: str | None,
    by: str,
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
    storage.still_mine()
    lost: list[str] = []
    for attempt in range(TRIES):
        made = api.commit(ref, message, metadata, f"{mount_name('sync', ref)}.{storage.ticket}.{attempt}", head)
        done = made.get("commit")
        if done and sum(int(made.get(f"files_{name}", 0)) for name in _KINDS) == counts.total():
            lost = []
            break
        # Other files were committed than we had staged, or none: what the branch really holds is looked at.
        lost = _missing(api, storages, ref, done or head)
        if done or not lost:
            break
        logger.warning("%s: the mount server lost %d staged labels, they are brought again", storage, len(lost))
        for one in storages:
            _bring_again(one)
    for one in storages:
        for paths in _batches(lost):
            one.files.filter(path__in=paths).update(staged=F("committed"))
            one.labelled_tasks.filter(path__in=paths).update(count=-1)
        _mark_committed(one, before)
    if lost:
        result["lost"] = [f"{len(lost)} labels got lost on their way into the commit: press Sync again."]
    ids = [one.pk for one in storages]
    type(storage).objects.filter(pk__in=ids).update(last_commit=done or head or "")
    if done:
        for name in _KINDS:
            result[name] = int(made.get(f"files_{name}", counts[name]))
        result.update(commit=done, annotators=annotators)
    return result


def _missing(api: MountApi, storages: list[PachydermExportStorage], ref: Ref, commit: str | None) -> list[str]:
    """The paths of staged labels that a commit does not hold as they were staged."""
    from .models import LabelFile

    found = set()
    rows = LabelFile.objects.filter(storage__in=storages).exclude(staged=F("committed"))
    for path, staged in rows.values_list("path", "staged"):
        text = read_label(api, FileAddress(ref.project, ref.repo, commit, path)) if commit else None
        if (digest(text) if text is not None else "") != staged:
            found.add(path)
    return sorted(found)


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
