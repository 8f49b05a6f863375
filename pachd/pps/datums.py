"""From inputs to datums: globs and their algebra, the IDs and hashes of datums.

A datum is a tuple of files, one or more per input.  Its ID depends only on the names, repos, branches and paths of its
files, its hash also on their contents and on the pipeline's salt: a datum whose hash is as before need not run again.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from pachd.errors import PachError
from pachd.pfs import globs
from pachd.pps import inputs
from pachd.proto import pps_pb2
from pachd.types import Commit, Repo


class File(NamedTuple):
    """One file or directory (path with a trailing slash) of a datum, as found in a commit."""

    name: str  # of the input
    commit: Commit
    branch: str
    path: str
    size: int
    hash: bytes
    tag: str  # datum tag of the file, empty for a directory
    committed: int  # ns
    join_on: str = ""
    outer_join: bool = False
    group_by: str = ""
    lazy: bool = False
    empty_files: bool = False
    s3: bool = False
    reference: bool = False

    @property
    def is_dir(self) -> bool:
        return self.path.endswith("/")


class Datum(NamedTuple):
    """Its ID (64 hex digits) and its files, in the order of the pipeline's inputs."""

    id: str
    files: tuple[File, ...]

    def hash(self, salt: str) -> str:
        """64 hex digits over the ID, the contents of the files (references excepted) and the pipeline's salt."""
        digest = hashlib.blake2b(self.id.encode(), digest_size=32)
        for file in self.files:
            if not file.reference:
                digest.update(file.hash)
        digest.update(salt.encode())
        return digest.hexdigest()


class Found(NamedTuple):
    """What a glob over a commit gives: one entry of its tree."""

    path: str
    size: int
    hash: bytes
    tag: str
    committed: int


# glob(leaf, pattern) -> the commit that the leaf reads and what the pattern matches there
Glob = Callable[[pps_pb2.PFSInput], tuple[Commit, Iterable[Found]]]


def make(files: Iterable[File]) -> Datum:
    """A datum of these files, with its ID."""
    files = tuple(files)
    digest = hashlib.blake2b(digest_size=32)
    for file in files:
        for part in (file.name, file.commit.repo.name, file.branch, file.path):
            data = part.encode()
            digest.update(data)
            digest.update(len(data).to_bytes(8, "big"))
    return Datum(digest.hexdigest(), files)


def file_of(leaf: pps_pb2.PFSInput, commit: Commit, match: Found, pattern: globs.Glob | None = None) -> File:
    """One match of a leaf's glob as the file of a datum, with the keys that its captures give."""
    join_on = group_by = ""
    if leaf.join_on or leaf.group_by:
        pattern = pattern or globs.compile(leaf.glob)
        path = match.path.rstrip("/")
        join_on = pattern.replace(path, leaf.join_on) if leaf.join_on else ""
        group_by = pattern.replace(path, leaf.group_by) if leaf.group_by else ""
    return File(
        leaf.name,
        commit,
        leaf.branch,
        match.path,
        match.size,
        match.hash,
        match.tag,
        match.committed,
        join_on,
        leaf.outer_join,
        group_by,
        leaf.lazy,
        leaf.empty_files,
        leaf.s3,
        leaf.reference,
    )


def create(node: pps_pb2.Input, glob: Glob) -> list[Datum]:
    """All datums of an input, sorted by ID.

    ``glob`` lists what one leaf matches.  Raises PachError when a node is of no known kind.
    """
    kind = inputs.kind(node)
    if kind == "pfs":
        return _leaf(node.pfs, glob)
    if kind == "cron":
        return _leaf(cron_leaf(node.cron), glob)
    legs = [create(child, glob) for child in inputs.children(node)]
    if kind == "union":
        return _sorted(datum for leg in legs for datum in leg)
    if kind == "cross":
        return _sorted(make(file for datum in row for file in datum.files) for row in itertools.product(*legs))
    if kind == "join":
        return _sorted(join(legs))
    if kind == "group":
        return _sorted(group(legs))
    raise PachError(f"unrecognized input type: {kind}")


def cron_leaf(cron: pps_pb2.CronInput) -> pps_pb2.PFSInput:
    """The leaf that reads the ticks of a cron input."""
    return pps_pb2.PFSInput(
        project=cron.project or "default",
        name=cron.name,
        repo=cron.repo,
        repo_type="user",
        branch="master",
        commit=cron.commit,
        glob="/*",
    )


def found(entry: Any) -> Found:
    """An entry of a commit's view as a match."""
    tag = "" if entry.is_dir else entry.datum or "default"
    return Found(entry.path, entry.size, entry.hash, tag, entry.committed_ns)


def _leaf(leaf: pps_pb2.PFSInput, glob: Glob) -> list[Datum]:
    commit, matches = glob(leaf)
    pattern = globs.compile(leaf.glob) if leaf.join_on or leaf.group_by else None
    return _sorted(make((file_of(leaf, commit, match, pattern),)) for match in matches)


def _sorted(datums: Iterable[Datum]) -> list[Datum]:
    """By ID, each once: later stages take them in this order, which decides the order of a group's files."""
    return sorted({datum.id: datum for datum in datums}.values())


def _keyed(leg: list[Datum], key: Callable[[File], str]) -> dict[str, list[File]]:
    found: dict[str, list[File]] = {}
    for datum in leg:
        for file in datum.files:
            found.setdefault(key(file), []).append(file)
    return found


def join(legs: list[list[Datum]]) -> Iterator[Datum]:
    """Pairs files of equal keys; a leg with outer_join keeps its files that lack a partner in some leg."""
    tables = [_keyed(leg, lambda file: file.join_on) for leg in legs]
    for key in dict.fromkeys(key for table in tables for key in table):
        lists = [table[key] for table in tables if key in table]
        for row in itertools.product(*lists):
            if len(row) == len(legs):
                yield make(row)
            elif outer := [file for file in row if file.outer_join]:
                yield make(outer)


def group(legs: list[list[Datum]]) -> Iterator[Datum]:
    """Gathers all files of a key into one datum."""
    tables = [_keyed(leg, lambda file: file.group_by) for leg in legs]
    for key in dict.fromkeys(key for table in tables for key in table):
        yield make(file for table in tables for file in table.get(key, ()))


def repo_of(leaf: pps_pb2.PFSInput) -> Repo:
    """The repo that a leaf reads."""
    return Repo(leaf.project or "default", leaf.repo, leaf.repo_type or "user")
