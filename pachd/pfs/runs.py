"""Many operations in little memory: kept in the order in which they came, and taken in the order of their keys."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any, Self

import msgpack  # type: ignore[import-untyped]

from pachd.pfs import paths
from pachd.store.scratch import Scratch
from pachd.store.tree import path_of, tag_of

ADD, DELETE, DELETE_TREE = 0, 1, 2

Op = tuple[Any, ...]

_IN_MEMORY = 4 << 20  # bytes
_RUN = 20_000  # operations
_BLOCK = 256  # operations; a part of many runs holds one block of each
_Block = tuple[str, int, int]  # its first key, where it is, how long it is
_key_of = itemgetter(1)


class Rows:
    """Packed operations, in order: the first few megabytes in memory, the others put aside in `folder`.

    `size`: bytes of all.
    """

    def __init__(self, folder: str) -> None:
        self.size = 0
        self._folder = folder
        self._first: list[bytes] = []
        self._others: list[tuple[int, int]] = []
        self._scratch: Scratch | None = None

    def append(self, row: bytes) -> None:
        """Add a row. Raises OSError when the disk does not take it."""
        if self.size + len(row) <= _IN_MEMORY:
            self._first.append(row)
        else:
            if self._scratch is None:
                self._scratch = Scratch(self._folder)
            self._others.append((self._scratch.append(row), len(row)))
        self.size += len(row)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._first
        for at, length in self._others:
            assert self._scratch is not None
            yield self._scratch.read(at, length)

    def close(self) -> None:
        """Forget them. Twice is no error."""
        self._first, self._others = [], []
        if self._scratch is not None:
            self._scratch.close()


class Runs:
    """Operations put aside in `folder`, in sorted runs. `trees`: directories that are deleted, by datum tag, and when
    for the last time. Use it as a context manager."""

    def __init__(self, folder: str) -> None:
        self.trees: dict[tuple[str, str], int] = {}
        self._runs: list[list[_Block]] = []
        self._at = 0
        self._pending: list[Op] = []
        self._scratch = Scratch(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._scratch.close()

    def add(self, ops: Sequence[Op]) -> None:
        """Take the operations that come next. Raises OSError when the disk does not."""
        self._pending += ops
        if len(self._pending) >= _RUN:
            self._put_aside()

    def finish(self) -> None:
        """That was all. Raises OSError as `add` does."""
        if self._pending:
            self._put_aside()

    def _put_aside(self) -> None:
        ops, self._pending = self._pending, []
        base, self._at = self._at + 1, self._at + len(ops)
        order: list[int] = []
        for i, op in enumerate(ops):
            if op[0] == DELETE_TREE:
                self.trees[op[1], op[2]] = base + i
            else:
                order.append(i)
        if any(ops[a][1] > ops[b][1] for a, b in pairwise(order)):
            order.sort(key=lambda i: ops[i][1])  # stable: what happens to one file stays in order
        run: list[_Block] = []
        for start in range(0, len(order), _BLOCK):
            part = order[start : start + _BLOCK]
            data = msgpack.packb(([base + i for i in part], [ops[i] for i in part]))
            run.append((ops[part[0]][1], self._scratch.append(data), len(data)))
        self._runs.append(run)

    def parts(self, count: int) -> Iterator[list[Op]]:
        """All operations on files that matter, about `count` at a time: those on smaller keys first, those on the same
        file together and in order. What was done to a file before its directory was deleted does not matter."""
        firsts = sorted(block[0] for run in self._runs for block in run)
        step = max(1, count // _BLOCK)
        bounds: list[str | None] = [*dict.fromkeys(firsts[step::step]), None]
        cursors = [_Cursor(self, run) for run in self._runs]
        for high in bounds:
            ops: list[Op] = []
            for cursor in cursors:
                cursor.take(high, ops)
            if ops:
                yield ops

    def load(self, block: _Block) -> Sequence[Op]:
        """The operations of a block that matter."""
        positions, ops = msgpack.unpackb(self._scratch.read(block[1], block[2]), use_list=False)
        if not self.trees:
            return ops  # type: ignore[no-any-return]
        return [op for at, op in zip(positions, ops, strict=True) if at > self._deleted(op[1])]

    def _deleted(self, key: str) -> int:
        """When a directory above a file was deleted for the last time, 0 if never."""
        tag = tag_of(key)
        return max((self.trees.get((parent, tag), 0) for parent in paths.parents(path_of(key))), default=0)


class _Cursor:
    """A place in a run."""

    def __init__(self, runs: Runs, blocks: list[_Block]) -> None:
        self._runs = runs
        self._blocks = blocks
        self._next = 0
        self._ops: Sequence[Op] = ()
        self._start = 0

    def take(self, high: str | None, out: list[Op]) -> None:
        """Add what comes before the key `high` (None: all that is left) to `out`, and go past it."""
        while True:
            if self._start == len(self._ops):
                self._ops, self._start = (), 0
                if self._next == len(self._blocks) or (high is not None and self._blocks[self._next][0] >= high):
                    return
                self._ops = self._runs.load(self._blocks[self._next])
                self._next += 1
            stop = len(self._ops) if high is None else bisect_left(self._ops, high, self._start, key=_key_of)
            out += self._ops[self._start : stop]
            self._start = stop
            if stop < len(self._ops):
                return
