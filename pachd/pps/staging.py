"""A datum's files on disk: inputs into a worker's `/pfs`, and what the code left in `/pfs/out` out of it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pachd.pfs import paths
from pachd.pps.datums import Datum, File
from pachd.pps.sandbox import Failed
from pachd.types import Commit

_MAX_LINKS = 40


class Output(NamedTuple):
    """A file that the code made: its path in the output repo, where its bytes are, its size."""

    path: str
    source: str
    size: int


class _Roots(NamedTuple):
    """The worker's `/pfs` and `/tmp`, a folder that is not to be read, and whether all else is as the code saw it."""

    pfs: str
    tmp: str
    hidden: str
    of_host: bool


def clear(pfs: Path) -> None:
    """Empty a worker's `/pfs`; top-level directories stay, as making them anew for every datum is what costs most."""
    for entry in os.scandir(pfs):
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
            continue
        for inner in os.scandir(entry.path):
            if inner.is_dir(follow_symlinks=False):
                shutil.rmtree(inner.path, ignore_errors=True)
            else:
                os.unlink(inner.path)


def _prepare(pfs: Path, names: set[str]) -> None:
    """Make a cleared `/pfs` have exactly these directories."""
    present = set()
    for entry in os.scandir(pfs):
        if entry.name in names:
            present.add(entry.name)
        else:
            os.rmdir(entry.path)
    for name in names - present:
        os.mkdir(f"{pfs}/{name}")


def environment(datum: Datum, job: str) -> dict[str, str]:
    """The variables that tell the code about its datum."""
    env: dict[str, str] = {}
    for file in datum.files:
        env[file.name] = f"/pfs/{file.name}{file.path.rstrip('/')}"
        env[f"{file.name}_COMMIT"] = file.commit.id
        if file.join_on:
            env[f"PACH_DATUM_{file.name}_JOIN_ON"] = file.join_on
        if file.group_by:
            env[f"PACH_DATUM_{file.name}_GROUP_BY"] = file.group_by
    env["PACH_DATUM_ID"] = datum.id
    env["PACH_JOB_ID"] = env["PACH_OUTPUT_COMMIT_ID"] = job
    return env


def env_file(env: dict[str, str]) -> bytes:
    """The text of `/pfs/.env`."""
    return "".join(f"{name}={value}\n" for name, value in env.items()).encode()


def stage(pfs: Path, datum: Datum, env: bytes, view: Callable[[Commit], Any]) -> int:
    """Fill a cleared `/pfs` with a datum's inputs, an empty `out` and `.env`; returns the bytes written.

    ``view(commit)`` gives the files of an input commit.
    """
    base = str(pfs)
    _prepare(pfs, {"out", *(file.name for file in datum.files)})
    total = 0
    made = {f"{base}/{file.name}" for file in datum.files}
    for file in datum.files:
        root = f"{base}/{file.name}"
        if file.s3:
            continue
        for path, data in _contents(file, view(file.commit)):
            target = root + path
            parent = target.rpartition("/")[0]
            if parent not in made:
                os.makedirs(parent, exist_ok=True)
                made.add(parent)
            with open(target, "wb", buffering=0) as out:
                for part in data:
                    out.write(part)
                    total += len(part)
    with open(f"{base}/.env", "wb", buffering=0) as out:
        out.write(env)
    return total


def _contents(file: File, view: Any) -> Iterator[tuple[str, Sequence[bytes] | Iterator[bytes]]]:
    entries = view.walk(file.path) if file.is_dir else [view.inspect(file.path)]
    for entry in entries:
        if not entry.is_dir:
            yield entry.path, (() if file.empty_files else view.read(entry))


def collect(pfs: Path, tmp: Path, hidden: str = "", of_host: bool = True) -> list[Output]:
    """What the code left in `/pfs/out`, sorted by path.

    Symbolic links are resolved as the sandbox saw them; empty directories, pipes, sockets and devices are left out.
    ``of_host`` says that the code saw this machine's files outside of `/pfs` and `/tmp`; else links there are refused.
    Raises Failed for a name that Pachyderm cannot hold and for a link that leads nowhere.
    """
    out = str(pfs / "out")
    if os.path.islink(out):
        raise Failed("/pfs/out is a symbolic link: the code must leave it the directory that it was")
    found = list(_walk(out, "", _Roots(str(pfs), str(tmp), hidden, of_host), 0))
    for output in found:
        try:
            paths.validate(output.path)
        except Exception as error:
            raise Failed(
                f"cannot upload file produced by the user code because its name cannot be represented in PFS: {error}"
            ) from None
    return sorted(found)


def _walk(folder: str, prefix: str, roots: _Roots, links: int) -> Iterator[Output]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}/{entry.name}"
            if entry.is_symlink():
                yield from _link(entry.path, name, roots, links + 1)
            elif entry.is_dir():
                yield from _walk(entry.path, name, roots, links)
            elif entry.is_file():
                yield Output(name, entry.path, entry.stat().st_size)


def _link(where: str, name: str, roots: _Roots, links: int) -> Iterator[Output]:
    """Follow one link: `/pfs` and `/tmp` are the worker's own, the rest of the root is the machine's."""
    pfs, tmp, hidden, of_host = roots
    if links > _MAX_LINKS:
        raise Failed(f"too many levels of symbolic links at /out{name}")
    target = os.readlink(where)
    if target.startswith("/"):
        for seen, real in (("/pfs", pfs), ("/tmp", tmp)):
            if target == seen or target.startswith(seen + "/"):
                target = real + target[len(seen) :]
                break
    else:
        target = os.path.normpath(os.path.join(os.path.dirname(where), target))
    try:
        if os.path.islink(target):
            yield from _link(target, name, roots, links + 1)
            return
        info = os.stat(target)
    except OSError as error:
        raise Failed(f"cannot follow the symbolic link /out{name} to {os.readlink(where)}: {error.strerror}") from None
    inside = target.startswith((pfs + "/", tmp + "/"))
    if not of_host:  # on the way to it there may be other links
        real = os.path.realpath(target)
        if not real.startswith((os.path.realpath(pfs) + "/", os.path.realpath(tmp) + "/")):
            raise Failed(
                f"cannot follow the symbolic link /out{name} to {os.readlink(where)}: of a container only what is "
                "in /pfs and /tmp can be read, copy the file there"
            )
    if hidden and not inside and os.path.realpath(target).startswith(hidden + "/"):
        raise Failed(f"cannot follow the symbolic link /out{name}: it leads into pachd's own data")
    if stat.S_ISDIR(info.st_mode):
        yield from _walk(target, name, roots, links)
    elif stat.S_ISREG(info.st_mode):
        yield Output(name, target, info.st_size)
