"""Datums of an input, one at a time below the mount directory, over a real pachd."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mount_server import errors
from mount_server.datums import parse
from mount_server.fuse_adapter import FuseMount
from mount_server.http_api import make_app
from mount_server.manager import Mounts
from mount_server.metrics import Metrics
from mount_server.pachd_source import PachdSource
from mount_server.vfs import Vfs
from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.processes import Pachd

FILES = {"images": ["a1.png", "a2.png", "b1.png"], "labels": ["a1.json", "b1.json", "deep/c.json"]}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pachd = Pachd(tmp_path_factory.mktemp("datums") / "data").start()
    with Client(pachd.address) as client:
        for name, paths in FILES.items():
            repo = pfs_pb2.Repo(name=name, type="user", project=pfs_pb2.Project(name="default"))
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
            commit = pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name="master"))
            requests = [pfs_pb2.ModifyFileRequest(set_commit=commit)]
            for path in paths:
                add = pfs_pb2.AddFile(path="/" + path)
                add.raw.value = path.encode()
                requests.append(pfs_pb2.ModifyFileRequest(add_file=add))
            client.pfs.ModifyFile(requests)
    yield pachd.address
    pachd.stop()


class Server:
    def __init__(self, folder: Path, address: str) -> None:
        self.dir, self._folder, self._address = folder / "pfs", folder, address
        self.open()

    def open(self) -> None:
        self.mounts = Mounts(self._folder / "state", self._address, PachdSource, self.dir)
        self.fuse = FuseMount(Vfs(self.mounts), self.dir)
        self.fuse.start()
        self.api = TestClient(make_app(self.mounts, Metrics(), None), raise_server_exceptions=False)

    def close(self) -> None:
        self.fuse.stop()
        self.mounts.close()

    def put(self, path: str, body: Any = None) -> tuple[int, Any]:
        answer = self.api.put(path, content=None if body is None else json.dumps(body))
        return answer.status_code, answer.json()

    def seen(self) -> list[str]:
        return sorted(
            os.path.relpath(os.path.join(where, name), self.dir)
            for where, _, names in os.walk(self.dir)
            for name in names
        )


@pytest.fixture
def server(tmp_path: Path, address: str) -> Iterator[Server]:
    server = Server(tmp_path, address)
    try:
        yield server
    finally:
        server.close()


def pfs(repo: str, glob: str, **more: str) -> dict[str, Any]:
    return {"pfs": {"repo": repo, "glob": glob, **more}}


def test_a_join_is_seen_as_a_worker_sees_it(server: Server) -> None:
    input_ = {"join": [pfs("images", "/(*).png", joinOn="$1"), pfs("labels", "/(*).json", joinOn="$1")]}
    status, answer = server.put("/datums/_mount", {"input": input_})
    assert (status, answer["num_datums"], answer["idx"]) == (200, 2, 0)
    assert server.seen() == ["images/a1.png", "labels/a1.json"]
    assert (server.dir / "images/a1.png").read_text() == "a1.png"
    assert server.put("/datums/_next")[1]["idx"] == 1
    assert server.seen() == ["images/b1.png", "labels/b1.json"]
    with pytest.raises(OSError):
        (server.dir / "images/a1.png").read_text()
    assert server.put("/datums/_next")[0] == 400
    assert server.put("/datums/_show?idx=0")[1]["idx"] == 0
    assert server.seen() == ["images/a1.png", "labels/a1.json"]
    for wrong in ("idx=2", "idx=-1", "idx=x", "id=nope", ""):
        assert server.put("/datums/_show?" + wrong)[0] == 400
    assert server.put("/_unmount_all")[0] == 200
    assert server.seen() == [] and os.listdir(server.dir) == []
    assert server.put("/datums/_show?idx=0") == (400, {"error": "no datums mounted", "code": "invalid_request"})


def test_a_group_has_several_files_of_an_input(server: Server) -> None:
    input_ = {"group": [pfs("images", "/(?)*.png", group_by="$1")]}
    assert server.put("/datums/_mount", {"input": input_})[1]["num_datums"] == 2
    assert server.seen() == ["images/a1.png", "images/a2.png"]
    server.put("/datums/_next")
    assert server.seen() == ["images/b1.png"]


def test_two_inputs_of_one_repo(server: Server) -> None:
    input_ = {"cross": [pfs("labels", "/a*", name="one"), pfs("labels", "/deep/", name="two")]}
    assert server.put("/datums/_mount", {"input": input_})[1]["num_datums"] == 1
    assert server.seen() == ["one/a1.json", "two/deep/c.json"]


def test_out_is_empty_for_each_datum_and_never_committed(server: Server) -> None:
    assert server.put("/datums/_mount", {"input": pfs("labels", "/*")})[0] == 200
    out = server.dir / "out"
    for _ in range(2):
        assert os.listdir(out) == []
        (out / "r.txt").write_text("result")
        (out / "large").write_bytes(bytes(300_000))
        assert (out / "r.txt").read_text() == "result"
        assert server.put("/_commit", {"mount": "out"})[0] == 403
        assert server.put("/datums/_next")[0] == 200
    assert os.listdir(out) == []
    (out / "r.txt").write_text("again")
    server.close()  # a restart ends it: what is left of it does not come up anywhere
    server.open()
    assert os.listdir(server.dir) == []
    server.put("/_mount", {"mounts": [{"name": "out", "repo": "labels", "mode": "rw"}]})
    assert sorted(os.listdir(out)) == ["a1.json", "b1.json", "deep"]
    assert server.put("/_commit", {"mount": "out"})[1]["commit"]["commit"] is None


def test_other_mounts_are_left_alone_when_the_input_is_bad(server: Server) -> None:
    server.put("/_mount", {"mounts": [{"name": "labels", "repo": "labels", "mode": "rw"}]})
    (server.dir / "labels" / "new.json").write_text("{}")
    for body in ({"input": pfs("nope", "/")}, {"input": pfs("labels", "/nope*")}, {"input": {}}, [], [None], "x", None):
        assert server.put("/datums/_mount", body)[0] == 400, body
    assert (server.dir / "labels" / "new.json").read_text() == "{}"
    assert server.mounts.get("labels").dirty().files == 1
    server.mounts.unmount(["labels"], discard=True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "object"),
        (b"{", "malformed"),
        (b"{}", "not specified"),
        (b'{"inputs":{}}', 'no field named "inputs"'),
        (b'{"input":{"cron":{"name":"c","spec":"@daily"}}}', "cron"),
        (b'{"input":{"cross":[]}}', "no input set"),
        (b'{"input":{"pfs":{"repo":"r","glob":"/","commit":"c"}}}', "commit cannot be specified"),
        (b'{"input":{"pfs":{"repo":"r","glob":"/","name":"../x"}}}', "cannot be a directory"),
        (b'{"input":{"pfs":{"repo":"r","glob":"/","name":"out"}}}', "'out'"),
        (b'{"input":{"cross":[{"pfs":{"repo":"r","glob":"/"}},{"pfs":{"repo":"r","glob":"/*"}}]}}', "more than once"),
        (b'{"input":{"pfs":{"repo":"r","glob":"/"},"cross":[{"pfs":{"repo":"r","glob":"/"}}]}}', "multiple"),
    ],
)
def test_what_cannot_be_mounted(body: bytes, words: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=words):
        parse(body)


def test_defaults_and_yaml() -> None:
    found = parse(b"pipeline: {name: p}\ninput:\n  pfs:\n    repo: r\n    glob: /\n").pfs
    assert (found.project, found.branch, found.name) == ("default", "master", "r")
    assert parse(b'{"input":{"union":[{"pfs":{"repo":"r","glob":"/"}},{"pfs":{"repo":"r","glob":"/*"}}]}}').union
