"""A copy of a data folder while a pachd serves it, and a data folder from such a copy.

A backup is itself a data folder, with a file that says that it is whole. The database is copied as one snapshot by
SQLite's backup interface; the packs that this snapshot names never change and, while the folder is viewed, never go.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

from pachd.store import contents, system
from pachd.store.packs import data_of
from pachd.store.places import forget_objects
from pachd.store.store import FORMAT_VERSION, Store, StoreError

_MARK = "backup.json"
_DATABASE = "pachd.db"
_PAGES = 2000  # of the database between two reports of progress
# What is not copied: locks, what SQLite makes again, folders of running workers.
_LEFT_OUT = {_DATABASE, "pachd.db-wal", "pachd.db-shm", "lock", "collect.lock", "packs", "work", "scrub.json", _MARK}

Progress = Callable[[int, int], object]
"""(bytes copied, bytes to copy)."""


class Copied(NamedTuple):
    """How much was copied."""

    files: int
    bytes: int


def backup(store: Store, target: str, progress: Progress = lambda done, total: None) -> Copied:
    """Copy the folder that `store` views to the new or empty folder `target`.

    What is committed when it begins is in it. Raises StoreError if `target` has something in it, OSError when the disk
    does not take it; what is there then is not a whole backup, and `restore` refuses it.
    """
    _refuse_filled(target, "back up to")
    os.makedirs(os.path.join(target, "packs"), mode=0o700, exist_ok=True)
    packs = contents.shared(store).packs
    with store.read() as snapshot:
        wanted = dict(snapshot.db.execute("SELECT id, size FROM container WHERE data IS NULL").fetchall())
        counts = [snapshot.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")]
        tally = _Tally(counts[0] * counts[1] + sum(packs.used(pack) or size for pack, size in wanted.items()), progress)
        with closing(sqlite3.connect(os.path.join(target, _DATABASE))) as copy:
            # The snapshot is open already, so a writer in the meantime does not make SQLite begin anew.
            snapshot.db.backup(copy, pages=_PAGES, progress=lambda _s, left, all: tally.at((all - left) * counts[1]))
            forget_objects(copy)
    tally.at(counts[0] * counts[1])
    for pack, size in wanted.items():
        _write_file(packs.pieces(pack, size), os.path.join(target, "packs", f"{pack:x}.pack"), size, tally)
    files = 1 + len(wanted)
    for path in _others(store.path):
        _copy(os.path.join(store.path, path), os.path.join(target, path), tally)
        files += 1
    _sync_tree(target)
    mark = {"format": FORMAT_VERSION, "files": files, "bytes": tally.done, "made": system.now_ns()}
    _write(os.path.join(target, _MARK), json.dumps(mark).encode())
    system.fsync_dir(target)
    return Copied(files, tally.done)


def restore(source: str, folder: str, progress: Progress = lambda done, total: None) -> Copied:
    """Make `folder`, which must be new or empty, of the backup in `source`.

    It appears whole or not at all. Raises StoreError if `folder` has something in it or `source` is not a whole backup.
    """
    try:
        with open(os.path.join(source, _MARK), "rb") as file:
            mark = json.load(file)
    except FileNotFoundError:
        raise StoreError(
            f"{source} is not a whole backup: there is no {_MARK} in it, which `pachd backup` writes at the end"
        ) from None
    except ValueError as err:
        raise StoreError(f"{os.path.join(source, _MARK)} is damaged: {err}") from None
    if mark.get("format") != FORMAT_VERSION:
        raise StoreError(
            f"the backup {source} has format {mark.get('format')}, this pachd knows format {FORMAT_VERSION}"
        )
    _refuse_filled(folder, "restore to")
    folder = os.path.abspath(folder)
    part = f"{folder}.restoring"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part, mode=0o700)
    names = sorted(set(_walk(source)) - {_MARK})
    tally = _Tally(sum(os.stat(os.path.join(source, name)).st_blocks * 512 for name in names), progress)
    for name in names:
        _copy(os.path.join(source, name), os.path.join(part, name), tally)
    os.makedirs(os.path.join(part, "packs"), mode=0o700, exist_ok=True)
    _sync_tree(part)
    if os.path.isdir(folder):
        os.rmdir(folder)
    system.rename(part, folder)
    system.fsync_dir(os.path.dirname(folder))
    return Copied(len(names), tally.done)


class _Tally:
    def __init__(self, total: int, progress: Progress) -> None:
        self.done = 0
        self._total, self._progress = total, progress

    def at(self, done: int) -> None:
        self.done = done
        self._progress(done, max(done, self._total))

    def more(self, count: int) -> None:
        self.at(self.done + count)


def _refuse_filled(folder: str, verb: str) -> None:
    if os.path.isdir(folder):
        if os.listdir(folder):
            raise StoreError(f"cannot {verb} {folder}: it is not empty; name a new folder")
    elif os.path.exists(folder):
        raise StoreError(f"cannot {verb} {folder}: it is not a folder")


def _walk(folder: str) -> Iterator[str]:
    for where, _folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield os.path.relpath(path, folder)


def _others(folder: str) -> list[str]:
    """Logs and whatever else lies beside database and packs."""
    found = (path for path in _walk(folder) if path.split(os.sep)[0] not in _LEFT_OUT)
    return sorted(path for path in found if not path.endswith(".new"))


def _copy(source: str, target: str, tally: _Tally) -> None:
    try:
        fd = system.open_file(source, os.O_RDONLY)
    except FileNotFoundError:  # a log that was just removed
        return
    try:
        size = os.fstat(fd).st_size
        mode = os.fstat(fd).st_mode & 0o777
        _write_file(data_of(fd, size), target, size, tally)
        os.chmod(target, mode)
    finally:
        os.close(fd)


def _write_file(pieces: Iterator[tuple[int, bytes]], path: str, size: int, tally: _Tally) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    fd = system.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for offset, piece in pieces:
            system.write_at(fd, piece, offset)
            tally.more(len(piece))
        system.truncate(fd, size)
        system.fsync(fd)
    finally:
        os.close(fd)


def _write(path: str, data: bytes) -> None:
    fd = system.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        system.write_all(fd, data)
        system.fsync(fd)
    finally:
        os.close(fd)


def _sync_tree(folder: str) -> None:
    for where, _folders, names in os.walk(folder):
        for name in names:
            if name == _DATABASE:
                fd = system.open_file(os.path.join(where, name), os.O_RDONLY)
                try:
                    system.fsync(fd)
                finally:
                    os.close(fd)
        system.fsync_dir(where)
