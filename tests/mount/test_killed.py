"""kill -9 of a real mount server, and a torn staging log: what was closed is there afterwards, whole."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount_server.journal import Journal
from mount_server.staging_log import Staged
from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.processes import MountServer, Pachd

WRITER = """
import os, sys
folder, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for i in range(first, first + count):
    try:
        with open(f"{folder}/f{i:05}.json", "wb", buffering=0) as f:
            f.write(str(i).encode() * 200)
    except OSError:
        break
    os.write(1, b"%d\\n" % i)  # told only after close() has returned
"""


@pytest.fixture(scope="module")
def pachd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pachd]:
    server = Pachd(tmp_path_factory.mktemp("killed") / "data").start()
    assert isinstance(server, Pachd)
    with Client(server.address) as client:
        for repo in ("labels", "torn"):
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=pfs_pb2.Repo(name=repo, type="user")))
    yield server
    server.stop()


def test_killed_in_the_middle_of_ten_thousand_files(pachd: Pachd, tmp_path: Path) -> None:
    """Each file whose close() returned is whole after a restart, wherever the server was; then it is committed once."""
    server = MountServer(tmp_path, pachd.address)
    closed: set[int] = set()
    try:
        server.start()
        mount = {"mounts": [{"name": "labels", "repo": "labels", "mode": "rw"}]}
        assert server.call("PUT", "/_mount", mount)[0] == 200
        folder = server.mount_dir / "labels"
        for seed in range(3):
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(folder), str(seed * 10_000), "10000"],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert writer.stdout is not None
            out = writer.stdout.readline()  # it is at work
            time.sleep(random.Random(seed).uniform(0.0, 0.7))
            server.kill()
            out += writer.stdout.read()
            writer.wait(60)
            closed |= {int(line) for line in out.split()}
            server.unmount()
            server.start()
            for number in closed:
                assert (folder / f"f{number:05}.json").read_bytes() == str(number).encode() * 200
        assert closed
        status, answer = server.call("PUT", "/_commit", {"mount": "labels"})
        assert status == 200 and answer["commit"]["files_added"] >= len(closed)
        assert server.call("PUT", "/_commit", {"mount": "labels"})[1]["commit"]["commit"] is None
        assert server.stop() == 0
    finally:
        server.kill()
        server.unmount()
    with Client(pachd.address) as client:
        repo = pfs_pb2.Repo(name="labels", type="user", project=pfs_pb2.Project(name="default"))
        head = pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name="master"))
        listed = client.pfs.ListFile(pfs_pb2.ListFileRequest(file=pfs_pb2.File(commit=head, path="/")))
        committed = {info.file.path: info.size_bytes for info in listed}
    for number in closed:
        assert committed[f"/f{number:05}.json"] == len(str(number)) * 200


def _changes(count: int) -> list[tuple[str, Staged]]:
    return [(f"p{i}", Staged("file", i + 1, 3, 0, b"%03d" % i)) for i in range(count)]


def _abandon(journal: Journal) -> None:
    """Let go of a journal as kill -9 does: nothing is moved, nothing deleted."""
    journal._closed.set()
    journal._syncing.join()
    journal._db.close()
    for fd in (journal._wal_fd, journal._lock_fd, journal._log._fd):
        os.close(fd)


@pytest.mark.parametrize("cut", ["short", "garbage", "zeros", "flipped"])
def test_a_torn_record_ends_the_log_and_nothing_else(tmp_path: Path, cut: str) -> None:
    journal = Journal(tmp_path)
    for change in _changes(20):
        journal.put("m", [change])
    (file,) = (tmp_path / "log").glob("*.log")
    _abandon(journal)
    data = file.read_bytes()
    size = len(data) // 20
    file.write_bytes(
        {
            "short": data[:-1],
            "garbage": data + os.urandom(100),
            "zeros": data + bytes(4096),
            "flipped": data[: size * 10] + bytes([data[size * 10] ^ 1]) + data[size * 10 + 1 :],
        }[cut]
    )
    kept = {"short": 19, "garbage": 20, "zeros": 20, "flipped": 10}[cut]
    journal = Journal(tmp_path)
    try:
        assert journal.load("m") == dict(sorted(_changes(kept)))
        assert journal.next_seq() > kept
        journal.put("m", [("later", Staged("file", 100, 1, 0, b"x"))])
    finally:
        journal.close()
    journal = Journal(tmp_path)
    assert len(journal.load("m")) == kept + 1
    journal.close()


def test_killed_while_the_log_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part of the log is in the index already, the state after a restart is the last one that was noted."""
    monkeypatch.setattr("mount_server.journal.MOVED_AT_ONCE", 3)
    for steps in range(8):
        folder = tmp_path / str(steps)
        journal = Journal(folder)
        monkeypatch.setattr(journal, "_rotate", lambda limit: None)  # the thread leaves it to this test
        journal.put("m", _changes(10))
        journal.forget("m", [("p1", 2), ("p2", 99)])
        journal.put("m", [("p3", Staged("deleted", 50, 0, 0))], ["p4"])
        expected = journal.load("m")
        journal._closed.set()
        journal._syncing.join()
        Journal._rotate(journal, 0)
        done = 0
        real = journal._transaction

        def limited(db: object = None, real: object = real, steps: int = steps) -> object:
            nonlocal done
            done += 1
            if done > steps:
                raise KeyboardInterrupt
            return real(db)  # type: ignore[operator]

        monkeypatch.setattr(journal, "_transaction", limited)
        try:
            journal._move(journal._db)
        except KeyboardInterrupt:
            pass
        _abandon(journal)
        again = Journal(folder)
        assert again.load("m") == expected
        again.close()
        again = Journal(folder)
        assert again.load("m") == expected and set(expected) == {f"p{i}" for i in (0, 2, 3, 5, 6, 7, 8, 9)}
        deadline = time.monotonic() + 120
        while again._log.waiting:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert again.load("m") == expected and len(list((folder / "log").iterdir())) == 1
        again.close()


def test_a_full_disk_under_the_log_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mount_server.errors import NoSpace

    journal = Journal(tmp_path)
    journal.put("m", _changes(3))
    real = os.writev

    def half(fd: int, parts: tuple[bytes, ...]) -> int:
        return real(fd, [b"".join(parts)[:20]])

    with monkeypatch.context() as full:
        full.setattr(os, "writev", half)
        with pytest.raises(NoSpace):
            journal.put("m", [("lost", Staged("file", 9, 1, 0, b"x"))])
    journal.put("m", [("kept", Staged("file", 10, 1, 0, b"x"))])
    assert "lost" not in journal.load("m")
    _abandon(journal)
    journal = Journal(tmp_path)
    assert set(journal.load("m")) == {"p0", "p1", "p2", "kept"}
    journal.close()
