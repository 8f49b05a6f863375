"""Where workers run: in a sandbox on this machine, or in containers of a Docker engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pachd.errors import PachError
from pachd.pps import sandbox
from pachd.proto import pps_pb2


class NotReady(PachError):
    """Workers cannot be started now, but may later: after ``retry`` seconds it is worth trying again."""

    def __init__(self, reason: str, retry: float) -> None:
        super().__init__(reason)
        self.retry = retry


class Place(Protocol):
    """Where the workers of one job run."""

    note: str  # a line for the job's log, "" for none
    environment: dict[str, str]  # what the user's code sees before the pipeline's own variables

    def box(self, root: Path, mounts: Sequence[tuple[str, str]]) -> sandbox.Box:
        """A worker's sandbox in the folder ``root``; ``mounts`` are (folder, where the code sees it), read-only."""


class Executor:
    """Chooses the place.  ``mode`` is `process`."""

    def __init__(self, data: str, address: str, mode: str = "auto") -> None:
        self._data = data
        self.mode = mode
        host, _, port = address.rpartition(":")
        self._peer = {"PACHD_PEER_SERVICE_HOST": host, "PACHD_PEER_SERVICE_PORT": port}

    def place(self, info: pps_pb2.PipelineInfo) -> Place:
        """Where a pipeline's workers run now; NotReady when nowhere."""
        return _Sandboxes(self._data, {**sandbox.host_environment(), **self._peer})


class _Sandboxes:
    def __init__(self, data: str, environment: dict[str, str], note: str = "") -> None:
        self._data, self.environment, self.note = data, environment, note

    def box(self, root: Path, mounts: Sequence[tuple[str, str]]) -> sandbox.Box:
        return sandbox.Sandbox(root, self._data, mounts)
