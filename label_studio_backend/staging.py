"""Staging: the labels of tasks are brought to the mount server as files, and it is remembered what was brought.

Label Studio's database is the durable record: an annotation that differs from what `LabelledTask` remembers is not
staged yet. So nothing is lost when a hook never ran (bulk imports, a stopped process, a mount server that is down).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from tasks.models import Annotation, Task
from users.models import User

from .canonical import digest, encode, iso, label_path
from .media import read_label
from .mount_api import MountError, mount_api
from .refs import FileAddress, Ref, first_address
from .source import data_key

if TYPE_CHECKING:
    from .models import PachydermExportStorage

logger = logging.getLogger(__name__)

BATCH = 500
_TASK = ("id", "inner_id", "data", "meta", "created_at", "allow_skip", "file_upload__file")
_ANNOTATION = (
    *("id", "task_id", "completed_by_id", "updated_by_id", "result", "was_cancelled", "ground_truth", "created_at"),
    *("updated_at", "draft_created_at", "lead_time", "prediction", "result_count", "unique_id", "import_id"),
    *("last_action", "bulk_created", "parent_prediction_id", "parent_annotation_id"),
)
# Foreign keys under the names that exports give them.
_KEYS = ("task_id", "completed_by_id", "updated_by_id", "parent_prediction_id", "parent_annotation_id")
_EXPORTED = {name: name.removesuffix("_id") for name in _KEYS}


class Outcome(NamedTuple):
    """What one staging did: files written and deleted, and a sentence for each item that could not be written."""

    written: int
    deleted: int
    problems: list[str]


@contextlib.contextmanager
def staging_lock(ref: Ref) -> Iterator[None]:
    """Held from reading labels until they are staged, so that an older state never overwrites a newer one.

    One lock per branch, for all threads and processes of this machine. A storage's settings change under it too.
    """
    name = hashlib.blake2b(str(ref).encode(), digest_size=8).hexdigest()
    with open(Path(settings.BASE_DATA_DIR) / f"pachyderm-{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staging(storage: PachydermExportStorage) -> Iterator[None]:
    """The staging lock of a storage, with its settings as they are now: they may have changed while it was waited for.

    Raises: ValueError when the storage is gone or points elsewhere now.
    """
    ref = storage.ref
    with staging_lock(ref):
        try:
            storage.refresh_from_db(fields=["repository", "prefix", "can_delete_objects"])
        except type(storage).DoesNotExist:
            raise ValueError(f"{storage} was deleted meanwhile.") from None
        if storage.ref != ref:
            raise ValueError(f"{storage} was changed meanwhile: it wrote to {ref}. Press Sync again.")
        yield


def unstaged(storage: PachydermExportStorage) -> list[int]:
    """The tasks of a target storage whose annotations differ from what was staged, deleted ones included; sorted."""
    from .models import LabelledTask

    annotations, labelled = Annotation._meta.db_table, LabelledTask._meta.db_table
    sql = f"""
        SELECT a.task_id FROM (
            SELECT task_id, COUNT(*) AS count, MAX(updated_at) AS newest, SUM(id) AS ids,
                   SUM(CASE WHEN ground_truth THEN id ELSE 0 END
                       + CASE WHEN was_cancelled THEN 2 * id ELSE 0 END) AS flags
            FROM {annotations} WHERE project_id = %s AND task_id IS NOT NULL GROUP BY task_id
        ) a LEFT JOIN {labelled} s ON s.storage_id = %s AND s.task_id = a.task_id
        WHERE s.id IS NULL OR s.count <> a.count OR s.newest IS NULL OR s.newest <> a.newest OR s.ids <> a.ids
              OR s.flags <> a.flags
        UNION
        SELECT s.task_id FROM {labelled} s WHERE s.storage_id = %s AND s.count <> 0 AND s.task_id NOT IN (
            SELECT task_id FROM {annotations} WHERE project_id = %s AND task_id IS NOT NULL)
        ORDER BY 1"""
    with connection.cursor() as cursor:
        cursor.execute(sql, [storage.project_id, storage.pk, storage.pk, storage.project_id])
        return [row[0] for row in cursor.fetchall()]


def stage(
    storage: PachydermExportStorage, task_ids: Iterable[int], timeout: float = 60.0, force: bool = False
) -> Outcome:
    """Bring the label files of these tasks to the mount server; the caller holds `staging(storage)`.

    Args: timeout — seconds for each answer of the mount server; force — also files that were staged before.
    Raises: MountError; nothing is remembered as staged then.
    """
    return _Batch(storage, set(task_ids)).run(timeout, force)


class _Batch:
    def __init__(self, storage: PachydermExportStorage, task_ids: set[int]) -> None:
        self.storage = storage
        self.ref, self.prefix = storage.ref, storage.directory
        rows = {row.task_id: row for row in storage.labelled_tasks.filter(task_id__in=task_ids)}
        # Read before the tasks: a hook that marks a task after this has seen data that may be newer.
        self.marks = {task_id: row.count for task_id, row in rows.items()}
        self.old_paths = {row.path for row in rows.values() if row.path}
        found = Task.objects.filter(id__in=task_ids, project_id=storage.project_id)
        self.tasks: dict[int, dict[str, Any]] = {task["id"]: task for task in found.values(*_TASK)}
        self.key = data_key(storage.project)
        self.paths: dict[int, str] = {}
        self.items: dict[str, str] = {}
        for task_id in task_ids:
            if task_id in self.tasks:
                self._place(task_id)
            elif task_id in rows and rows[task_id].path:
                self.paths[task_id] = rows[task_id].path
        self._add_siblings()
        self._load_annotations()

    def _place(self, task_id: int) -> None:
        address = first_address(self.tasks[task_id]["data"])
        item = address.path if address else f"/tasks/{task_id}"
        path = label_path(self.prefix, item)
        self.paths[task_id] = path
        self.items[path] = f"{address.project}/{address.repo}:{item}" if address else f"task {task_id}"

    def _add_siblings(self) -> None:
        # Other tasks of the same item: a file that changed in the source became another task with the same label file.
        paths = self.old_paths | set(self.paths.values())
        others = self.storage.labelled_tasks.filter(path__in=paths).exclude(task_id__in=self.paths)
        found_others = list(others.values_list("task_id", "path", "count"))
        siblings = {task_id: path for task_id, path, _ in found_others}
        self.marks.update({task_id: count for task_id, _, count in found_others})
        found = Task.objects.filter(id__in=siblings, project_id=self.storage.project_id)
        for task in found.values(*_TASK):
            self.tasks[task["id"]] = task
        for task_id, path in siblings.items():
            self.paths[task_id] = path
            if task_id in self.tasks:
                self._place(task_id)

    def _load_annotations(self) -> None:
        self.annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
        found = Annotation.objects.filter(task_id__in=self.tasks, project_id=self.storage.project_id).order_by("id")
        for row in found.values(*_ANNOTATION):
            self.annotations[row["task_id"]].append(row)
        people = {row["completed_by_id"] for rows in self.annotations.values() for row in rows}
        fields = ("id", "email", "first_name", "last_name")
        self.people = {person["id"]: person for person in User.objects.filter(id__in=people).values(*fields)}

    def _text(self, task: dict[str, Any]) -> str:
        rows = self.annotations[task["id"]]
        data = dict(task["data"])
        if settings.DATA_UNDEFINED_NAME in data:
            data[self.key] = data.pop(settings.DATA_UNDEFINED_NAME)
        skipped = sum(bool(row["was_cancelled"]) for row in rows)
        return encode(
            {
                "id": task["id"],
                "inner_id": task["inner_id"],
                "data": data,
                "meta": task["meta"] or {},
                "created_at": iso(task["created_at"]),
                "allow_skip": task["allow_skip"],
                "file_upload": (task["file_upload__file"] or "").rpartition("/")[2] or None,
                "project": self.storage.project_id,
                "annotations": [self._annotation(row) for row in rows],
                "total_annotations": len(rows) - skipped,
                "cancelled_annotations": skipped,
                "predictions": [],
                "drafts": [],
            }
        )

    def _annotation(self, row: dict[str, Any]) -> dict[str, Any]:
        body = {_EXPORTED.get(name, name): value for name, value in row.items()}
        body["completed_by"] = self.people.get(row["completed_by_id"])
        body["project"] = self.storage.project_id
        body["unique_id"] = str(row["unique_id"]) if row["unique_id"] else None
        for name in ("created_at", "updated_at", "draft_created_at"):
            body[name] = iso(row[name])
        return body

    def _fingerprint(self, task_id: int) -> dict[str, Any]:
        rows = self.annotations[task_id] if task_id in self.tasks else []
        return {
            "count": len(rows),
            "newest": max((row["updated_at"] for row in rows), default=None),
            "ids": sum(row["id"] for row in rows),
            "flags": sum(row["id"] * (bool(row["ground_truth"]) + 2 * bool(row["was_cancelled"])) for row in rows),
        }

    def run(self, timeout: float, force: bool) -> Outcome:
        """Stage the batch and remember it."""
        paths = self.old_paths | set(self.paths.values())
        known = {file.path: file for file in self.storage.files.filter(path__in=paths)}
        taken = self._taken(paths, known)
        winners: dict[str, int] = {}
        for task_id in sorted(self.paths):  # the latest task of an item that has labels speaks for it
            if self.annotations.get(task_id):
                winners[self.paths[task_id]] = task_id
        sent: list[dict[str, Any]] = []
        remembered: dict[str, tuple[str, datetime | None]] = {}
        for path in sorted(paths - taken.keys()):
            old = known[path].staged if path in known else ""
            if path not in winners and old and self.storage.can_delete_objects is False:
                continue
            try:
                text = self._text(self.tasks[winners[path]]) if path in winners else ""
            except ValueError as error:
                taken[path] = f"{path}: the labels of task {winners[path]} are not valid JSON ({error})."
                continue
            new = digest(text) if text else ""
            if text and (new != old or force):
                sent.append({"path": path, "text": text})
            elif not text and (old or force):
                sent.append({"path": path, "delete": True})
            newest = self._fingerprint(winners[path])["newest"] if text else None
            if new != old or path not in known:
                remembered[path] = (new, newest)
        for path, sentence in self._send(sent, timeout).items():
            taken[path] = sentence
            remembered.pop(path, None)
        try:
            self._remember(remembered, {task: path for task, path in self.paths.items() if path not in taken})
        except IntegrityError:  # the storage was deleted meanwhile: nobody would take back what was brought
            unstage(self.ref, [file["path"] for file in sent])
            raise ValueError(f"{self.storage} was deleted meanwhile.") from None
        deleted = sum("delete" in file for file in sent)
        return Outcome(len(sent) - deleted, deleted, [taken[path] for path in sorted(taken)])

    def _send(self, files: list[dict[str, Any]], timeout: float) -> dict[str, str]:
        """Stage files; one that the mount server refuses (a name Pachyderm does not take) must not stop the others.

        Returns: {path: sentence} of the refused ones.
        """
        if not files:
            return {}
        try:
            mount_api().stage(self.ref, files, timeout)
            return {}
        except MountError as error:
            if error.status != 400:
                raise
            if len(files) == 1:
                return {files[0]["path"]: f"{files[0]['path']} is refused: {error}"}
        half = len(files) // 2
        return self._send(files[:half], timeout) | self._send(files[half:], timeout)

    def _taken(self, paths: set[str], known: dict[str, Any]) -> dict[str, str]:
        from .models import LabelFile

        taken = {}
        for path, file in known.items():
            item = self.items.get(path)
            if item and file.item != item and file.staged:
                taken[path] = f"{path}: {item} is not written, the file already holds the labels of {file.item}."
        others = [one.pk for one in same_target(self.storage) if one.pk != self.storage.pk]
        if others:
            rivals = LabelFile.objects.filter(storage__in=others, path__in=paths).exclude(staged="")
            for file in rivals.select_related("storage__project"):
                same_project = file.storage.project_id == self.storage.project_id
                if not (same_project and file.item == self.items.get(file.path, file.item)):
                    taken[file.path] = (
                        f"{file.path} is not written: it belongs to project {file.storage.project.title!r} "
                        f"(storage {file.storage_id}). Give one of the two storages another prefix."
                    )
        return taken

    def _marked_since(self, task_id: int, count: int) -> bool:
        return count < 0 and count != self.marks.get(task_id)

    def _remember(self, files: dict[str, tuple[str, datetime | None]], tasks: dict[int, str]) -> None:
        from .models import LabelFile, LabelledTask

        now = timezone.now()
        rows = [
            LabelFile(
                storage=self.storage,
                path=path,
                item=self.items.get(path, ""),
                staged=staged,
                staged_at=now,
                newest=newest,
            )
            for path, (staged, newest) in files.items()
        ]
        marks = [
            LabelledTask(storage=self.storage, task_id=task_id, path=path, **self._fingerprint(task_id))
            for task_id, path in tasks.items()
        ]
        with transaction.atomic():
            # A task that a hook marked since it was read here stays marked: its label file may be of the time before.
            rows_now = self.storage.labelled_tasks.select_for_update().filter(task_id__in=tasks)
            counts = dict(rows_now.values_list("task_id", "count"))
            marks = [one for one in marks if not self._marked_since(one.task_id, counts.get(one.task_id, 0))]
            LabelFile.objects.bulk_create(
                rows,
                update_conflicts=True,
                unique_fields=["storage", "path"],
                update_fields=["item", "staged", "staged_at", "newest"],
            )
            LabelledTask.objects.bulk_create(
                marks,
                update_conflicts=True,
                unique_fields=["storage", "task_id"],
                update_fields=["path", "count", "newest", "ids", "flags"],
            )


def unstage(ref: Ref, paths: list[str]) -> None:
    """Take back labels that no Sync committed: what is staged of these files becomes what the branch holds.

    The caller holds the staging lock. A mount server or pachd that is down keeps them staged; that is logged.
    """
    try:
        api = mount_api()
        head = api.head(ref)
        files: list[dict[str, Any]] = []
        for path in paths:
            text = read_label(api, FileAddress(ref.project, ref.repo, head, path)) if head else None
            files.append({"path": path, "delete": True} if text is None else {"path": path, "text": text})
        for start in range(0, len(files), BATCH):
            api.stage(ref, files[start : start + BATCH], 10)
    except (MountError, OSError) as error:
        logger.warning("%d labels stay staged for %s though nothing asks for them any more: %s", len(paths), ref, error)


def same_target(storage: PachydermExportStorage) -> list[PachydermExportStorage]:
    """All target storages that write to the same branch, this one included: they share a mount and its commits."""
    found = []
    for one in type(storage).objects.all():
        try:
            if one.ref == storage.ref:
                found.append(one)
        except ValueError:
            continue
    return found
