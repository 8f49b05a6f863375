"""What Pachyderm's own mount server answered, asked of ours, over a real pachd and a real FUSE mount.

`recordings/http.jsonl` is a recording of the original: requests over HTTP, and between them what programs did below the
mount directory and what another client did to pachd. Each step comes out the same or is listed in `differences.py` with
its reason.
"""

import errno
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mount_server import manager
from mount_server.fuse_adapter import FuseMount
from mount_server.http_api import make_app
from mount_server.manager import Mounts
from mount_server.metrics import Metrics
from mount_server.pachd_source import PachdSource
from mount_server.vfs import Vfs
from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2
from tests.mount.differences import DIFFERENT, UNPLAYED
from tests.processes import Pachd, free_port

RECORDING = Path(__file__).parent / "recordings" / "http.jsonl"
STEPS: list[dict[str, Any]] = [json.loads(line) for line in RECORDING.read_text().splitlines()]
# the original knew 400 and 500 only, and once hung up
STATUSES = {(400, 404), (500, 400), (500, 403), (500, 404), (500, 409), (500, 501), (500, 503), (500, 504), (None, 400)}
LABELS = {"l0.txt": b"l0\n", "l1.txt": b"l1\n", "l2.txt": b"l2\n", "g/x1.json": b"{}", "g/x2.json": b"{}"}


class Player:
    """A mount server, and another client of the same pachd; both do what a step says."""

    def __init__(self, folder: Path, address: str) -> None:
        self.address, self.client = address, Client(address, timeout=60)
        self.dir = folder / "pfs"
        self.mounts = Mounts(folder / "state", address, PachdSource, self.dir)
        self.fuse = FuseMount(Vfs(self.mounts), self.dir)
        self.fuse.start()
        self.api = TestClient(make_app(self.mounts, Metrics(), None), raise_server_exceptions=False)
        elsewhere = f"grpc://localhost:{address.rpartition(':')[2]}"
        self.ids = {
            "grpc://localhost:41349": elsewhere,
            "<id:1>": uuid.uuid4().hex,
            "<PACHD>": address,
            "<PACHD_HOSTPORT>": address,
        }

    def close(self) -> None:
        self.fuse.stop()
        self.mounts.close()
        self.client.close()

    # --- the state that the recording began with ---------------------------------------------------------------------

    def set_up(self) -> None:
        self.client.pfs.CreateProject(pfs_pb2.CreateProjectRequest(project=pfs_pb2.Project(name="mproj")))
        for repo in ("images", "labels", "empty"):
            self._create(repo)
        request = pps_pb2.CreatePipelineRequest()
        request.pipeline.name, request.pipeline.project.name = "outrepo", "default"
        request.transform.cmd.extend(["sleep", "1000"])
        request.input.pfs.repo, request.input.pfs.glob = "images", "/"
        self._put("images", {"a.txt": b"a\n"})
        self.ids["<images#1>"] = self._head("images", "master")
        self._put("images", {"dir/b.txt": b"bb\n", "dir/sub/c.txt": b"ccc\n"})
        dev = pfs_pb2.Branch(repo=_repo("images"), name="dev")
        self.client.pfs.CreateBranch(pfs_pb2.CreateBranchRequest(branch=dev, head=_branch("images", "master")))
        self._put("images", {"dev.txt": b"dev\n"}, "dev")
        self._put("labels", LABELS)
        self.ids["<labels#5>"] = self._head("labels", "master")
        self.client.pps.CreatePipeline(request)
        self._create("rw2")
        for repo, files, branch in [
            ("rw", {"seed.txt": b"seed\n"}, "master"),
            ("gone", {"x": b"x"}, "master"),
            ("gone2", {"x": b"x"}, "b2"),
        ]:
            self._create(repo)
            self._put(repo, files, branch)
        self._put("gone2", {"x": b"x"})
        self._create("images", "mproj")
        self._put("images", {"m.txt": b"m\n"}, project="mproj")

    def _create(self, repo: str, project: str = "default") -> None:
        self.client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=_repo(repo, project)))

    def _put(self, repo: str, files: dict[str, bytes], branch: str = "master", project: str = "default") -> None:
        commit = pfs_pb2.Commit(
            branch=pfs_pb2.Branch(repo=_repo(repo, project), name=branch), repo=_repo(repo, project)
        )
        requests = [pfs_pb2.ModifyFileRequest(set_commit=commit)]
        for path, data in files.items():
            requests.append(pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path="/" + path)))
            add = pfs_pb2.AddFile(path="/" + path)
            add.raw.value = data
            requests.append(pfs_pb2.ModifyFileRequest(add_file=add))
        self.client.pfs.ModifyFile(requests)

    def _head(self, repo: str, branch: str) -> str:
        asked = pfs_pb2.InspectBranchRequest(branch=pfs_pb2.Branch(repo=_repo(repo), name=branch))
        return str(self.client.pfs.InspectBranch(asked).head.id)

    # --- steps -------------------------------------------------------------------------------------------------------

    def play(self, step: dict[str, Any]) -> tuple[Any, Any]:
        """What was recorded and what comes out now, made comparable."""
        if step["scenario"].startswith("commit:") and step["step"] == 1:
            self.mounts.unmount_all()  # the original was started anew after what it did not survive
        if step["scenario"].startswith("datums: nothing"):
            self.mounts.unmount([mount.row.name for mount in self.mounts.all()], discard=True)  # of a deleted repo
        if step["scenario"].startswith("open_commit") and step["step"] == 1:
            self.client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=_branch("rw", "master").branch))
        if "request" not in step:
            return _comparable(step["result"]), _comparable(self._act(step["action"], step["result"]))
        asked = step["request"]
        body = asked["body"]
        if body is not None:
            body = self._filled(body if isinstance(body, str) else json.dumps(body))
        answer = self.api.request(asked["method"], asked["path"], content=body, follow_redirects=False)
        if answer.status_code in (500, 502):  # whatever fails has its own status here
            return "never", answer.text
        recorded = (step["status"], None if step["status"] != 200 else _comparable(step["body"]))
        if recorded[0] != 200 and answer.status_code != 200 and (recorded[0], answer.status_code) in STATUSES:
            recorded = (answer.status_code, None)
        elif recorded[0] == 200 and not step["body"]:
            recorded = (200, None)
        if answer.status_code != 200:
            document = answer.json() if answer.content else {}
            assert asked["method"] == "HEAD" or (set(document) == {"error", "code"} and document["error"]), answer.text
            return recorded, (answer.status_code, None)
        return recorded, (200, _comparable(answer.json()) if answer.content else None)

    def _filled(self, text: str) -> str:
        for name, value in self.ids.items():
            text = text.replace(name + "[:8]", value[:8])
            text = text.replace(name.removesuffix(">") + "[:8]>", value[:8]).replace(name, value)
        return text

    def _act(self, action: str, recorded: Any) -> Any:
        verb, _, rest = action.partition(" ")
        try:
            if verb == "ls" and rest.startswith("-R "):
                return self._tree(rest[3:])
            if verb == "ls":
                return sorted(os.listdir(self.dir / rest.replace("<MNT>", "").replace(" after _unmount_all", "")))
            if verb == "tree":
                return self._tree("")
            if verb == "cat":
                return (self.dir / rest).read_text()
            if verb == "rm":
                return (self.dir / rest).unlink()
            if verb == "write":
                path = rest.partition(" (")[0]
                data = f"from {path[:2]}" if path in ("w1/f", "w2/f") else "n1\n" if path == "rw/n1.txt" else "x"
                size = int(recorded.split()[0]) if "bytes" in recorded else 1
                return f"{(self.dir / path).write_text(data[:size].ljust(size))} bytes"
        except OSError as e:
            return f"{_errno(e)}: {e.strerror}"
        return self._elsewhere(action)

    def _tree(self, name: str) -> list[Any]:
        def failed(error: OSError) -> None:
            raise error

        found = []
        for where, directories, files in os.walk(self.dir / name, onerror=failed):
            directories.sort()
            found.append([where.removeprefix(str(self.dir)), list(directories), sorted(files)])
        return found

    def _elsewhere(self, action: str) -> Any:
        """What the other client does or sees."""
        if action.startswith("other client finishes it"):
            self.client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=_branch("rw", "master")))
            self.client.pfs.InspectCommit(
                pfs_pb2.InspectCommitRequest(commit=_branch("rw", "master"), wait=pfs_pb2.FINISHED)
            )
        if action.startswith("list commit rw@master"):
            asked = pfs_pb2.ListCommitRequest(repo=_repo("rw"), to=_branch("rw", "master"), number=2)
            return [["<commit>", info.HasField("finished")] for info in self.client.pfs.ListCommit(asked)]
        if match := re.search(r"glob (\w+)@(\w+)", action):
            return self._glob(*match.groups())
        if match := re.match(r"(?:number of )?commits (?:of|on) (\w+)", action):
            asked = pfs_pb2.ListCommitRequest(repo=_repo(match[1]), all=True)
            return sum(1 for _ in self.client.pfs.ListCommit(asked))
        if match := re.match(r"another client (?:puts|overwrites) (\w+)@(\w+):/(\S+)", action):
            self._put(match[1], {match[3]: b"late\n" if "puts" in action else b"other client"}, match[2])
            self._follow(match[1], match[2])
            return "new head" if "puts" in action else "other client"
        if match := re.match(r"(\w+)@master:(/\S+?)(?: now)?$", action):
            file = pfs_pb2.File(commit=_branch(match[1], "master"), path=match[2])
            return b"".join(v.value for v in self.client.pfs.GetFile(pfs_pb2.GetFileRequest(file=file))).decode()
        if action.startswith("branches"):
            repo = "rw2" if "rw2" in action else "rw"
            listed = self.client.pfs.ListBranch(pfs_pb2.ListBranchRequest(repo=_repo(repo)))
            return sorted(info.branch.name for info in listed)
        if action == "another client deletes branch gone2@b2":
            branch = pfs_pb2.Branch(repo=_repo("gone2"), name="b2")
            return self.client.pfs.DeleteBranch(pfs_pb2.DeleteBranchRequest(branch=branch, force=True)) and ""
        if action == "another client deletes repo gone":
            return self.client.pfs.DeleteRepo(pfs_pb2.DeleteRepoRequest(repo=_repo("gone"), force=True)) and ""
        raise AssertionError(f"unknown action {action!r}")

    def _follow(self, repo: str, branch: str) -> None:
        """Wait until the mounts of a branch have seen its new head."""
        head, deadline = self._head(repo, branch), time.monotonic() + 120
        while any((m.row.repo, m.row.branch) == (repo, branch) and m.tree.id != head for m in self.mounts.all()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _glob(self, repo: str, branch: str) -> list[str]:
        asked = pfs_pb2.GlobFileRequest(commit=_branch(repo, branch), pattern="/**")
        found = {f"{info.file.path}:{info.size_bytes}" for info in self.client.pfs.GlobFile(asked)}
        return sorted(entry for entry in found if not entry.startswith("/:"))


def _repo(name: str, project: str = "default") -> pfs_pb2.Repo:
    return pfs_pb2.Repo(name=name, type="user", project=pfs_pb2.Project(name=project))


def _branch(repo: str, branch: str) -> pfs_pb2.Commit:
    return pfs_pb2.Commit(repo=_repo(repo), branch=pfs_pb2.Branch(repo=_repo(repo), name=branch))


def _errno(error: OSError) -> str:
    return errno.errorcode[error.errno or 0]


OURS = ("dirty", "conflicts", "last_error", "pachd", "error", "mountpoint")


def _comparable(value: Any) -> Any:
    """Without commit IDs, times, what only ours says, and the order of mounts and repos."""
    if isinstance(value, dict):
        document = {key: _comparable(item) for key, item in value.items() if key not in OURS}
        if "mounted" in document:
            document.pop("commit", None)
            document["mounted"].sort(key=lambda state: state["name"])
            # which branches there are is compared with GET /repos; later the original has made some by mistake
            document["unmounted"] = sorted((repo["project"], repo["repo"]) for repo in document["unmounted"])
        if set(document) >= {"status", "pachd_address"} and "state" not in document:
            document.pop("pachd_address")  # of GET /health
        if "cluster_status" in document:
            document = {}  # the recorded server could not tell, and addresses differ
        if "how_many_commits_behind" in document and " behind latest" in document["status"]:
            document["status"] = "behind"
        if "created_at" in document:
            document = {"project": document["project"]}
        if document.get("id"):
            document["id"] = ""  # the recorded datums had no IDs
        return document
    if isinstance(value, list):
        items = [_comparable(item) for item in value]
        if all(isinstance(item, list) and len(item) == 3 and isinstance(item[1], list) for item in items):
            return sorted(items, key=str)  # a tree
        return sorted(items, key=str) if items and isinstance(items[0], dict) and "authorization" in items[0] else items
    if isinstance(value, str):
        value = re.sub("x{20,}", "x" * 20, value)
        value = re.sub(r"<[\w#:/]+>|[0-9a-f]{32}", "<commit>", value)
        return re.sub(r"<[\w#:/]+\[:8\]>|\b[0-9a-f]{8}\b", "<short>", value)
    return value


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pachd = Pachd(tmp_path_factory.mktemp("recording") / "data").start()
    yield pachd.address
    pachd.stop()


def test_the_recording(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "REPOS_AGE", 0.0)
    player = Player(tmp_path, address)
    out: dict[int, tuple[Any, Any]] = {}
    try:
        player.set_up()
        for number, step in enumerate(STEPS):
            if number not in UNPLAYED:
                try:
                    out[number] = player.play(step)
                except RpcError as e:
                    out[number] = None, str(e)
    finally:
        player.close()
    differ = {number: pair for number, pair in out.items() if pair[0] != pair[1]}
    listed = {number for numbers in DIFFERENT.values() for number in numbers}
    wrong = {number: differ[number] for number in differ.keys() - listed}
    assert not wrong, "\n".join(
        f"step {number} ({STEPS[number].get('action') or STEPS[number]['request']}):\n  recorded {a}\n  now      {b}"
        for number, (a, b) in sorted(wrong.items())
    )
    assert not listed - differ.keys(), f"listed as different, but the same now: {sorted(listed - differ.keys())}"


def test_a_pachd_that_does_not_answer(address: str, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    mounts = Mounts(tmp_path / "state", nowhere, PachdSource, tmp_path / "pfs")
    api = TestClient(make_app(mounts, Metrics(), None), raise_server_exceptions=False)
    try:
        for step in STEPS[1:18]:
            asked = step["request"]
            body = None if asked["body"] is None else json.dumps(asked["body"])
            answer = api.request(asked["method"], asked["path"], content=body)
            assert answer.status_code in (200, 400, 404, 503), (asked, answer.text)
            assert answer.status_code != 404 or asked["path"] == "/_commit", "the original knew 404 only, and for ever"
        assert api.get("/health").json()["status"] == "running"
        assert api.get("/config").json() == {"cluster_status": "INVALID", "pachd_address": nowhere}
        assert api.put("/config", content=json.dumps({"pachd_address": address})).status_code == 200
        assert api.get("/mounts").status_code == 200 and api.get("/repos").status_code == 200
    finally:
        mounts.close()
