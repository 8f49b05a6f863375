"""What lies where in a worker's `/pfs`: as on a cluster, `/pfs/<input>`, `/pfs/out` and `/pfs/.env` are symbolic links.

They lead to `/pfs/.scratch/<set>/<datum>/pfs/<datum>/`, where the files are, so code that looks at everything below
`/pfs` meets each file there.  The folder keeps the name of the worker's first datum, so that the links stay as they
are: to make one that long anew takes a file system with a journal as long as all else that a datum needs.
"""

from __future__ import annotations

import os
import stat
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pachd.pps.sandbox import Failed
from pachd.pps.spare import Spare

_SCRATCH = ".scratch"
ENV = ".env"
_TICK = 100_000_000  # ns; file systems give changes that are nearer to each other the same time
_T = TypeVar("_T")


class Layout:
    """The `/pfs` of one worker, which is the folder ``pfs`` of this machine."""

    def __init__(self, pfs: Path) -> None:
        self.pfs = str(pfs)
        self.spare = Spare(pfs.parent / "spare")
        self.folder = ""  # of the datum, on this machine
        self._parts: tuple[str, ...] = ()  # the directories from `/pfs` down to it
        self._out: tuple[str, int, int] | None = None  # the output folder that was found to be right
        self._linked: dict[str, str] = {}
        self._tidied: dict[str, tuple[int, int]] = {}  # directories that were right: inode, time of the last change

    def open(self, datum: str, inputs: set[str], out: bool = True) -> str:
        """Make room for a datum: empty directories of its inputs and for its output, the links to them, and
        nothing else.  ``out`` says whether there is a link to the output. Returns the datum's folder on this machine.
        """
        if not self.folder:
            self._parts = (_SCRATCH, uuid.uuid4().hex, datum, "pfs", datum)
            self.folder = os.path.join(self.pfs, *self._parts)
        linked = {name: f"/pfs/{'/'.join(self._parts)}/{name}" for name in inputs | {ENV} | ({"out"} if out else set())}
        if linked != self._linked or not all(_stamp(path) == stamp for path, stamp in self._tidied.items()):
            self._make_right(linked)
        prepare(self.folder, inputs | {"out"}, self.spare)
        return self.folder

    def _make_right(self, linked: dict[str, str]) -> None:
        old = time.time_ns() - _TICK
        _guarded(self._tidy_top, self.pfs, linked)
        path, above = self.pfs, []
        for part in self._parts:
            if path != self.pfs:
                _guarded(self._tidy, path, part)
            above.append(path)
            path = f"{path}/{part}"
            if not os.path.lexists(path):
                os.mkdir(path)
        # one that changed just now may change again at what is the same time to the file system
        stamps = {path: _stamp(path) for path in above}
        known = all(stamp is not None and stamp[1] < old for stamp in stamps.values())
        self._linked = linked if known else {}
        self._tidied = {path: stamp for path, stamp in stamps.items() if stamp is not None} if known else {}

    def _tidy_top(self, folder: str, linked: dict[str, str]) -> None:
        missing = dict(linked)
        for entry in _entries(folder):
            if entry.is_symlink() and os.readlink(entry.path) == linked.get(entry.name):
                del missing[entry.name]
            elif entry.name != _SCRATCH or not entry.is_dir(follow_symlinks=False):
                _take_away(entry, self.spare)
        for name, target in missing.items():
            os.symlink(target, f"{folder}/{name}")

    def _tidy(self, folder: str, kept: str) -> None:
        for entry in _entries(folder):
            if entry.name != kept or not entry.is_dir(follow_symlinks=False):
                _take_away(entry, self.spare)

    def clear(self) -> None:
        """Make `/pfs` hold an empty directory `out` and nothing else, for code without datums."""
        self.folder, self._linked, self._tidied = "", {}, {}
        _guarded(lambda folder, spare: prepare(folder, {"out"}, spare), self.pfs, self.spare)

    def out(self) -> str:
        """The datum's output folder on this machine. Raises Failed when the code has put something else there."""
        path = f"{self.folder}/out"
        with suppress(OSError):
            if self._out is not None and self._out == _identity(path):
                return path
        path = self.pfs
        for part in (*self._parts, "out"):
            path = f"{path}/{part}"
            try:
                is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
            except FileNotFoundError:
                is_directory = False
            except PermissionError:
                os.chmod(os.path.dirname(path), 0o755)
                is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
            if not is_directory:
                seen = path[len(self.pfs) :]
                raise Failed(f"/pfs{seen} is no directory any more: the code must leave it what it was")
        self._out = _identity(path)
        return path

    def on_disk(self, seen: str) -> str:
        """Where on this machine the code's path below `/pfs` is: as a worker does, past the links in `/pfs` itself."""
        below = seen.removeprefix("/pfs")
        if below in ("", "/") or below.split("/")[1] == _SCRATCH:
            return self.pfs + below
        return self.folder + below


def _identity(path: str) -> tuple[str, int, int] | None:
    """What no other directory has while this one is there; None when it is none."""
    info = os.lstat(path)
    return (path, info.st_dev, info.st_ino) if stat.S_ISDIR(info.st_mode) else None


def _stamp(folder: str) -> tuple[int, int] | None:
    """What is another after any change in a directory; None when it is none."""
    try:
        info = os.lstat(folder)
    except OSError:
        return None
    return (info.st_ino, info.st_ctime_ns) if stat.S_ISDIR(info.st_mode) else None


def prepare(folder: str, names: set[str], spare: Spare) -> None:
    """Make a folder hold these directories, empty, and nothing else."""
    present = set()
    for entry in _entries(folder):
        if entry.name in names and entry.is_dir(follow_symlinks=False):
            present.add(entry.name)
            _guarded(_empty_top, entry.path, spare)
        else:
            _take_away(entry, spare)
    for name in names - present:
        os.mkdir(f"{folder}/{name}")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _take_away(entry: os.DirEntry[str], spare: Spare) -> None:
    if not entry.is_dir(follow_symlinks=False):
        spare.remove(entry)
    else:
        _remove(entry.path, spare)


def _empty_top(folder: str, spare: Spare) -> None:
    for entry in _entries(folder):
        _take_away(entry, spare)


def _remove(folder: str, spare: Spare) -> None:
    """Remove a directory and what is in it."""
    try:
        _empty(folder, spare)
        spare.remove_directory(folder)
    except PermissionError:  # the code took everybody's right to look into it or to change it
        os.chmod(folder, 0o700)
        _empty(folder, spare)
        spare.remove_directory(folder)


def _empty(folder: str, spare: Spare) -> None:
    """Remove what is in a directory."""
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            _remove(entry.path, spare)
        else:
            spare.remove(entry)


def _guarded(change: Callable[[str, _T], None], folder: str, more: _T) -> None:
    """Change a directory that stays, whatever rights the code has left."""
    try:
        change(folder, more)
    except PermissionError:
        os.chmod(folder, 0o755)
        change(folder, more)
