"""A datum's files on disk: inputs into a worker's `/pfs`, and what the code left in `/pfs/out` out of it."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pachd.pfs import paths
from pachd.pps.datums import Datum
from pachd.pps.layout import ENV, Layout
from pachd.pps.sandbox import Failed
from pachd.pps.spare import Spare
from pachd.store import Snapshot, contents
from pachd.store.tree import Entry, Tree, path_of
from pachd.types import Commit

_MAX_LINKS = 40
_SMALL = 1 << 20  # bytes; a larger file is read piece by piece


class Output(NamedTuple):
    """A file that the code made: its path in the output repo, where its bytes are, its size."""

    path: str
    source: str
    size: int


class _Roots(NamedTuple):
    """The worker's `/pfs` and `/tmp`, a folder that is not to be read, whether all else is as the code saw it, and what
    gives back what was withheld."""

    layout: Layout
    tmp: str
    hidden: str
    of_host: bool
    restore: Callable[[str], list[tuple[str, str, int]]]


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


class Staged(NamedTuple):
    """What `stage` did: the bytes written, the files as (path below `/pfs`, entry with the bytes that are there), and
    the lazy ones, which are none, as (named pipe, entry). `withheld`: where there is an empty file or a pipe -> what
    the file really is."""

    size: int
    files: list[tuple[str, Entry]]
    pipes: list[tuple[str, Entry]]
    withheld: Mapping[str, Entry] = MappingProxyType({})


def stage(
    layout: Layout,
    datum: Datum,
    env: bytes,
    txn: Snapshot,
    tree: Callable[[Commit], Tree],
    out: bool = True,
) -> Staged:
    """Fill a worker's `/pfs` with a datum's inputs, an empty `out` and `.env`.

    ``tree(commit)`` gives the files of an input commit as ``txn`` sees them.  ``out`` says whether the code shall
    find `/pfs/out`: with the output in S3 it does not.
    """
    spare = layout.spare
    base = layout.open(datum.id, {file.name for file in datum.files}, out)
    total = 0
    made = {f"{base}/{file.name}" for file in datum.files}
    files: list[tuple[str, Entry]] = []
    pipes: list[tuple[str, Entry]] = []
    withheld: dict[str, Entry] = {}
    for file in datum.files:
        high = paths.after(file.path) if file.is_dir else file.path + "\1"
        for entry in tree(file.commit).scan(file.path, high):
            path = f"{file.name}{path_of(entry[0])}"
            if file.s3:
                continue
            target = f"{base}/{path}"
            parent = target[: target.rindex("/")]
            if parent not in made:
                _make_directories(parent, made, spare)
            if file.lazy:
                os.mkfifo(target)
                pipes.append((target, entry))
                withheld[target] = entry
                continue
            if file.empty_files or not entry[1]:
                spare.write(target, ())
                if entry[1]:
                    withheld[target] = entry
                files.append((path, (entry[0], *contents.NO_CONTENT)))
            else:
                files.append((path, entry))
                total += entry[1]
                small = entry[1] <= _SMALL
                spare.write(target, (contents.read_all(txn, entry[3]),) if small else contents.read(txn, entry[3]))
    spare.write(f"{base}/{ENV}", (env,))
    return Staged(total, files, pipes, withheld)


def restore(withheld: Mapping[str, Entry], target: str, folder: Path, txn: Snapshot) -> list[tuple[str, str, int]]:
    """The bytes that were withheld from the code, of a file or of those of a directory to which it made a link.

    They go into ``folder``, where no code can have put a link. Returns (path below the target, where it is, its size).
    """
    if target in withheld:
        found = [target]
    else:
        found = [path for path in withheld if path.startswith(target + "/")]
    made = []
    for path in found:
        folder.mkdir(mode=0o700, exist_ok=True)
        where = folder / uuid.uuid4().hex
        with open(where, "xb") as file:
            file.writelines(contents.read(txn, withheld[path][3]))
        made.append((path[len(target) :], str(where), withheld[path][1]))
    return made


def _make_directories(path: str, made: set[str], spare: Spare) -> None:
    """Make a directory and those above it that are not there yet."""
    parent = path[: path.rindex("/")]
    if parent not in made:
        _make_directories(parent, made, spare)
    spare.make_directory(path)
    made.add(path)


def collect(
    layout: Layout,
    tmp: Path,
    hidden: str = "",
    of_host: bool = True,
    restore: Callable[[str], list[tuple[str, str, int]]] = lambda target: [],
) -> list[Output]:
    """What the code left in `/pfs/out`, sorted by path.

    Symbolic links are resolved as the sandbox saw them; empty directories, pipes, sockets and devices are left out.
    ``of_host`` says that the code saw this machine's files outside of `/pfs` and `/tmp`; else links there are refused.
    ``restore(target)`` gives what the end of a link really is, where the code was given an empty file or a pipe: (path
    below it, where it is, its size) of each file.
    Raises Failed for a name that Pachyderm cannot hold and for a link that leads nowhere.
    """
    found = list(_walk(layout.out(), "", _Roots(layout, str(tmp), hidden, of_host, restore), 0))
    for output in found:
        try:
            paths.validate(output.path)
        except Exception as error:
            raise Failed(
                f"cannot upload file produced by the user code because its name cannot be represented in PFS: {error}"
            ) from None
    return sorted(found)


def _walk(folder: str, prefix: str, roots: _Roots, links: int) -> Iterator[Output]:
    try:
        found = os.scandir(folder)
    except PermissionError:
        os.chmod(folder, 0o700)
        found = os.scandir(folder)
    with found as entries:
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
    layout, tmp, hidden, of_host, restore = roots
    pfs = layout.pfs
    if links > _MAX_LINKS:
        raise Failed(f"too many levels of symbolic links at /out{name}")
    target = os.readlink(where)
    if not target.startswith("/"):
        folder = os.path.dirname(where)
        for seen, real in (("/pfs", pfs), ("/tmp", tmp)):
            if folder == real or folder.startswith(real + "/"):
                folder = seen + folder[len(real) :]
                break
        target = os.path.join(folder, target)
    target = os.path.normpath(target)
    if target == "/pfs" or target.startswith("/pfs/"):
        target = layout.on_disk(target)
    elif target == "/tmp" or target.startswith("/tmp/"):
        target = tmp + target[4:]
    try:
        if os.path.islink(target):
            yield from _link(target, name, roots, links + 1)
            return
        if restored := restore(target):
            yield from (Output(name + below, source, size) for below, source, size in restored)
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
