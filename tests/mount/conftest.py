"""A mount server in this process over a store in memory, with a real FUSE mount."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount_server import manager
from mount_server.fuse_adapter import FuseMount
from mount_server.manager import MountRequest, Mounts
from mount_server.vfs import Vfs
from tests.mount.memory_source import MemorySource


class World:
    """A store, a server over it, and its mount directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dir = folder / "pfs"
        self.source = MemorySource()
        self.fuse: FuseMount | None = None
        self.mounts = self._open()

    def _open(self) -> Mounts:
        return Mounts(self.folder / "state", "memory", lambda address: self.source, self.dir)

    def restart(self) -> None:
        """Stop politely and start again."""
        self.stop()
        self.mounts = self._open()

    def start_fuse(self) -> None:
        self.fuse = FuseMount(Vfs(self.mounts), self.dir)
        self.fuse.start()

    def stop(self) -> None:
        if self.fuse is not None:
            self.fuse.stop()
            self.fuse = None
        self.mounts.close()

    def mount(self, name: str, repo: str = "", mode: str = "rw", **more: str) -> Path:
        self.mounts.mount([MountRequest(name=name, repo=repo or name, mode=mode, **more)])
        return self.dir / name

    def commit(self, name: str, **more: object) -> dict[str, object]:
        arguments = {"message": "", "metadata": {}, "expected": None, "key": ""} | more
        return self.mounts.commit(name, **arguments)  # type: ignore[arg-type]


@pytest.fixture
def quiet_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Without FUSE."""
    monkeypatch.setattr(manager, "FOLLOW_INTERVAL", 0.05)
    world = World(tmp_path)
    try:
        yield world
    finally:
        world.stop()


@pytest.fixture
def world(quiet_world: World) -> Iterator[World]:
    """With a real mount."""
    try:
        quiet_world.start_fuse()
    except Exception:
        quiet_world.stop()
        raise
    try:
        yield quiet_world
    finally:
        if quiet_world.fuse is not None:
            quiet_world.fuse.stop()
            quiet_world.fuse = None
        subprocess.run(["fusermount", "-uz", str(quiet_world.dir)], capture_output=True)
