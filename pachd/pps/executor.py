"""Where workers run: in a sandbox on this machine, or in containers of a Docker engine."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pachd.pps import sandbox
from pachd.pps.container import Container
from pachd.pps.docker_engine import DockerEngine
from pachd.pps.limits import Limits
from pachd.pps.sandbox import NotReady
from pachd.proto import pps_pb2

MODES = ("auto", "process", "docker")
_DEFAULT_IMAGE = "ubuntu:20.04"  # what a spec without an image gets; nobody has asked for it
_PULL_AGAIN = {"auto": 300.0, "docker": 10.0}  # seconds until a pull that failed is tried again


class Place(Protocol):
    """Where the workers of one job run."""

    note: str  # a line for the job's log, "" for none
    environment: dict[str, str]  # what the user's code sees before the pipeline's own variables
    portable: bool  # whether other processes may make boxes too (it can be pickled)

    def box(self, root: Path, mounts: Sequence[tuple[str, str]]) -> sandbox.Box:
        """A worker's sandbox in the folder ``root``; ``mounts`` are (folder, where the code sees it), read-only."""


class Executor:
    """Chooses the place.

    ``mode``: `process` is the sandbox, always; `docker` a container of the pipeline's image, always; `auto` a container
    when the spec names an image, an engine answers and the image is there or can be pulled, else the sandbox.
    """

    def __init__(self, data: str, address: str, mode: str = "auto") -> None:
        self._data = data
        self._mode = mode
        self._engine = DockerEngine(os.path.realpath(data))
        host, _, port = address.rpartition(":")
        self._peer = {"PACHD_PEER_SERVICE_HOST": host, "PACHD_PEER_SERVICE_PORT": port}

    @property
    def containers_only(self) -> bool:
        """Whether nothing can run without a Docker engine."""
        return self._mode == "docker"

    def start(self) -> None:
        """Remove, in the background, the containers that a killed pachd left behind."""
        threading.Thread(target=self._engine.problem, name="docker", daemon=True).start()

    def problem(self) -> str:
        """Why no worker at all can be started now, "" when that is not so."""
        reason = self._engine.problem() if self.containers_only else ""
        return f"no worker can be started: {reason}" if reason else ""

    def place(
        self, info: pps_pb2.PipelineInfo, job: str = "", secret: Callable[[str], Mapping[str, bytes]] | None = None
    ) -> Place:
        """Where the workers of a pipeline's job run now; NotReady when nowhere.

        ``secret(name)`` gives the values of a secret.
        """
        image = info.details.transform.image
        if not self.containers_only:
            if self._mode == "process" or not _named(info):
                return self._sandboxes(info)
            if away := self._engine.problem():
                return self._sandboxes(info, f"the image {image} is not used: {away}; the code runs in a sandbox")
        try:
            if away := self._engine.problem():
                raise NotReady(f"no worker can be started: {away}", retry=3.0)
            credentials = [secret(name) for name in info.details.transform.image_pull_secrets] if secret else []
            self._engine.ensure(image, credentials, _PULL_AGAIN[self._mode])
            user = _user(info.details.transform.user, self._engine.own_user())
        except NotReady as problem:
            if self.containers_only:
                raise
            return self._sandboxes(info, f"the image {image} is not used: {problem}; the code runs in a sandbox")
        return _Containers(self._engine, info, job, user, {"PACH_IN_WORKER": "true", **self._peer})

    def _sandboxes(self, info: pps_pb2.PipelineInfo, note: str = "") -> Place:
        environment = {**sandbox.host_environment(), **self._peer}
        return _Sandboxes(self._data, environment, Limits.of(info.details), note)


class _Sandboxes:
    portable = True

    def __init__(self, data: str, environment: dict[str, str], limits: Limits, note: str) -> None:
        self._data, self.environment, self._limits, self.note = data, environment, limits, note

    def box(self, root: Path, mounts: Sequence[tuple[str, str]]) -> sandbox.Box:
        return sandbox.Sandbox(root, self._data, mounts, self._limits)


class _Containers:
    portable = False

    def __init__(
        self, engine: DockerEngine, info: pps_pb2.PipelineInfo, job: str, user: str, environment: dict[str, str]
    ) -> None:
        self._engine, self._transform, self.environment = engine, info.details.transform, environment
        self.note = f"the code runs in a container of the image {self._transform.image}"
        self._limits = Limits.of(info.details)
        self._user = user
        self._labels = {
            "howdah.pipeline": f"{info.pipeline.project.name or 'default'}/{info.pipeline.name}",
            "howdah.job": job,
        }

    def box(self, root: Path, mounts: Sequence[tuple[str, str]]) -> sandbox.Box:
        return Container(root, self._engine, self._transform.image, self._user, self._limits, mounts, self._labels)


def _user(wanted: str, own: str) -> str:
    """As whom the code runs: the spec's user, else ``own``, which is "" when any user will do."""
    if not wanted or not own or wanted in (own, own.split(":")[0]):
        return wanted or own
    raise NotReady(
        f'the code cannot run as the user "{wanted}": this pachd runs as the user {own.split(":")[0]} and could not '
        "remove what another one writes; leave transform.user out or run pachd as root",
        retry=15.0,
    )


def _named(info: pps_pb2.PipelineInfo) -> bool:
    """Whether somebody chose the image."""
    if info.details.transform.image != _DEFAULT_IMAGE:
        return True
    try:
        return bool(json.loads(info.user_spec_json or "{}")["transform"]["image"])
    except (ValueError, KeyError, TypeError):
        return False
