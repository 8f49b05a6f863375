"""The storages' tables. What they do is in source.py, media.py, staging.py and labels_sync.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from django.db import models
from django.utils.dateparse import parse_datetime
from io_storages.base_models import ExportStorage, ImportStorage, ImportStorageLink, ProjectStorageMixin
from io_storages.utils import StorageObject
from rest_framework.exceptions import ValidationError  # Django's own would be answered with 500

from . import media, refs
from .mount_api import MountError, mount_api
from .syncing import SyncedStorage


class PachydermStorage(SyncedStorage):
    """What source and target have in common: where in which repository."""

    repository = models.TextField("repository", default="", help_text="[project/]repo[@branch|=commit]")
    prefix = models.TextField("prefix", null=True, blank=True, help_text="Only below this directory of the repository")

    class Meta:
        abstract = True

    @property
    def ref(self) -> refs.Ref:
        """The parsed repository. Raises: ValueError."""
        return refs.parse_ref(self.repository)

    @property
    def directory(self) -> str:
        """The parsed prefix. Raises: ValueError."""
        return refs.clean_prefix(self.prefix)

    def check_connection(self) -> None:
        """Raises: MountError or ValueError when this storage cannot work."""
        raise NotImplementedError

    def validate_connection(self, client: Any = None) -> None:
        """Label Studio's check before saving. Raises: DRF's ValidationError on the field that is wrong."""
        try:
            refs.clean_prefix(self.prefix)
        except ValueError as error:
            raise ValidationError({"prefix": [str(error)]}) from error
        try:
            self.check_connection()
        except (MountError, ValueError) as error:
            raise ValidationError({"repository": [str(error)]}) from error

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.pk} ({self.repository})"


class PachydermImportStorage(PachydermStorage, ProjectStorageMixin, ImportStorage):
    """Source storage: files of a repository become tasks."""

    url_scheme = refs.SCHEME
    presign = False  # Label Studio itself serves the bytes, after it has checked the project's permission
    presign_ttl = 1

    glob = models.TextField("glob", null=True, blank=True, help_text="Pachyderm glob, relative to the prefix")
    regex_filter = models.TextField("regex filter", null=True, blank=True, help_text="Only paths that match")
    use_blob_urls = models.BooleanField(
        default=True, help_text="Each file is the data of a task; else a JSON task file"
    )
    recursive_scan = models.BooleanField(default=True, help_text="Also below sub-directories")
    imported_commit = models.CharField(max_length=64, default="", blank=True, editable=False)
    imported_filter = models.TextField(default="", blank=True, editable=False)

    @property
    def pattern(self) -> str:
        """The glob that selects this storage's files."""
        return refs.glob_of(self.directory, self.glob, bool(self.recursive_scan))

    def check_connection(self) -> None:
        """The repository and the branch or commit exist."""
        mount_api().resolve(self.ref)

    def iter_objects(self) -> Iterator[dict[str, Any]]:
        """For the preview: {"path", "size", "hash", "created"} of each selected file at the head."""
        from .source import wanted

        try:
            api = mount_api()
            at = api.resolve(self.ref)
            if at.commit:
                keep = wanted(self)
                for row in api.files(at.project, at.repo, at.commit, self.pattern):
                    if keep(row["path"]):
                        yield {**row, "created": at.created}
        except (MountError, ValueError) as error:
            raise ValidationError({"repository": [str(error)]}) from error

    def iter_keys(self) -> Iterator[str]:
        """The paths of the selected files at the head."""
        return (row["path"] for row in self.iter_objects())

    def get_unified_metadata(self, obj: dict[str, Any]) -> dict[str, Any]:
        """One row of the preview."""
        created = obj.get("created")
        moment = parse_datetime(created) if isinstance(created, str) else None
        if isinstance(created, (int, float)):
            moment = datetime.fromtimestamp(created, tz=UTC)
        return {"key": obj["path"], "last_modified": moment or datetime.now().astimezone(), "size": obj.get("size")}

    def get_data(self, key: str) -> list[StorageObject]:
        """The task of one file at the head; used by Label Studio's own code paths only, a Sync works in bulk."""
        from .source import data_key, objects_of

        at = mount_api().resolve(self.ref)
        return list(objects_of(self, at, key, data_key(self.project)))

    def scan_and_create_links(self) -> None:
        """Label Studio's name for a Sync that is already queued."""
        self.run_sync("Label Studio")

    def run_sync(self, pressed_by: str) -> tuple[int, dict[str, Any]]:
        """Import what is new since the last Sync."""
        from .source import import_new

        return import_new(self)

    def can_resolve_url(self, url: Any) -> bool:
        """Whether a task value is a file of this storage's repository and prefix."""
        address = refs.first_address(url)
        if address is None:
            return False
        try:
            ref = self.ref
            return (address.project, address.repo) == (ref.project, ref.repo) and refs.below(
                address.path, self.directory
            )
        except ValueError:
            return False

    def get_bytes_stream(self, uri: str, range_header: str | None = None) -> tuple[Any, str | None, dict[str, Any]]:
        """The bytes of a `pachyderm://` address, read from the mount of that exact commit."""
        return media.open_stream(mount_api(), uri, range_header)


class PachydermImportStorageLink(ImportStorageLink):
    """Which file became which task. A changed file is a new link, told apart by its hash."""

    storage = models.ForeignKey(PachydermImportStorage, on_delete=models.CASCADE, related_name="links")
    content_hash = models.CharField(max_length=128, default="", blank=True)

    class Meta:
        indexes = [models.Index(fields=["storage", "key"], name="pachyderm_link_key")]


class PachydermExportStorage(PachydermStorage, ExportStorage):
    """Target storage: labels become files, a Sync becomes one commit.

    Deleted labels are deleted in the next commit (the history keeps them) unless `can_delete_objects` is switched off.
    """

    last_commit = models.CharField(max_length=64, default="", blank=True, editable=False)

    def check_connection(self) -> None:
        """The repository exists and its branch can be written to."""
        ref = self.ref
        if ref.pinned:
            raise ValueError("Labels cannot be written to a commit. Name a branch: [project/]repo[@branch].")
        mount_api().writing(ref, again=True)

    def save_annotation(self, annotation: Any) -> None:
        """Label Studio's name for staging one annotation: its item is handed to the background sender."""
        from .sender import sender

        sender().put(self.pk, [annotation.task_id])

    def save_all_annotations(self) -> None:
        """Label Studio's name for a Sync that is already queued."""
        self.run_sync("Label Studio")

    def run_sync(self, pressed_by: str) -> tuple[int, dict[str, Any]]:
        """Stage what is not staged yet and make one commit."""
        from .labels_sync import commit_labels

        return commit_labels(self, pressed_by)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """A storage that points elsewhere now knows nothing of what the new place holds.

        What it staged for the old place, and nobody committed, is taken back there.
        """
        from .staging import unstage

        fields = kwargs.get("update_fields")
        if not self._changes(fields):
            super().save(*args, **kwargs)
            return
        # Under the lock: who stages with the old settings must not remember it after they changed.
        with self._saved_lock():
            changes = self._changes(fields)
            old = type(self).objects.filter(pk=self.pk).first()
            moved = old is not None and bool(changes.keys() & {"repository", "prefix"})
            left = old.pending_paths() if old and moved else []
            super().save(*args, **kwargs)
            if changes.get("can_delete_objects") is False:
                self.labelled_tasks.filter(count=0).update(count=-1)  # deletions that were left out until now
            if moved:
                self.labelled_tasks.all().delete()
                self.files.all().delete()
                type(self).objects.filter(pk=self.pk).update(last_commit="")
                self.last_commit = ""
            if old and left:
                unstage(old.ref, left)

    def pending_paths(self) -> list[str]:
        """The label files that are staged, and of no other storage, but not committed."""
        from .staging import same_target

        mine = self.files.exclude(staged=models.F("committed"))
        others = [one.pk for one in same_target(self) if one.pk != self.pk]
        theirs = LabelFile.objects.filter(storage__in=others, path=models.OuterRef("path")).exclude(staged="")
        return list(mine.exclude(models.Exists(theirs)).values_list("path", flat=True))

    def _changes(self, fields: Iterable[str] | None = None) -> dict[str, Any]:
        """The saved values of the settings that differ now and that saving `fields` (None: all) would write.

        None of a storage that is not saved yet.
        """
        now = {"repository": self.repository, "prefix": self.prefix, "can_delete_objects": self.can_delete_objects}
        if fields is not None:
            now = {name: value for name, value in now.items() if name in fields}
        if not now:
            return {}
        saved = type(self).objects.filter(pk=self.pk).values(*now).first() or {}
        same_prefix = (saved.get("prefix") or "") == (self.prefix or "")
        return {name: old for name, old in saved.items() if old != now[name] and not (name == "prefix" and same_prefix)}

    def _saved_lock(self) -> contextlib.AbstractContextManager[None]:
        from .staging import staging_lock

        try:
            return staging_lock(refs.parse_ref(self._changes().get("repository", self.repository)))
        except ValueError:  # to what does not parse nothing is ever staged
            return contextlib.nullcontext()


class LabelledTask(models.Model):
    """What the labels of a task looked like when they were staged last: the comparison finds what is not staged.

    `task_id` is no foreign key: this row outlives the task and is then the tombstone that deletes its file.
    """

    storage = models.ForeignKey(PachydermExportStorage, on_delete=models.CASCADE, related_name="labelled_tasks")
    task_id = models.BigIntegerField()
    path = models.TextField()
    count = models.IntegerField(default=0, help_text="Annotations; 0: none left, -1: to be staged anew")
    newest = models.DateTimeField(null=True, help_text="The latest updated_at among the annotations")
    ids = models.BigIntegerField(default=0, help_text="Sum of the annotations' ids")
    flags = models.BigIntegerField(
        default=0, help_text="Ground truths and skips, which change without a new updated_at"
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["storage", "task_id"], name="pachyderm_labelled_task")]
        indexes = [models.Index(fields=["storage", "path"], name="pachyderm_labelled_path")]


class LabelFile(models.Model):
    """One label file: the digest of what is staged and of what was committed last; "" is "no file"."""

    storage = models.ForeignKey(PachydermExportStorage, on_delete=models.CASCADE, related_name="files")
    path = models.TextField()
    item = models.TextField(help_text="project/repo:path of the labelled file, or the task")
    staged = models.CharField(max_length=32, default="", blank=True)
    committed = models.CharField(max_length=32, default="", blank=True)
    staged_at = models.DateTimeField()
    newest = models.DateTimeField(null=True, help_text="The latest updated_at in the staged file")
    since = models.DateTimeField(null=True, help_text="The latest updated_at in the committed file")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["storage", "path"], name="pachyderm_label_file")]
