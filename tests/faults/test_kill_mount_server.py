"""kill -9 of mount-server, and of the pachd behind it: a staged label stays staged until it is committed once."""

import json
import threading
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.faults import helpers
from tests.processes import MountServer, Pachd, running

MOUNT = {"mounts": [{"name": "labels", "repo": "labels", "branch": "master", "mode": "rw"}]}


def make_repo(pachd: Pachd) -> None:
    with Client(pachd.address, timeout=30) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of("labels")))
        helpers.put(client, "labels", [("/start", b"")])


def mount(server: MountServer) -> None:
    status, body = server.call("PUT", "/_mount", MOUNT)
    assert status == 200, body


class Stager(threading.Thread):
    """Stages one label after another, and remembers those that were acknowledged."""

    def __init__(self, server: MountServer, first: int) -> None:
        super().__init__(daemon=True)
        self.server, self.first = server, first
        self.acknowledged = first - 1
        self.answers: list[tuple[int, Any]] = []

    def run(self) -> None:
        for number in range(self.first, self.first + 100_000):
            files = [{"path": f"/{number}-{i}.json", "text": json.dumps({"n": number})} for i in range(3)]
            try:
                status, body = self.server.call("POST", "/_stage", {"mount": "labels", "files": files}, timeout=30)
            except (OSError, urllib.error.URLError, ValueError):
                return
            if status != 200:
                self.answers.append((status, body))
                return
            self.acknowledged = number


@pytest.mark.timeout(900)
def test_staging(tmp_path: Path) -> None:
    chance = helpers.chance()
    pachd = Pachd(tmp_path / "data")
    server = MountServer(tmp_path / "mount", pachd.address)
    number = 0
    with running(pachd):
        make_repo(pachd)
        with running(server):
            mount(server)
            for last in (False, False, False, True):
                stager = Stager(server, number + 1)
                stager.start()
                time.sleep(chance.uniform(0.05, 0.7))
                while last and not number and not stager.acknowledged and stager.is_alive():
                    time.sleep(0.01)
                server.kill()
                stager.join(60)
                assert not stager.is_alive() and not stager.answers, stager.answers
                number = stager.acknowledged
                server.unmount()
                server.start()
                mount(server)
            status, body = server.call("PUT", "/_commit", {"mount": "labels"})
            assert status == 200 and number > 0, body
            with Client(pachd.address, timeout=60) as client:
                there = set(helpers.paths(client, "labels", "/*.json"))
                missing = {f"/{n}-{i}.json" for n in range(1, number + 1) for i in range(3)} - there
                assert not missing, f"{len(missing)} acknowledged labels are lost, such as {sorted(missing)[:3]}"
                assert json.loads(helpers.get(client, "labels", f"/{number}-0.json")) == {"n": number}
                assert len(helpers.commits(client, "labels")) == 2 + empty_first(client)


def empty_first(client: Client) -> int:
    """1 where the repo's history begins with an empty commit of the branch's making."""
    return int(helpers.commits(client, "labels")[-1].origin.kind == pfs_pb2.AUTO)


@pytest.mark.timeout(900)
def test_committing(tmp_path: Path) -> None:
    """The mount server dies somewhere in a commit; with the same idempotency key the commit is made once, and whole."""
    chance = helpers.chance()
    pachd = Pachd(tmp_path / "data")
    server = MountServer(tmp_path / "mount", pachd.address)
    with running(pachd):
        make_repo(pachd)
        with running(server):
            mount(server)
            for turn in range(4):
                files = [{"path": f"/{turn}/{n}.json", "text": str(n)} for n in range(2000)]
                status, body = server.call("POST", "/_stage", {"mount": "labels", "files": files})
                assert status == 200 and body["dirty"] == 2000, body
                with Client(pachd.address, timeout=60) as client:
                    before = {i.commit.id for i in helpers.commits(client, "labels")}
                request = {"mount": "labels", "message": f"turn {turn}", "idempotency_key": f"turn-{turn}"}
                caller = threading.Thread(target=quiet, args=(server, request), daemon=True)
                caller.start()
                time.sleep(chance.uniform(0.0, 0.5))
                server.kill()
                caller.join(60)
                server.unmount()
                server.start()
                mount(server)
                status, body = server.call("PUT", "/_commit", request)
                assert status == 200, body
                with Client(pachd.address, timeout=60) as client:
                    now = helpers.commits(client, "labels")
                    new = [i for i in now if i.commit.id not in before]
                    assert len(new) == 1, f"turn {turn}: {len(new)} commits were made"
                    assert new[0].HasField("finished")
                    assert len(helpers.paths(client, "labels", f"/{turn}/*")) == 2000
                status, body = server.call("GET", "/_status?mount=labels")
                assert status == 200 and body["dirty_files"] == 0, body


def quiet(server: MountServer, request: dict[str, Any]) -> None:
    try:
        server.call("PUT", "/_commit", request)
    except (OSError, ValueError, urllib.error.URLError):
        pass


@pytest.mark.timeout(900)
def test_pachd_away(tmp_path: Path) -> None:
    """While pachd is down labels are staged, a commit says so, and nothing is lost by killing the mount server too."""
    pachd = Pachd(tmp_path / "data")
    server = MountServer(tmp_path / "mount", pachd.address)
    with running(pachd):
        make_repo(pachd)
        with running(server):
            mount(server)
            pachd.kill()
            files = [{"path": f"/{n}.json", "text": str(n)} for n in range(100)]
            status, body = server.call("POST", "/_stage", {"mount": "labels", "files": files})
            assert status == 200, body
            status, body = server.call("PUT", "/_commit", {"mount": "labels"})
            assert status in (502, 503) and body["error"] and body["code"], body
            server.kill()
            server.unmount()
            server.start()
            status, body = server.call("GET", "/health")
            assert status == 200, body
            pachd.start()
            mount(server)
            status, body = server.call("PUT", "/_commit", {"mount": "labels"})
            assert status == 200, body
            with Client(pachd.address, timeout=60) as client:
                assert len(helpers.paths(client, "labels", "/*.json")) == 100
