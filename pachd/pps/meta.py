"""What a pipeline's meta repo says of each datum: `/meta/<datum>/meta`, one JSON object.

The format is protobuf's JSON of Pachyderm's `datum.Meta`.  It is written and read by hand: a job of ten thousand datums
spends more time in the generic converter than in anything else.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format

from pachd.pps.datums import Datum, File, make
from pachd.proto import pfs_pb2, pps_pb2
from pachd.types import Commit, Repo

PROCESSED, FAILED, RECOVERED = "PROCESSED", "FAILED", "RECOVERED"
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


def timestamp(ns: int) -> str:
    """RFC 3339 with nanoseconds, as protobuf's JSON writes it."""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ns % 10**9:09d}Z"


def _repo_json(repo: Repo) -> dict[str, Any]:
    return {"name": repo.name, "type": repo.type, "project": {"name": repo.project}}


def _file_json(file: File) -> dict[str, Any]:
    where: dict[str, Any] = {"commit": {"id": file.commit.id, "repo": _repo_json(file.commit.repo)}, "path": file.path}
    if file.tag:
        where["datum"] = file.tag
    info: dict[str, Any] = {
        "file": where,
        "fileType": "DIR" if file.is_dir else "FILE",
        "committed": timestamp(file.committed),
    }
    if file.size:
        info["sizeBytes"] = str(file.size)
    if file.hash:
        info["hash"] = base64.b64encode(file.hash).decode()
    entry: dict[str, Any] = {"fileInfo": info, "name": file.name, "branch": file.branch}
    if file.join_on:
        entry["joinOn"] = file.join_on
    if file.group_by:
        entry["groupBy"] = file.group_by
    for name, value in (
        ("outerJoin", file.outer_join),
        ("lazy", file.lazy),
        ("emptyFiles", file.empty_files),
        ("s3", file.s3),
        ("reference", file.reference),
    ):
        if value:
            entry[name] = True
    return entry


def encode(
    datum: Datum,
    job: pps_pb2.Job,
    salt: str,
    stats: Stats,
    image: str,
    state: str = PROCESSED,
    reason: str = "",
    index: int = 0,
) -> bytes:
    """The meta file of one datum of ``job``."""
    value: dict[str, Any] = {
        "job": {"pipeline": {"project": {"name": job.pipeline.project.name}, "name": job.pipeline.name}, "id": job.id},
        "inputs": [_file_json(file) for file in datum.files],
        "hash": datum.hash(salt),
    }
    if state != PROCESSED:
        value["state"] = state
    if reason:
        value["reason"] = reason
    found: dict[str, Any] = {"downloadTime": f"{stats.download_time:.9f}s", "processTime": f"{stats.process_time:.9f}s"}
    if state == PROCESSED:
        found["uploadTime"] = f"{stats.upload_time:.9f}s"
    if stats.download_bytes:
        found["downloadBytes"] = str(stats.download_bytes)
    if stats.upload_bytes:
        found["uploadBytes"] = str(stats.upload_bytes)
    value["stats"] = found
    if index:
        value["index"] = str(index)
    value["imageId"] = image
    return json.dumps(value, separators=(",", ":")).encode()


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
