"""What the code of pipelines prints: one file of JSON lines per job, kept with the data and bounded in size."""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pachd.pps.datums import Datum
from pachd.store import system

MAX_DATUM = 1 << 20  # bytes of output kept per try of a datum
MAX_JOB = 256 << 20  # bytes kept per job
MAX_ENDLESS = 32 << 20  # bytes of the log of code that runs for ever, before it begins anew
_FLUSH = 64 << 10  # bytes


_open: dict[Path, JobLog] = {}  # the logs that are written now


def folder(data: str) -> Path:
    """Where all logs of a data folder are."""
    return Path(data) / "logs"


def path(data: str, pipeline: int, job: str) -> Path:
    """The log of one job."""
    return folder(data) / str(pipeline) / f"{job}.jsonl"


def remove_pipeline(data: str, pipeline: int) -> None:
    """Forget the logs of a pipeline that is gone."""
    shutil.rmtree(folder(data) / str(pipeline), ignore_errors=True)


def line(text: str, datum: Datum | None, worker: str, user: bool) -> bytes:
    """One line as it stands in the file, with the time it is now."""
    value: dict[str, Any] = {"ts": system.now_ns(), "m": text, "w": worker}
    if datum is not None:
        value["d"] = datum.id
        if len(datum.files) <= 16:  # of a datum of thousands of files nobody reads the list in every line
            value["f"] = [[file.path, file.hash.hex()] for file in datum.files]
    if user:
        value["u"] = 1
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


class Log:
    """Where workers write."""

    def write(self, text: str, datum: Datum | None, worker: str, user: bool = True) -> None:
        """Add one line, printed now by the user's code (``user``) or by the worker about it."""
        self.append(line(text, datum, worker, user))

    def append(self, data: bytes) -> None:
        """Add what `line` gave."""
        raise NotImplementedError

    def flush(self) -> None:
        """Let readers see what was written."""
        raise NotImplementedError


class JobLog(Log):
    """The log of a running job; its methods may be called by several workers at once.

    One that is full ends, or, where the code runs for ever (``endless``), begins anew; the file before it is kept.
    """

    def __init__(self, where: Path, endless: bool = False) -> None:
        where.parent.mkdir(parents=True, exist_ok=True)
        self._where, self._endless = where, endless
        self._file = open(where, "ab", buffering=_FLUSH)
        self._size = self._file.tell()
        self._lock = threading.Lock()
        self._full = False
        _open[where] = self

    def append(self, data: bytes) -> None:
        with self._lock:
            if self._full or self._file.closed:
                return
            if self._size + len(data) > (MAX_ENDLESS if self._endless else MAX_JOB):
                if self._endless:
                    self._begin_anew()
                else:
                    self._full = True
            if self._full:
                data = line(f"the log of this job ends here: it reached {MAX_JOB >> 20} MiB", None, "pachd", False)
            self._size += len(data)
            self._file.write(data)

    def _begin_anew(self) -> None:
        self._file.close()
        os.replace(self._where, self._where.with_suffix(".old"))
        self._file = open(self._where, "ab", buffering=_FLUSH)
        self._size = 0

    def flush(self) -> None:
        with self._lock:
            if not self._file.closed:
                self._file.flush()

    def close(self) -> None:
        """Write everything down and end."""
        if _open.get(self._where) is self:
            del _open[self._where]
        with self._lock:
            self._file.close()


class DatumOutput:
    """A sink for the lines of one try of a datum: bounded, decoded."""

    def __init__(self, log: Log, datum: Datum | None, worker: str) -> None:
        self._log, self._datum, self._worker = log, datum, worker
        self._left = MAX_DATUM

    def __call__(self, line: bytes) -> None:
        if self._left <= 0:
            return
        self._left -= len(line) + 1
        self._log.write(line.decode(errors="replace"), self._datum, self._worker)
        if self._left <= 0:
            self._log.write(
                f"further output of this datum is not kept: it reached {MAX_DATUM >> 20} MiB",
                self._datum,
                self._worker,
                user=False,
            )


def _matches(value: dict[str, Any], filters: Sequence[str]) -> bool:
    """Every filter names a path or a hash (hex or base64) of one of the datum's files."""
    files = value.get("f", ())
    for wanted in filters:
        if not any(
            wanted in (name, digest, base64.b64encode(bytes.fromhex(digest)).decode()) for name, digest in files
        ):
            return False
    return True


def read(
    where: Path, offset: int = 0, datum: str = "", filters: Sequence[str] = (), since: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines of a log from byte ``offset``: (offset after the line, the line).  An unfinished last line is left out."""
    if (current := _open.get(where)) is not None:
        current.flush()  # whoever follows a job sees its lines as they come
    try:
        file = open(where, "rb")
    except FileNotFoundError:
        return
    with file:
        if offset > os.fstat(file.fileno()).st_size:
            offset = 0  # it has begun anew
        file.seek(offset)
        for data in file:
            if not data.endswith(b"\n"):
                return
            offset += len(data)
            try:
                value = json.loads(data)
            except ValueError:
                continue  # torn by a crash
            if (datum and value.get("d") != datum) or value["ts"] < since or (filters and not _matches(value, filters)):
                continue
            yield offset, value
