"""`pachd fsck`, `scrub`, `gc`, `info`, `backup` and `restore`, beside a pachd that serves and on a stopped folder."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2
from tests.faults import helpers
from tests.faults.test_full_disk import fill_up, small_disk
from tests.processes import ROOT, Pachd, running

__all__ = ["small_disk"]
BIG = os.urandom(9 << 20)


def pachd(*args: object, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pachd", *map(str, args)], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def make(client: Client, repo: str = "labels") -> None:
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of(repo)))
    helpers.put(client, repo, [("/big", BIG), *((f"/small/{n}", b"%d" % n) for n in range(300))])


@pytest.mark.timeout(900)
def test_backup_while_it_serves_and_writes(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        with Client(server.address, timeout=60) as client:
            while not stop.is_set():
                n = len(written)
                helpers.put(client, "labels", [(f"/more/{n}", b"%d" % n), ("/changing", BIG[n : n + (5 << 20)])])
                written.append(n)

    with running(server), Client(server.address, timeout=60) as client:
        make(client)
        writer = threading.Thread(target=write)
        writer.start()
        while not written and writer.is_alive():
            time.sleep(0.02)
        sure = len(written)
        said = pachd("backup", server.data, tmp_path / "copy")
        stop.set()
        writer.join(60)
        assert "pachd restore" in said
        assert "not empty" in pachd("backup", server.data, tmp_path / "copy", code=1)
        helpers.put(client, "labels", [("/after", b"after")])
        assert "no problems found" in pachd("fsck", server.data)  # the pachd goes on serving
        assert f"{len(written) + 1 + 301 + 1} files" in pachd("info", server.data)
    assert "no problems found" in pachd("restore", tmp_path / "copy", tmp_path / "again")
    assert "not empty" in pachd("restore", tmp_path / "copy", tmp_path / "again", code=1)
    again = Pachd(tmp_path / "again")
    with running(again), Client(again.address, timeout=60) as client:
        assert helpers.get(client, "labels", "/big") == BIG
        paths = helpers.paths(client, "labels")
        assert "/after" not in paths
        more = sum(path.startswith("/more/") for path in paths)
        assert sure <= more <= len(written)
        if more:
            assert helpers.get(client, "labels", "/changing") == BIG[more - 1 : more - 1 + (5 << 20)]
        helpers.put(client, "labels", [("/after", b"it goes on")])


def test_an_unfinished_backup_is_refused(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    with running(server), Client(server.address, timeout=60) as client:
        make(client)
    pachd("backup", server.data, tmp_path / "copy")
    (tmp_path / "copy" / "backup.json").unlink()
    assert "not a whole backup" in pachd("restore", tmp_path / "copy", tmp_path / "again", code=1)
    assert not (tmp_path / "again").exists()
    assert "no pachd data" in pachd("backup", tmp_path / "nowhere", tmp_path / "other", code=1)


def test_scrub_goes_on_where_it_stopped(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    with running(server), Client(server.address, timeout=60) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of("labels")))
        helpers.put(client, "labels", [(f"/{n}", b"%d" % n) for n in range(5000)])
        helpers.put(client, "labels", [("/big", BIG)])
        pages, shares = 0, []
        for _ in range(200):  # the folder is served meanwhile
            done = json.loads(pachd("scrub", server.data, "--max-duration", "0s", "--json"))
            assert done["found"] == []
            pages += done["pages"]
            shares.append(done["share"])
            if done["complete"]:
                break
            if len(shares) == 3:  # enough single steps: the rest at once
                done = json.loads(pachd("scrub", server.data, "--json"))
                pages += done["pages"]
                break
        assert done["complete"] and done["cycles"] == 1
        assert shares == sorted(shares) and pages == json.loads(pachd("info", server.data, "--json"))["pages"]
    (pack,) = (server.data / "packs").iterdir()
    with pack.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"damage")
    said = pachd("scrub", server.data, "--max-duration", "1h", code=1)
    assert "file /big is damaged" in said
    assert "is not a duration" in pachd("scrub", server.data, "--max-duration", "soon", code=2)


def test_gc_and_info(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    with running(server), Client(server.address, timeout=60) as client:
        make(client)
        make(client, "other")
        assert "in use by another pachd" in pachd("gc", server.data, code=1)
        client.pfs.DeleteRepo(pfs_pb2.DeleteRepoRequest(repo=helpers.repo_of("other")))
    before = json.loads(pachd("info", server.data, "--json"))
    assert (before["format"], before["packs"], before["files"]) == (1, 2, 301)
    assert before["repos"][0] == {
        "name": "default/labels", "branches": 1, "commits": 1, "files": 301, "bytes": before["bytes"],
    }  # fmt: skip
    done = json.loads(pachd("gc", server.data, "--json"))
    assert done["containers"] >= 1 and done["bytes"] >= len(BIG)
    after = json.loads(pachd("info", server.data, "--json"))
    assert after["packs"] == 1 and after["bytes"] == before["bytes"]
    assert after["pack_disk_bytes"] < before["pack_disk_bytes"]
    assert "no problems found" in pachd("fsck", "--data", server.data)


@pytest.mark.timeout(900)
def test_a_serving_pachd_collects(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    server.command += ["--gc-interval", "0.2"]
    with running(server), Client(server.address, timeout=60) as client:
        make(client)
        make(client, "other")
        packs = server.data / "packs"
        assert len(list(packs.iterdir())) == 2
        client.pfs.DeleteRepo(pfs_pb2.DeleteRepoRequest(repo=helpers.repo_of("other")))
        end = time.monotonic() + 60
        while len(list(packs.iterdir())) != 1:
            assert time.monotonic() < end, "the pack of a deleted repo is still there"
            time.sleep(0.1)
        assert helpers.get(client, "labels", "/big") == BIG
        assert list(client.pfs.Fsck(pfs_pb2.FsckRequest())) == []


@pytest.mark.timeout(900)
def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """Deleting frees space on a full disk; a backup that does not fit says so and is none."""
    server = Pachd(small_disk / "data", log=tmp_path / "pachd.log")
    server.command += ["--gc-interval", "0.2"]
    with running(server), Client(server.address, timeout=60) as client:
        make(client)
        make(client, "other")
        assert "No space left" in pachd("backup", server.data, small_disk / "copy", code=1)
        assert "not a whole backup" in pachd("restore", small_disk / "copy", tmp_path / "again", code=1)
        shutil.rmtree(small_disk / "copy")
        filler = fill_up(small_disk, leave=200_000)
        with pytest.raises(RpcError) as caught:
            for n in range(50):
                helpers.put(client, "labels", [(f"/more/{n}", os.urandom(60_000))])
        assert caught.value.code.name == "RESOURCE_EXHAUSTED"
        client.pfs.DeleteRepo(pfs_pb2.DeleteRepoRequest(repo=helpers.repo_of("other")))
        end = time.monotonic() + 60
        while len(list((server.data / "packs").iterdir())) != 1:
            assert time.monotonic() < end, "nothing was freed on the full disk"
            time.sleep(0.1)
        helpers.put(client, "labels", [("/after", BIG[: 1 << 19])])
        assert helpers.get(client, "labels", "/big") == BIG
        filler.unlink()
        server.stop()
        assert "no problems found" in pachd("fsck", "--data", server.data)


def test_the_rpc_finds_damage(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    with running(server), Client(server.address, timeout=60) as client:
        make(client)
    with sqlite3.connect(server.data / "pachd.db") as db:
        db.execute("UPDATE commits SET size=size+1")
    db.close()
    with running(server), Client(server.address, timeout=60) as client:
        (told,) = client.pfs.Fsck(pfs_pb2.FsckRequest())
        assert "bytes, it says" in told.error
