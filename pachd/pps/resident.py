"""Code that is meant to run for ever: that of spouts and services."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from pachd.auth import bindings
from pachd.errors import PachError
from pachd.pfs import writing
from pachd.pps import access, pipelines, ports, secrets
from pachd.pps.executor import Executor
from pachd.pps.logs import JobLog
from pachd.pps.sandbox import Box, Failed, Killed
from pachd.proto import pps_pb2
from pachd.store import Store

log = logging.getLogger(__name__)
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # seconds until code that failed is started again
_TOOLS = "/pach-bin"  # where a worker of Pachyderm has its pachctl
_CONFIG = "/pachctl"  # where clients in a spout look for their configuration


class Resident:
    """Keeps the code of a pipeline running, in the caller's thread: see `run`.

    ``prepare(box)`` is called before every start with the sandbox to fill `/pfs` in.
    """

    def __init__(
        self,
        store: Store,
        pipeline: int,
        info: pps_pb2.PipelineInfo,
        executor: Executor,
        root: Path,
        job_log: JobLog,
        prepare: Callable[[Box], None],
        env: dict[str, str],
        name: str,
        job: str,
    ) -> None:
        self._store, self._pipeline, self._info = store, pipeline, info
        self._executor, self._root, self._log = executor, root, job_log
        self._prepare, self._env, self._name = prepare, env, name
        self._job = job
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._box: Box | None = None

    def cancel(self) -> None:
        """End the code; from any thread."""
        self._stop.set()
        with self._lock:
            if self._box is not None:
                self._box.kill()

    def run(self) -> None:
        """Run the code until it ends well or `cancel` is called.

        Code that fails is started again, after ever longer pauses; the pipeline is CRASHING meanwhile and says why.
        """
        delay = FIRST_DELAY
        while not self._stop.is_set():
            try:
                self._once()
                return
            except Killed:
                return
            except (Failed, PachError, OSError, ValueError) as problem:  # a variable with a zero byte is a ValueError
                reason = str(problem)
            except Exception as problem:
                log.exception("cannot run the code of %s", self._info.pipeline.name)
                reason = f"{type(problem).__name__}: {problem}"
            if self._stop.is_set():
                return
            self._log.write(f"{reason}; the code starts again in {delay:g} seconds", None, self._name, user=False)
            self._log.flush()
            self._state(pipelines.CRASHING, reason)
            self._stop.wait(delay)
            delay = min(delay * 2, LONGEST_DELAY)

    def _once(self) -> None:
        transform = self._info.details.transform
        place = self._executor.place(self._info, self._job, self._secret)
        env = {**place.environment, **transform.env, **self._env}
        with self._store.read() as snapshot:
            mounts = secrets.provide(snapshot, self._info, env, self._root.parent)
        if "PATH" in place.environment:  # else it is a container, where this machine's Python is not
            env["PATH"] = f"{env['PATH']}:{_TOOLS}"
            mounts.append((str(_write_tools(self._beside("tools"))), _TOOLS))
        mounts.append((str(_write_config(self._beside("config"), env)), _CONFIG))
        if place.note:
            self._log.write(place.note, None, self._name, user=False)
        with ExitStack() as stack:
            box = place.box(self._root, mounts)
            stack.callback(box.close)
            with self._lock:
                if self._stop.is_set():
                    raise Killed
                self._box = box
            box.check()
            if (forwarder := self._forward()) is not None:
                stack.callback(forwarder.close)
            self._prepare(box)
            self._state(pipelines.RUNNING, "")
            data = ("\n".join(transform.stdin) + "\n").encode() if transform.stdin else None
            code = box.run(list(transform.cmd), data, env, transform.working_dir, None, self._line)
            if code and code not in transform.accept_return_code:
                raise Failed(box.why(code))

    def _beside(self, what: str) -> Path:
        return self._root.with_name(f"{self._root.name}-{what}")

    def _secret(self, name: str) -> dict[str, bytes]:
        with self._store.read() as snapshot:
            return secrets.values(snapshot, name)

    def _forward(self) -> ports.Forwarder | None:
        details = self._info.details
        service = details.service if details.HasField("service") else details.spout.service
        return ports.forward(service.external_port, service.internal_port)

    def _line(self, line: bytes) -> None:
        self._log.write(line.decode(errors="replace"), None, self._name)
        self._log.flush()

    def _state(self, state: int, reason: str) -> None:
        with self._store.read() as snapshot:
            row = snapshot.db.execute("SELECT state FROM pps_pipelines WHERE pk=?", (self._pipeline,)).fetchone()
        if row is not None and row["state"] != state and row["state"] not in (pipelines.PAUSED, pipelines.FAILURE):
            with writing(self._store) as txn:
                pipelines.set_state(txn, self._pipeline, state, reason)


def credentials(store: Store, pipeline: pps_pb2.Pipeline) -> dict[str, str]:
    """The variables by which the code calls pachd as its pipeline; none while access control is off."""
    with store.read() as snapshot:
        if not bindings.active(snapshot):
            return {}
    with writing(store) as txn:
        token = access.token(txn, pipeline)
    return {"PACH_TOKEN": token} if token else {}


def _write_tools(folder: Path) -> Path:
    """A folder with a command `pachctl` for the code, last on its PATH: a real one on the machine comes first."""
    folder.mkdir(parents=True, exist_ok=True)
    command = folder / "pachctl"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -m pachd.pachctl "$@"\n')
    command.chmod(0o755)
    return folder


def _write_config(folder: Path, env: Mapping[str, str]) -> Path:
    """A folder with the configuration that clients of Pachyderm read, so that they find the worker's own pachd."""
    context = {"pachd_address": f"grpc://{env['PACHD_PEER_SERVICE_HOST']}:{env['PACHD_PEER_SERVICE_PORT']}"}
    if "PACH_TOKEN" in env:
        context["session_token"] = env["PACH_TOKEN"]
    config = {"user_id": "worker", "v2": {"active_context": "worker", "contexts": {"worker": context}}}
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "config.json").write_text(json.dumps(config))
    return folder
