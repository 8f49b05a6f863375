"""debug_v2: what `pachctl debug` asks of an embedded server. Nothing of the data and no secret is in any of it."""

import asyncio
import collections
import importlib.metadata
import io
import os
import platform
import sqlite3
import sys
import tarfile
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from google.protobuf.wrappers_pb2 import BytesValue
from prometheus_client import generate_latest

from pachd import logs
from pachd.api.service import Call, Service
from pachd.errors import InvalidArgument
from pachd.proto import debug_pb2, pps_pb2
from pachd.store import Snapshot

CHUNK = 1 << 20  # bytes per message
LONGEST_PROFILE = 60.0  # seconds
_EVERY = 0.01  # seconds between looks of the profiler
_LEVELS = {1: "debug", 2: "info", 3: "error", 4: "critical"}  # SetLogLevelRequest.LogLevel


class Debug(Service):
    name = "debug_v2.Debug"

    async def Dump(self, call: Call) -> None:
        await call.request()
        archive = await self._dump(lambda task, done, of: asyncio.sleep(0))
        for piece in _pieces(archive):
            await call.reply(BytesValue(value=piece))

    async def DumpV2(self, call: Call) -> None:
        await call.request()

        async def tell(task: str, done: int, of: int) -> None:  # python-pachyderm expects some progress first
            await call.reply(debug_pb2.DumpChunk(progress=debug_pb2.DumpProgress(task=task, total=of, progress=done)))

        for piece in _pieces(await self._dump(tell)):
            await call.reply(debug_pb2.DumpChunk(content=debug_pb2.DumpContent(content=piece)))

    async def GetDumpV2Template(self, call: Call) -> None:
        await call.request()
        request = debug_pb2.DumpV2Request()
        request.system.version = request.system.database = True
        request.system.logs.add(name="pachd")
        await call.reply(debug_pb2.GetDumpV2TemplateResponse(request=request))

    async def Profile(self, call: Call) -> None:
        """Look at what all threads do, again and again; the stacks are counted, one per line."""
        request = await call.request()
        seconds = request.profile.duration.ToNanoseconds() / 1e9 or 1.0
        text = await asyncio.get_running_loop().run_in_executor(None, _profile, min(seconds, LONGEST_PROFILE))
        for piece in _pieces(_archive({"profile.txt": text})):
            await call.reply(BytesValue(value=piece))

    async def Binary(self, call: Call) -> None:
        """There is no binary to look into: what runs is told instead."""
        await call.request()
        await call.reply(BytesValue(value=_archive({"version.txt": _version()})))

    async def SetLogLevel(self, call: Call) -> None:
        request: debug_pb2.SetLogLevelRequest = await call.request()
        kind = request.WhichOneof("level")
        if kind is None:
            raise InvalidArgument("no level provided")
        number = request.grpc if kind == "grpc" else request.pachyderm
        names = debug_pb2.SetLogLevelRequest.LogLevel
        if number not in _LEVELS or (kind == "pachyderm" and number == debug_pb2.SetLogLevelRequest.OFF):
            name = names.Name(number) if number in names.values() else number
            raise InvalidArgument(f"cannot set {'grpc ' if kind == 'grpc' else ''}log level to {name}")
        before = logs.set_level(_LEVELS[number])
        seconds = request.duration.ToNanoseconds() / 1e9
        if seconds > 0:
            asyncio.get_running_loop().call_later(seconds, logs.set_level, before)
        await call.reply(debug_pb2.SetLogLevelResponse(affected_pods=["pachd"]))

    async def _dump(self, tell: Callable[[str, int, int], Any]) -> bytes:
        context = self.context
        tasks = _tasks()  # of this loop
        parts: dict[str, Callable[[], str]] = {
            "version.txt": _version,
            "logs.txt": lambda: "".join(f"{line}\n" for line in logs.recent()),
            "rpcs.txt": lambda: "".join(map(_rpc, list(context.observer.recent))),
            "stacks.txt": lambda: _stacks() + tasks,
            "metrics.txt": lambda: generate_latest(context.observer.registry).decode(),
        }
        found: dict[str, str] = {}
        for number, (name, make) in enumerate(parts.items()):
            await tell(name.removesuffix(".txt"), number + 1, len(parts) + 1)
            found[name] = await asyncio.get_running_loop().run_in_executor(None, make)
        await tell("database", len(parts) + 1, len(parts) + 1)
        found["database.txt"] = await context.read(_database)
        return _archive(found)


def _version() -> str:
    lines = [f"{name} {importlib.metadata.version(name)}" for name in ("howdah", "grpclib", "h2", "protobuf", "uvloop")]
    lines += [f"python {sys.version}", f"sqlite {sqlite3.sqlite_version}", f"platform {platform.platform()}"]
    return "".join(f"{line}\n" for line in (*lines, f"cores {os.cpu_count()}", f"threads {threading.active_count()}"))


def _rpc(call: tuple[float, str, str, float, str]) -> str:
    ended, method, code, seconds, principal = call
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ended))
    return f"{stamp} {method} {code} {seconds * 1000:.3f} ms {principal}".rstrip() + "\n"


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        parts.append(f"thread {names.get(ident, '?')} ({ident})\n{''.join(traceback.format_stack(frame))}\n")
    return "".join(parts)


def _tasks() -> str:
    parts = []
    for task in asyncio.all_tasks():
        frames = task.get_stack(limit=4)
        where = "".join(f"  {f.f_code.co_filename}:{f.f_lineno} {f.f_code.co_name}\n" for f in frames)
        parts.append(f"task {task.get_name()}\n{where}")
    return "".join(parts)


def _profile(seconds: float) -> str:
    counted: collections.Counter[str] = collections.Counter()
    me = threading.get_ident()
    names: dict[int, str] = {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for ident, frame in sys._current_frames().items():
            if ident == me:
                continue
            if ident not in names:
                names = {thread.ident or 0: thread.name for thread in threading.enumerate()}
            stack = [f"{f.f_code.co_name} ({f.f_code.co_filename}:{line})" for f, line in traceback.walk_stack(frame)]
            counted[";".join([names.get(ident, "?"), *reversed(stack)])] += 1
        time.sleep(_EVERY)
    return "".join(f"{stack} {count}\n" for stack, count in counted.most_common())


def _database(snapshot: Snapshot) -> str:
    """How many rows each table has, and in which states jobs and pipelines are."""
    db = snapshot.db
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")]
    lines = [f"{name} {db.execute(f'SELECT count(*) FROM {name}').fetchone()[0]}" for name in tables]
    pages, size = (db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
    lines.append(f"bytes {pages * size}")
    for row in db.execute("SELECT state, count(*) FROM pps_jobs GROUP BY state"):
        lines.append(f"jobs {pps_pb2.JobState.Name(row[0])} {row[1]}")
    for row in db.execute("SELECT state, count(*) FROM pps_pipelines GROUP BY state"):
        lines.append(f"pipelines {pps_pb2.PipelineState.Name(row[0])} {row[1]}")
    return "\n".join(lines) + "\n"


def _archive(texts: dict[str, str]) -> bytes:
    """Return a .tar.gz of these files, in a folder `pachd`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in texts.items():
            data = text.encode(errors="replace")
            entry = tarfile.TarInfo(f"pachd/{name}")
            entry.size, entry.mtime = len(data), int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _pieces(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)] or [b""]


SERVICES = [Debug]
