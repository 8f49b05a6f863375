"""A Sync of a source storage: what is new since the last one becomes tasks, in bulk.

Label Studio creates a task in about 3 ms, each with its signals, and asks for every known file each time. Here tasks
are created by the thousand, what the signals do is done once per batch, and after the first time only the difference
between two commits is looked at. A task that somebody deleted therefore stays deleted until its file changes.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from fsm.functions import backfill_fsm_states_for_tasks
from io_storages.utils import StorageObject, load_tasks_json
from tasks.models import Task
from webhooks.models import WebhookAction
from webhooks.utils import emit_webhooks_for_instance

from .media import locate
from .mount_api import MountApi, MountError, Resolved, mount_api
from .refs import FileAddress
from .reimport import Authors, add_annotations

if TYPE_CHECKING:
    from .models import PachydermImportStorage

BATCH = 1000
SHOWN = 20  # removed paths and problems that are listed on the card
_JSON = (".json", ".jsonl")


def data_key(project: Any) -> str:
    """The key of a task's data that the label config shows first; "image" when it shows none."""
    return next(iter(project.data_types or {}), "image")


def wanted(storage: PachydermImportStorage) -> Callable[[str], bool]:
    """Whether a path passes the storage's regular expression (matched as Label Studio does, without the first slash).

    Raises: ValueError for an expression that cannot be compiled.
    """
    if not storage.regex_filter:
        return lambda path: True
    try:
        expression = re.compile(storage.regex_filter)
    except re.error as error:
        raise ValueError(f'The filter "{storage.regex_filter}" is not a regular expression: {error}.') from error
    return lambda path: bool(expression.match(path.lstrip("/")))


def objects_of(storage: PachydermImportStorage, at: Resolved, path: str, key: str) -> Iterator[StorageObject]:
    """The task or tasks of one file. Raises: ValueError when a task file holds no tasks."""
    address = FileAddress(at.project, at.repo, at.commit or "", path)
    if storage.use_blob_urls:
        yield StorageObject(key=path, task_data={key: str(address)})
        return
    if os.path.splitext(path.lower())[1] not in _JSON:
        raise ValueError(f'{path} is not a JSON task file. For images and other media choose "Files" as import method.')
    yield from load_tasks_json(locate(mount_api(), address).read_bytes(), path)


def import_new(storage: PachydermImportStorage) -> tuple[int, dict[str, Any]]:
    """Make tasks of the new and changed files of a source storage.

    Returns: the number of tasks made and what the storage's card says: commit, files seen, tasks_existed, removed.
    Raises: MountError, ValueError, Superseded.
    """
    api, keep = mount_api(), wanted(storage)
    at = api.resolve(storage.ref)
    selection = json.dumps([at.project, at.repo, storage.pattern, storage.regex_filter or "", storage.use_blob_urls])
    existed = storage.links.count()
    done: dict[str, Any] = {"commit": at.commit, "tasks_existed": existed, "removed": 0}
    if not at.commit:
        return 0, {**done, "note": f"{storage.ref} has no finished commit yet."}
    incremental = bool(existed and storage.imported_commit and storage.imported_filter == selection)
    if incremental and storage.imported_commit == at.commit:
        return 0, done
    removed: list[str] = []
    rows = (
        _changes(api, storage, at, removed)
        if incremental
        else api.files(at.project, at.repo, at.commit, storage.pattern)
    )
    importer = _Importer(storage, at)
    chosen = (row for row in rows if keep(row["path"]))
    while batch := list(itertools.islice(chosen, BATCH)):
        importer.add(batch)
        storage.progress(importer.created, tasks_existed=existed)
    importer.finish()
    mine = type(storage).objects.filter(pk=storage.pk, ticket=storage.ticket)
    mine.update(imported_commit=at.commit, imported_filter=selection)
    if removed:
        done["removed"] = len(removed)
        done["removed_paths"] = sorted(removed)[:SHOWN]
    if importer.problems:
        done["problems"] = importer.problems[:SHOWN]
    return importer.created, done


def _changes(
    api: MountApi, storage: PachydermImportStorage, at: Resolved, removed: list[str]
) -> Iterable[dict[str, Any]]:
    try:
        diff = list(api.diff(at.project, at.repo, storage.imported_commit, at.commit or "", storage.pattern))
    except MountError as error:
        if error.status != 404:
            raise
        # The commit we knew was deleted since: look at everything once.
        return api.files(at.project, at.repo, at.commit or "", storage.pattern)
    keep = wanted(storage)
    removed += [row["path"] for row in diff if row["op"] == "deleted" and keep(row["path"])]
    return [row for row in diff if row["op"] != "deleted"]


class _Importer:
    """Creates the tasks of one Sync, batch by batch; each batch is one transaction, so an interrupted Sync goes on."""

    def __init__(self, storage: PachydermImportStorage, at: Resolved) -> None:
        self.storage, self.at = storage, at
        self.project = storage.project
        self.link = storage.links.model
        self.key = data_key(self.project)
        self.created = 0
        self.problems: list[str] = []
        self.authors = Authors(self.project)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """One batch of {"path", "hash"}; files that already became tasks with this very content are left out."""
        objects: list[tuple[StorageObject, str]] = []
        known = self._known(rows)
        for row in rows:
            digest = str(row.get("hash") or "")
            if (row["path"], digest) in known:
                continue
            try:
                objects += [(made, digest) for made in objects_of(self.storage, self.at, row["path"], self.key)]
            except (ValueError, OSError) as error:
                if self.storage.use_blob_urls:
                    raise
                self.problems.append(f"{row['path']}: {error}")
        if objects:
            with transaction.atomic():
                # In the same transaction: a Sync that stood still and was given up must not import once more.
                self.storage.still_mine()
                self._create(objects)

    def _known(self, rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
        found = self.link.objects.filter(storage=self.storage, key__in=[row["path"] for row in rows])
        return set(found.values_list("key", "content_hash"))

    def _create(self, objects: list[tuple[StorageObject, str]]) -> None:
        tasks, annotations = [], []
        # Anew for each batch: another source or an upload may have added tasks since.
        last = self.project.tasks.order_by("-inner_id").values_list("inner_id", flat=True).first() or 0
        for made, _ in objects:
            body = made.task_data
            nested = isinstance(body.get("data"), dict)
            given = [one for one in (body.get("annotations") or []) if isinstance(one, dict)] if nested else []
            skipped = sum(bool(one.get("was_cancelled")) for one in given)
            tasks.append(
                Task(
                    data=body["data"] if nested else body,
                    meta=(body.get("meta") if nested else None) or {},
                    project=self.project,
                    overlap=self.project.maximum_annotations,
                    inner_id=last + 1 + len(tasks),
                    total_annotations=len(given) - skipped,
                    cancelled_annotations=skipped,
                    is_labeled=len(given) >= self.project.maximum_annotations,
                )
            )
            annotations.append(given)
        tasks = Task.objects.bulk_create(tasks, batch_size=settings.BATCH_SIZE)
        self._link((task.id, *rest) for task, rest in zip(tasks, objects, strict=True))
        self.project.summary.update_data_columns(tasks)
        self.problems += add_annotations(self.project, self.authors, zip(tasks, annotations, strict=True))
        self.created += len(tasks)
        ids = [task.id for task in tasks]
        organization = self.project.organization
        transaction.on_commit(
            lambda: emit_webhooks_for_instance(organization, self.project, WebhookAction.TASKS_CREATED, ids)
        )

    def _link(self, rows: Iterable[tuple[int, StorageObject, str]]) -> None:
        # Plain SQL: no signal hangs on links, and as model instances they would take a third of the whole Sync.
        columns = ("storage_id", "task_id", "key", "row_index", "content_hash", "object_exists", "created_at")
        names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join(["%s"] * len(columns))
        now = connection.ops.adapt_datetimefield_value(timezone.now())
        values = [(self.storage.pk, task, made.key, made.row_index, digest, True, now) for task, made, digest in rows]
        with connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {self.link._meta.db_table} ({names}) VALUES ({marks})", values)

    def finish(self) -> None:
        """What Label Studio does once at the end of an import."""
        if not self.created:
            return
        backfill_fsm_states_for_tasks(self.storage.id, self.created, self.link)
        self.project.update_tasks_states(
            maximum_annotations_changed=False, overlap_cohort_percentage_changed=False, tasks_number_changed=True
        )
