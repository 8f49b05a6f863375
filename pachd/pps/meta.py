"""What a pipeline's meta repo says of each datum: `/meta/<datum>/meta`, one JSON object.

The format is protobuf's JSON of Pachyderm's `datum.Meta`.  It is written and read by hand: a job of ten thousand datums
spends more time in the generic converter than in anything else.
"""

from __future__ import annotations

import base64
import functools
import json
import json.encoder
import re
from binascii import b2a_base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format

from pachd.pps.datums import Datum, File, make
from pachd.proto import pfs_pb2, pps_pb2
from pachd.types import Commit, Repo

PROCESSED, FAILED, RECOVERED = "PROCESSED", "FAILED", "RECOVERED"
_text = json.encoder.encode_basestring_ascii
_HASH = re.compile(rb'"hash":\s*"([0-9a-f]{64})"')  # a file's hash is base64 and shorter
_STATE = re.compile(rb'"state":\s*"(FAILED|RECOVERED)"')


@dataclass
class Stats:
    """What one or many datums cost: seconds and bytes."""

    download_time: float = 0.0
    process_time: float = 0.0
    upload_time: float = 0.0
    download_bytes: int = 0
    upload_bytes: int = 0

    def add(self, other: Stats) -> None:
        self.download_time += other.download_time
        self.process_time += other.process_time
        self.upload_time += other.upload_time
        self.download_bytes += other.download_bytes
        self.upload_bytes += other.upload_bytes

    def message(self) -> pps_pb2.ProcessStats:
        """As the wire message, all three times set."""
        found = pps_pb2.ProcessStats(download_bytes=self.download_bytes, upload_bytes=self.upload_bytes)
        found.download_time.FromNanoseconds(int(self.download_time * 1e9))
        found.process_time.FromNanoseconds(int(self.process_time * 1e9))
        found.upload_time.FromNanoseconds(int(self.upload_time * 1e9))
        return found


def path(datum: str) -> str:
    """Where a datum's meta file is."""
    return f"/meta/{datum}/meta"


def directory(datum: str) -> str:
    """Where a datum's inputs, outputs and environment are kept."""
    return f"/pfs/{datum}/"


@functools.lru_cache(maxsize=1024)
def timestamp(ns: int) -> str:
    """RFC 3339 with nanoseconds, as protobuf's JSON writes it."""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ns % 10**9:09d}Z"


def _flags(file: File) -> str:
    found = ""
    for name, value in (
        ("outerJoin", file.outer_join),
        ("lazy", file.lazy),
        ("emptyFiles", file.empty_files),
        ("s3", file.s3),
        ("reference", file.reference),
    ):
        if value:
            found += f',"{name}":true'
    return found


class Encoder:
    """Writes the meta files of one job; what all its datums have in common is made once.

    ``image`` and ``salt`` are the pipeline's.
    """

    def __init__(self, job: pps_pb2.Job, salt: str, image: str) -> None:
        project = job.pipeline.project.name
        pipeline = f'{{"project":{{"name":{_text(project)}}},"name":{_text(job.pipeline.name)}}}'
        self._begin = f'{{"job":{{"pipeline":{pipeline},"id":{_text(job.id)}}},"inputs":['
        self._end = f',"imageId":{_text(image)}}}'
        self._salt = salt
        self._parts: dict[tuple[str, Commit, str], tuple[str, str]] = {}

    def _file(self, file: File) -> str:
        key = (file.name, file.commit, file.branch)
        parts = self._parts.get(key)
        if parts is None:
            repo = file.commit.repo
            where = (
                f'{{"name":{_text(repo.name)},"type":{_text(repo.type)},"project":{{"name":{_text(repo.project)}}}}}'
            )
            parts = self._parts[key] = (
                f'{{"fileInfo":{{"file":{{"commit":{{"id":{_text(file.commit.id)},"repo":{where}}},"path":',
                f'}},"name":{_text(file.name)},"branch":{_text(file.branch)}',
            )
        tag = f',"datum":{_text(file.tag)}' if file.tag else ""
        kind = "DIR" if file.is_dir else "FILE"
        size = f',"sizeBytes":"{file.size}"' if file.size else ""
        digest = f',"hash":"{b2a_base64(file.hash, newline=False).decode()}"' if file.hash else ""
        info = f'}},"fileType":"{kind}","committed":"{timestamp(file.committed)}"{size}{digest}'
        join = f',"joinOn":{_text(file.join_on)}' if file.join_on else ""
        group = f',"groupBy":{_text(file.group_by)}' if file.group_by else ""
        return f"{parts[0]}{_text(file.path)}{tag}{info}{parts[1]}{join}{group}{_flags(file)}}}"

    def encode(self, datum: Datum, stats: Stats, state: str = PROCESSED, reason: str = "") -> bytes:
        """The meta file of one datum."""
        inputs = ",".join([self._file(file) for file in datum.files])
        ended = "" if state == PROCESSED else f',"state":"{state}"'
        why = f',"reason":{_text(reason)}' if reason else ""
        found = f'"downloadTime":"{stats.download_time:.9f}s","processTime":"{stats.process_time:.9f}s"'
        if state == PROCESSED:
            found += f',"uploadTime":"{stats.upload_time:.9f}s"'
        if stats.download_bytes:
            found += f',"downloadBytes":"{stats.download_bytes}"'
        if stats.upload_bytes:
            found += f',"uploadBytes":"{stats.upload_bytes}"'
        digest = datum.hash(self._salt)
        return f'{self._begin}{inputs}],"hash":"{digest}"{ended}{why},"stats":{{{found}}}{self._end}'.encode()


def hash_and_state(data: bytes) -> tuple[str, str]:
    """The datum's hash and state in a meta file, without parsing it."""
    found = _HASH.search(data)
    state = _STATE.search(data)
    return (found.group(1).decode() if found else ""), (state.group(1).decode() if state else PROCESSED)


def file_info(file: File) -> pfs_pb2.FileInfo:
    """A file of a datum as the wire message."""
    repo = file.commit.repo
    info = pfs_pb2.FileInfo(
        size_bytes=file.size, hash=file.hash, file_type=pfs_pb2.DIR if file.is_dir else pfs_pb2.FILE
    )
    info.committed.FromNanoseconds(file.committed)
    info.file.path, info.file.datum = file.path, file.tag
    info.file.commit.id = file.commit.id
    info.file.commit.repo.name, info.file.commit.repo.type = repo.name, repo.type
    info.file.commit.repo.project.name = repo.project
    return info


def datum_info(data: bytes, job: pps_pb2.Job) -> pps_pb2.DatumInfo:
    """A meta file as the message that lists a datum of ``job``; what another job processed shows as SKIPPED."""
    value = json.loads(data)
    info = pps_pb2.DatumInfo(image_id=value.get("imageId", ""))
    owner = value["job"]
    info.datum.job.id = owner["id"]
    info.datum.job.pipeline.name = owner["pipeline"]["name"]
    info.datum.job.pipeline.project.name = owner["pipeline"]["project"]["name"]
    if owner["id"] != job.id or owner["pipeline"]["name"] != job.pipeline.name:
        info.state = pps_pb2.SKIPPED
    else:
        info.state = {FAILED: pps_pb2.FAILED, RECOVERED: pps_pb2.RECOVERED}.get(value.get("state", ""), pps_pb2.SUCCESS)
    json_format.ParseDict(value.get("stats", {}), info.stats)
    files = [_parse_file(entry) for entry in value["inputs"]]
    info.datum.id = make(files).id
    info.data.extend(file_info(file) for file in files)
    return info


def _parse_file(entry: dict[str, Any]) -> File:
    info = entry["fileInfo"]
    where = info["file"]
    repo = where["commit"]["repo"]
    seconds, _, fraction = info["committed"].rstrip("Z").partition(".")
    committed = int(datetime.fromisoformat(seconds + "+00:00").timestamp()) * 10**9 + int(
        (fraction or "0").ljust(9, "0")
    )
    return File(
        entry["name"],
        Commit(Repo(repo["project"]["name"], repo["name"], repo["type"]), where["commit"]["id"]),
        entry.get("branch", ""),
        where["path"],
        int(info.get("sizeBytes", 0)),
        base64.b64decode(info.get("hash", "")),
        where.get("datum", ""),
        committed,
        entry.get("joinOn", ""),
        entry.get("outerJoin", False),
        entry.get("groupBy", ""),
    )
