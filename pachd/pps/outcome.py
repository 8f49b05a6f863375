"""What the workers of a job have done and not yet written down."""

from __future__ import annotations

import os
from io import FileIO
from typing import Any, Protocol

from pachd.pfs import changes, filesets
from pachd.pps import meta, staging
from pachd.pps.datums import Datum
from pachd.pps.meta import Stats
from pachd.store import Store, Txn, contents, system
from pachd.store.contents import BlockHasher, Content, ContentWriter
from pachd.store.tree import Entry

LARGE = 4 << 20  # bytes; a larger output goes into the store piece by piece
_PIECE = 1 << 20  # bytes
_OPS_PER_ROW = 20_000
_AGE = 0.25  # seconds
_DATUMS = 512
_BYTES = 32 << 20


def _open(source: str) -> FileIO:
    try:
        return FileIO(source)
    except PermissionError:  # the code took everybody's right to read it; on a cluster the worker is root
        os.chmod(source, 0o600)
        return FileIO(source)


def read_output(source: str, size: int) -> bytes:
    """The bytes of a file that had ``size`` bytes just now."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        with _open(source) as file:
            return file.read()
    try:
        data = os.read(fd, size + 1)
        if len(data) == size:  # it is as long as it was
            return data
        parts = [data]
        while more := os.read(fd, _PIECE):
            parts.append(more)
        return b"".join(parts)
    finally:
        os.close(fd)


class Records(Protocol):
    """Datums that are over: how they ended and what they put out. `close` it in any case."""

    states: list[tuple[str, str]]  # (datum, state)

    def full(self) -> bool:
        """Whether it is time to write it down."""

    def add_outputs(self, datum: str, outputs: list[staging.Output], good: bool = True) -> int:
        """Take the files that a datum's code left; how many bytes they have. Of one that is not ``good`` only the meta
        repo gets them."""

    def add_datum(
        self, datum: Datum, about: bytes, env: bytes, inputs: list[tuple[str, Entry]], stats: Stats, state: str
    ) -> None:
        """Note how a datum ended: its meta file, its environment, and (path below `/pfs`, entry) of what it read."""

    def close(self) -> None:
        """Let go of what was not written."""


class Fullness:
    """When to write down: often enough that little is lost, and that what waits is small."""

    def __init__(self, most: int = 0) -> None:
        self._most = most or _DATUMS
        self._since = system.monotonic()

    def reached(self, datums: int, files: int, memory: int) -> bool:
        """Whether these many, and bytes, are enough."""
        old = system.monotonic() - self._since > _AGE
        return datums >= self._most or memory > _BYTES or files >= _OPS_PER_ROW or old


class Told:
    """Records that go to another process, which writes them down; what is large it reads where it is."""

    def __init__(self, out_of_memory: dict[str, str], most: int = 0) -> None:
        self.outputs: list[tuple[str, list[tuple[str, str, bytes, bytes]], bool]] = []
        self.datums: list[tuple[Datum, bytes, bytes, list[tuple[str, Entry]], Stats, str]] = []
        self.states: list[tuple[str, str]] = []
        self.out_of_memory = out_of_memory
        self._fullness = Fullness(most)
        self._files = self._memory = 0

    def full(self) -> bool:
        return self._fullness.reached(len(self.states), self._files, self._memory)

    def add_outputs(self, datum: str, outputs: list[staging.Output], good: bool = True) -> int:
        files: list[tuple[str, str, bytes, bytes]] = []  # path, where it is, its bytes, their hash
        total = 0
        for path, source, size in outputs:
            if size > LARGE:
                files.append((path, source, b"", b""))
                self._memory = _BYTES + 1  # it is to be read before the datum's folder is emptied
            else:
                data = read_output(source, size)
                size = len(data)
                files.append((path, "", data, contents.content_hash(data)))
                self._memory += size
            total += size
        self.outputs.append((datum, files, good))
        self._files += len(files)
        return total

    def add_datum(
        self, datum: Datum, about: bytes, env: bytes, inputs: list[tuple[str, Entry]], stats: Stats, state: str
    ) -> None:
        self.datums.append((datum, about, env, inputs, stats, state))
        self.states.append((datum.id, state))
        self._files += 2 + len(inputs)

    def close(self) -> None:
        pass


class Batch:
    """Records as the changes that they make to the output and the meta commit.

    The bytes of an output are kept once for both.
    """

    def __init__(self, store: Store, most: int = 0) -> None:
        self._writer = ContentWriter(store)
        self._out: list[changes.Op] = []
        self._meta: list[changes.Op] = []
        self._sizes = [0, 0]
        self._memory = 0
        self._fullness = Fullness(most)
        self.states: list[tuple[str, str]] = []
        self.stats = Stats()

    def close(self) -> None:
        self._writer.close()

    def full(self) -> bool:
        return self._fullness.reached(len(self.states), len(self._meta), self._memory)

    def add_outputs(self, datum: str, outputs: list[staging.Output], good: bool = True) -> int:
        made = [
            (path, self._stream(source) if size > LARGE else self.content(read_output(source, size)))
            for path, source, size in outputs
        ]
        return self.add_contents(datum, made, good)

    def take(self, told: Told) -> None:
        """Add what a worker in another process tells."""
        for datum, files, good in told.outputs:
            made = [
                (path, self._stream(source) if source else self.content(data, digest))
                for path, source, data, digest in files
            ]
            self.add_contents(datum, made, good)
        for each in told.datums:
            self.add_datum(*each)

    def add_contents(self, datum: str, made: list[tuple[str, Content]], good: bool = True) -> int:
        """Take files whose bytes are there: (path, content)."""
        folder = meta.directory(datum) + "out"
        total = sum(content.size for _, content in made)
        if good:
            self._out += [(changes.ADD, f"{path}\0{datum}", *content) for path, content in made]
            self._sizes[0] += total
        self._meta += [(changes.ADD, f"{folder}{path}\0{datum}", *content) for path, content in made]
        self._memory += total
        self._sizes[1] += total
        return total

    def content(self, data: bytes, digest: bytes = b"") -> Content:
        """Keep a small file's bytes; ``digest``: their hash, where it is known."""
        return Content(len(data), digest or contents.content_hash(data), self._writer.add(data), b"")

    def _stream(self, source: str) -> Content:
        hasher = BlockHasher()
        refs: tuple[int, ...] = ()
        size = 0
        with _open(source) as file:
            while piece := file.read(_PIECE):
                hasher.update(piece)
                size += len(piece)
                new = self._writer.add(piece)
                if refs and refs[-3] == new[0] and refs[-2] + refs[-1] == new[1]:
                    refs = (*refs[:-1], refs[-1] + new[2])
                else:
                    refs += new
        digest, blocks = hasher.finish()
        return Content(size, digest, refs, blocks)

    def add_datum(
        self,
        datum: Datum,
        about: bytes,
        env: bytes,
        inputs: list[tuple[str, Entry]],
        stats: Stats,
        state: str,
    ) -> None:
        id = datum.id
        folder = meta.directory(id)
        ops = self._meta
        ops.append((changes.ADD, f"{meta.path(id)}\0{id}", *self.content(about)))
        ops.append((changes.ADD, f"{folder}.env\0{id}", *self.content(env)))
        size = len(about) + len(env)
        for path, entry in inputs:
            ops.append((changes.ADD, f"{folder}{path}\0{id}", *entry[1:]))
            size += entry[1]
        self._sizes[1] += size
        self.states.append((id, state))
        self.stats.add(stats)

    def seal(self) -> None:
        """Make large contents durable, before the transaction that names them."""
        self._writer.seal()

    def apply(self, txn: Txn, job: int, out: Any, about: Any) -> None:
        """Write it down: changes of the rows of the output and the meta commit, states and counts of the job's row."""
        self._writer.flush(txn)
        for row, ops, size in ((out, self._out, self._sizes[0]), (about, self._meta, self._sizes[1])):
            if ops:
                parts = [changes.pack(ops[i : i + _OPS_PER_ROW]) for i in range(0, len(ops), _OPS_PER_ROW)]
                filesets.add(txn, row, parts, size)
        txn.db.executemany(
            "INSERT OR REPLACE INTO pps_datums VALUES (?,?,?)", [(job, datum, state) for datum, state in self.states]
        )
        count = dict.fromkeys((meta.PROCESSED, meta.FAILED, meta.RECOVERED), 0)
        for _, state in self.states:
            count[state] += 1
        stats = self.stats
        txn.db.execute(
            "UPDATE pps_jobs SET processed=processed+?, failed=failed+?, recovered=recovered+?, "
            "download_time=download_time+?, process_time=process_time+?, upload_time=upload_time+?, "
            "download_bytes=download_bytes+?, upload_bytes=upload_bytes+? WHERE pk=?",
            (
                *count.values(),
                stats.download_time,
                stats.process_time,
                stats.upload_time,
                stats.download_bytes,
                stats.upload_bytes,
                job,
            ),
        )
