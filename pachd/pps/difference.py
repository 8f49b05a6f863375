"""Which datums a job has that an earlier one had not, found from what changed in the input commits.

The cost is that of the change, however many datums there are: only files that changed are looked at, and those that
have a join or group key in common with one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pachd.errors import NotFound
from pachd.pfs import diff, globs, paths, read, refs
from pachd.pps import datums, inputs
from pachd.pps.datums import Datum, File, Found
from pachd.proto import pps_pb2
from pachd.store import Snapshot
from pachd.types import Commit, Repo

_REFERENCE = re.compile(r"\$(?:(\d+)|\{(\d+)\})")
_SPECIAL = re.compile(r"([*?\[\]{}()|@+!^,\\])")
_FEW = 1000  # changed paths, for which it is always worth it

Combine = Callable[[list[list[Datum]]], Iterable[Datum]]


class Unknown(Exception):
    """The change does not say it: all datums must be looked at."""


class Affected(NamedTuple):
    """The datums that a change may concern, as they were and as they are."""

    old: list[Datum]
    new: list[Datum]


def affected(txn: Snapshot, node: pps_pb2.Input, old: str, new: str, total: int) -> Affected:
    """The datums of an input that may differ between the jobs ``old`` and ``new``; ``total`` is how many there were.

    Raises Unknown where the change does not say it, or is so large that looking at everything is as fast.
    """
    return _Between(txn, old, new, max(_FEW, total // 8)).of(node)


class _Between:
    def __init__(self, txn: Snapshot, old: str, new: str, most: int) -> None:
        self._txn, self._jobs, self._most = txn, (old, new), most
        self._sides: dict[Repo, tuple[tuple[Commit, read.View], tuple[Commit, read.View]]] = {}

    def of(self, node: pps_pb2.Input) -> Affected:
        kind = inputs.kind(node)
        if kind in ("pfs", "cron"):
            return self._leaf(node.pfs if kind == "pfs" else datums.cron_leaf(node.cron))
        children = inputs.children(node)
        if kind == "union":
            return self._union(children)
        if kind == "cross":
            return self._cross(children)
        if kind == "join":
            return self._keyed(children, lambda leaf: leaf.join_on, lambda file: file.join_on, datums.join)
        if kind == "group":
            return self._keyed(children, lambda leaf: leaf.group_by, lambda file: file.group_by, datums.group)
        raise Unknown

    def _side(self, leaf: pps_pb2.PFSInput) -> tuple[tuple[Commit, read.View], tuple[Commit, read.View]]:
        repo = datums.repo_of(leaf)
        found = self._sides.get(repo)
        if found is None:
            try:
                rows = [refs.resolve_commit(self._txn, (repo, job)) for job in self._jobs]
            except NotFound:
                raise Unknown from None
            old, new = ((Commit(row.repo, row.id), read.View.of(self._txn, row)) for row in rows)
            found = self._sides[repo] = old, new
        return found

    def _leaf(self, leaf: pps_pb2.PFSInput) -> Affected:
        (old_commit, old), (new_commit, new) = self._side(leaf)
        if old_commit == new_commit:
            return Affected([], [])
        pattern = globs.compile(leaf.glob)
        changed: set[str] = set()
        for one, other in diff.diff(new, old, "/"):
            either = one or other
            if either is None:
                continue
            for candidate in (either.path, *paths.parents(either.path)):
                if candidate not in changed and pattern.match(candidate):
                    changed.add(candidate)
            if len(changed) > self._most:
                raise Unknown
        return Affected(
            [datums.make((f,)) for f in _files(leaf, old_commit, old, changed, pattern)],
            [datums.make((f,)) for f in _files(leaf, new_commit, new, changed, pattern)],
        )

    def _union(self, children: list[pps_pb2.Input]) -> Affected:
        seen = set()
        for child in children:
            for leg in inputs.legs(child):  # a file that two legs give is one datum, and stays while one gives it
                if (leg.name, leg.branch) in seen:
                    raise Unknown
                seen.add((leg.name, leg.branch))
        found = [self.of(child) for child in children]
        return Affected([d for one in found for d in one.old], [d for one in found for d in one.new])

    def _cross(self, children: list[pps_pb2.Input]) -> Affected:
        found = [self.of(child) for child in children]
        changed = [number for number, one in enumerate(found) if one.old or one.new]
        if not changed:
            return Affected([], [])
        if len(changed) > 1:
            raise Unknown

        def rows(legs: list[list[Datum]]) -> list[Datum]:
            return [datums.make(f for datum in row for f in datum.files) for row in itertools.product(*legs)]

        one = found[changed[0]]
        before = [datums.create(child, self._glob) for child in children[: changed[0]]]
        after = [datums.create(child, self._glob) for child in children[changed[0] + 1 :]]
        return Affected(rows([*before, one.old, *after]), rows([*before, one.new, *after]))

    def _glob(self, leaf: pps_pb2.PFSInput) -> tuple[Commit, Iterable[Found]]:
        commit, view = self._side(leaf)[1]
        return commit, (datums.found(entry) for entry in view.glob(leaf.glob))

    def _keyed(
        self,
        children: list[pps_pb2.Input],
        template: Callable[[pps_pb2.PFSInput], str],
        key_of: Callable[[File], str],
        combine: Combine,
    ) -> Affected:
        if any(inputs.kind(child) != "pfs" for child in children):
            raise Unknown
        leaves = [child.pfs for child in children]
        keys: dict[str, None] = {}
        for leaf in leaves:
            for datum in itertools.chain(*self._leaf(leaf)):
                keys[key_of(datum.files[0])] = None
        if len(keys) > self._most:
            raise Unknown
        sides = []
        for side in (0, 1):
            legs = [
                [
                    datums.make((file,))
                    for key in keys
                    for file in self._with_key(leaf, side, template(leaf), key, key_of)
                ]
                for leaf in leaves
            ]
            sides.append(list(combine([sorted(leg) for leg in legs])))
        return Affected(*sides)

    def _with_key(
        self, leaf: pps_pb2.PFSInput, side: int, template: str, key: str, key_of: Callable[[File], str]
    ) -> list[File]:
        """The files of a leaf that have this key."""
        pattern = globs.compile(leaf.glob)
        narrow = narrowed(leaf.glob, template, key)
        commit, view = self._side(leaf)[side]
        entries = (e for e in view.glob(narrow) if pattern.match(e.path))
        files = [datums.file_of(leaf, commit, datums.found(entry), pattern) for entry in entries]
        return [file for file in files if key_of(file) == key]


def _files(
    leaf: pps_pb2.PFSInput, commit: Commit, view: Any, changed: Iterable[str], pattern: globs.Glob
) -> Iterable[File]:
    for path in changed:
        try:
            entry = view.inspect(path)
        except NotFound:
            continue
        if entry.path == path:
            yield datums.file_of(leaf, commit, datums.found(entry), pattern)


def narrowed(pattern: str, template: str, key: str) -> str:
    """A glob for everything that ``pattern`` matches so that ``template`` (one reference, as `$1`) becomes ``key``.

    It may match more.  Raises Unknown where there is no such glob that is narrower than the pattern.
    """
    reference = _REFERENCE.fullmatch(template)
    if reference is None or re.search(r"[\[{\\]|!\(", pattern):
        raise Unknown
    number = int(reference.group(1) or reference.group(2))
    opened = [match.start() for match in re.finditer(r"\(", pattern)]
    if not 1 <= number <= len(opened):
        raise Unknown
    start = opened[number - 1]
    before = pattern[:start]
    if before.count("(") != before.count(")"):
        raise Unknown  # inside of other brackets, which may repeat it
    end, depth = start, 0
    for end in range(start, len(pattern)):
        depth += (pattern[end] == "(") - (pattern[end] == ")")
        if not depth:
            break
    if depth or (before and before[-1] in "*+?"):
        raise Unknown
    return before.removesuffix("@") + _SPECIAL.sub(r"\\\1", key) + pattern[end + 1 :]
