"""A pachd that does not say a word any more: who waits for it is told, and nobody else waits."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mount_server import pachd_source
from mount_server.fuse_adapter import FuseMount
from mount_server.manager import MountRequest, Mounts
from mount_server.pachd_source import PachdSource
from mount_server.vfs import Vfs
from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.processes import Pachd

READ = "import sys\ntry:\n open(sys.argv[1]).read()\nexcept OSError as e:\n print(e.errno)"


def test_a_silent_pachd_ends_reads_and_stops_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pachd = Pachd(tmp_path / "data")
    pachd.start()
    assert pachd.process is not None
    repo = pfs_pb2.Repo(name="labels", type="user", project=pfs_pb2.Project(name="default"))
    with Client(pachd.address) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
        commit = pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name="master"))
        adds = [pfs_pb2.AddFile(path=f"/f{i}") for i in range(3)]
        for add in adds:
            add.raw.value = os.urandom(300_000)
        requests = [pfs_pb2.ModifyFileRequest(set_commit=commit)]
        client.pfs.ModifyFile([*requests, *(pfs_pb2.ModifyFileRequest(add_file=add) for add in adds)])
    mounts = Mounts(tmp_path / "state", pachd.address, PachdSource, tmp_path / "pfs")
    fuse = FuseMount(Vfs(mounts), tmp_path / "pfs")
    readers: list[subprocess.Popen[str]] = []
    try:
        fuse.start()
        mounts.mount([MountRequest(name="labels", repo="labels", mode="rw")])
        folder = tmp_path / "pfs" / "labels"
        assert len(os.listdir(folder)) == 3
        monkeypatch.setattr(pachd_source, "PATIENCE", 1.0)
        os.kill(pachd.process.pid, signal.SIGSTOP)
        try:
            # processes: threads of this one would need Python's lock while they wait in the kernel
            for i in range(3):
                command = [sys.executable, "-c", READ, str(folder / f"f{i}")]
                readers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            (folder / "new").write_text("meanwhile")
            assert (folder / "new").read_text() == "meanwhile"
            assert [reader.communicate(timeout=120)[0] for reader in readers] == [f"{errno.ETIMEDOUT}\n"] * 3
        finally:
            os.kill(pachd.process.pid, signal.SIGCONT)
        assert "read: pachd at" in caplog.text and "did not answer in time" in caplog.text
        monkeypatch.undo()
        assert (folder / "f0").read_bytes() == adds[0].raw.value
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
        fuse.stop()
        mounts.close()
        pachd.stop()
