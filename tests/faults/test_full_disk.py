"""A full disk: a clear error, nothing half written, and everything goes on once there is space again."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2
from tests.faults import helpers
from tests.processes import MountServer, Pachd, running

SIZE = 32 << 20  # bytes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)], capture_output=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill_up(disk: Path, leave: int = 0) -> Path:
    """Take all space, but for `leave` bytes."""
    filler = disk / "filler"
    with filler.open("wb") as out:
        try:
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            out.write(bytes(max(0, free - leave)))
        except OSError:
            pass
    return filler


@pytest.mark.timeout(900)
def test_pachd(small_disk: Path, tmp_path: Path) -> None:
    server = Pachd(small_disk / "data", log=tmp_path / "pachd.log")
    good = b"good" * 5000
    with running(server), Client(server.address, timeout=60) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of("labels")))
        helpers.put(client, "labels", [("/good", good), ("/large", bytes(3 << 20))])
        before = [i.commit.id for i in helpers.commits(client, "labels")]
        filler = fill_up(small_disk, leave=1 << 20)
        for raw in (os.urandom(8 << 20), os.urandom(40 << 10)):  # a packed file, and many small ones
            with pytest.raises(RpcError) as caught:
                for n in range(1000):
                    helpers.put(client, "labels", [(f"/more-{n}", raw), ("/good", b"bad")])
            assert caught.value.code.name == "RESOURCE_EXHAUSTED", caught.value.code
            assert "space" in str(caught.value).lower() or "full" in str(caught.value).lower()
            good = helpers.get(client, "labels", "/good")  # reading goes on
            assert len(good) in (3, 20000)
        assert helpers.get(client, "labels", "/large") == bytes(3 << 20)
        assert helpers.get(client, "labels", "/good", before[0]) == b"good" * 5000
        assert all(i.HasField("finished") for i in helpers.commits(client, "labels"))

        filler.unlink()
        helpers.put(client, "labels", [("/after", b"there is space")])
        assert helpers.get(client, "labels", "/after") == b"there is space"
        server.stop()
        checked = server.fsck()
        assert checked.returncode == 0, checked.stdout + checked.stderr
        server.start()
        assert helpers.get(client, "labels", "/after") == b"there is space"


@pytest.mark.timeout(900)
def test_mount_server(small_disk: Path, tmp_path: Path) -> None:
    pachd = Pachd(tmp_path / "data")
    with running(pachd):
        with Client(pachd.address, timeout=60) as client:
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of("labels")))
            helpers.put(client, "labels", [("/start", b"")])
        server = MountServer(tmp_path / "mount", pachd.address, state=small_disk / "state")
        with running(server):
            mounts = {"mounts": [{"name": "labels", "repo": "labels", "mode": "rw"}]}
            status, body = server.call("PUT", "/_mount", mounts)
            assert status == 200, body
            first = {"mount": "labels", "files": [{"path": "/first.json", "text": "1"}]}
            assert server.call("POST", "/_stage", first)[0] == 200
            filler = fill_up(small_disk, leave=1 << 20)
            status, acknowledged, body = 200, 0, None
            for n in range(100):
                files = [{"path": f"/{n}.json", "text": "x" * 100_000}]
                status, body = server.call("POST", "/_stage", {"mount": "labels", "files": files})
                if status != 200:
                    break
                acknowledged = n + 1
            assert status == 507, (status, body)
            assert isinstance(body, dict) and body["error"] and body["code"]
            assert server.call("GET", "/health")[0] == 200
            filler.unlink()
            again = {"mount": "labels", "files": [{"path": "/again.json", "text": "2"}]}
            status, body = server.call("POST", "/_stage", again)
            assert status == 200, body
            status, body = server.call("PUT", "/_commit", {"mount": "labels"})
            assert status == 200, body
            with Client(pachd.address, timeout=60) as client:
                expected = {"/first.json", "/again.json"} | {f"/{n}.json" for n in range(acknowledged)}
                assert set(helpers.paths(client, "labels", "/*.json")) == expected
                assert helpers.get(client, "labels", "/first.json") == b"1"
