"""Hostile calls of every RPC against a real pachd: it answers each with a status, and refusals change nothing.

`HOWDAH_FUZZ_SECONDS` sets how long (60), `HOWDAH_FUZZ_SEED` repeats a run.
"""

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2
from tests.fuzz.messages import Maker, methods
from tests.processes import Pachd, running

SECONDS = float(os.environ.get("HOWDAH_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("HOWDAH_FUZZ_SEED", str(int(time.time()))))
PATIENCE = 60.0  # seconds after which a call hangs; a busy machine gets its time
# Calls that may wait for something to happen, as their clients expect.
WAITING = {"SubscribeCommit", "SubscribeJob", "InspectCommit", "InspectCommitSet", "InspectJob", "InspectJobSet"}
WAITING |= {"GetLogs", "GetKubeEvents", "QueryLoki", "RunPFSLoadTest", "RunPFSLoadTestDefault", "RunLoadTest"}
WAITING |= {"RunLoadTestDefault", "CreateDatum", "Profile", "Dump", "DumpV2", "Trace", "GetDumpV2Template"}
# They empty or lock the server, by design: asked rarely, or elsewhere.
RARE = {"DeleteAll", "DeleteRepos", "DeleteProject", "DeletePipelines", "DeletePipeline"}
NEVER = {"/auth_v2.API/Activate"}  # a stranger's root token locks everybody out


def _repo(name: str) -> pfs_pb2.Repo:
    return pfs_pb2.Repo(name=name, type="user", project=pfs_pb2.Project(name="default"))


def _seed(client: Client) -> None:
    """Two repos with files, and a pipeline."""
    for name in ("images", "labels"):
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=_repo(name), update=True))
        commit = pfs_pb2.Commit(repo=_repo(name), branch=pfs_pb2.Branch(repo=_repo(name), name="master"))
        requests = [pfs_pb2.ModifyFileRequest(set_commit=commit)]
        for path in ("/a", "/dir/b", "/dir/c"):
            requests.append(pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=path, raw={"value": b"1"})))
        client.pfs.ModifyFile(requests)
    pps_input = pps_pb2.Input(pfs=pps_pb2.PFSInput(project="default", repo="images", name="images", glob="/*"))
    pipeline = pps_pb2.Pipeline(project=pfs_pb2.Project(name="default"), name="copies")
    transform = pps_pb2.Transform(cmd=["sh", "-c", "cp -r /pfs/images/* /pfs/out/"])
    client.pps.CreatePipeline(
        pps_pb2.CreatePipelineRequest(pipeline=pipeline, transform=transform, input=pps_input, update=True)
    )


def _state(client: Client) -> list[str]:
    """What users made and see: projects, repos, heads, commits, pipelines. What servers do later by themselves
    (finishing, jobs, their commits) is left out."""
    seen = [f"project {p.project.name} {p.description}" for p in client.pfs.ListProject(pfs_pb2.ListProjectRequest())]
    for info in client.pps.ListPipeline(pps_pb2.ListPipelineRequest(details=False)):
        seen.append(f"pipeline {info.pipeline.project.name}/{info.pipeline.name} {info.version} {info.stopped}")
    for repo in client.pfs.ListRepo(pfs_pb2.ListRepoRequest(type="user")):
        seen.append(f"repo {repo.repo.project.name}/{repo.repo.name} {repo.description}")
        for branch in client.pfs.ListBranch(pfs_pb2.ListBranchRequest(repo=repo.repo)):
            provenance = sorted(b.repo.name + b.name for b in branch.direct_provenance)
            head = "" if provenance else branch.head.id
            seen.append(f"branch {repo.repo.name}@{branch.branch.name} {head} {provenance}")
        for commit in client.pfs.ListCommit(pfs_pb2.ListCommitRequest(repo=repo.repo, all=True)):
            if commit.origin.kind == pfs_pb2.USER:
                seen.append(f"commit {repo.repo.name}@{commit.commit.id} {commit.description} {commit.error}")
    return sorted(seen)


class Caller:
    """Calls one RPC after another, and keeps what went wrong."""

    def __init__(self, address: str, seed: int) -> None:
        self.address = address
        self.maker = Maker(seed, lambda: self.ids)
        self.ids: list[str] = []
        self.methods = [m for m in methods() if f"/{m.containing_service.full_name}/{m.name}" not in NEVER]
        self.codes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])

    def call(self) -> tuple[str, grpc.StatusCode, str]:
        """One call of one RPC: its path, status and details."""
        method = self.maker.random.choice(self.methods)
        if method.name in RARE and self.maker.random.random() < 0.95:
            method = self.maker.random.choice(self.methods)
        path = f"/{method.containing_service.full_name}/{method.name}"
        sent = self.maker.requests(method)
        waits = method.name in WAITING
        started = time.monotonic()
        replies = self.channel.stream_stream(path)(iter(sent), timeout=1.0 if waits else PATIENCE)
        code, details = grpc.StatusCode.OK, ""
        try:
            for count, _ in enumerate(replies):
                if count > 1000 or time.monotonic() - started > PATIENCE:
                    replies.cancel()
                    break
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
        self.codes[code.name] += 1
        self._judge(path, sent, code, details, waits)
        return path, code, details

    def _judge(self, path: str, sent: list[bytes], code: grpc.StatusCode, details: str, waits: bool) -> None:
        shown = [data[:60].hex() for data in sent[:3]]
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and not waits:
            self.wrong.append(f"{path} hangs: {shown}")
        elif code is grpc.StatusCode.INTERNAL and "failed inside pachd" in details:
            self.wrong.append(f"{path}: INTERNAL {details[:200]}: {shown}")
        elif code is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
            self.wrong.append(f"{path}: pachd is gone ({details[:200]}): {shown}")
        elif "Traceback" in details or len(details) > 6000:
            self.wrong.append(f"{path}: no sentence but a trace: {details[:300]}")
        elif code is grpc.StatusCode.OK:
            return
        elif not details and code not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
            self.wrong.append(f"{path}: {code.name} without a word: {shown}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Pachd]:
    with running(Pachd(tmp_path / "data")) as pachd:
        yield pachd


def _check_whole(server: Pachd, wrong: list[str]) -> None:
    """It still lives, logged no traceback, stops politely, and its folder is whole."""
    assert server.process is not None and server.process.poll() is None, server.text()[-4000:]
    assert not wrong, f"seed {SEED}: {len(wrong)} wrong answers:\n" + "\n".join(wrong[:20])
    logged = server.text()
    assert "Traceback" not in logged, f"seed {SEED}:\n" + logged[logged.index("Traceback") - 500 :][:5000]
    assert server.stop() == 0
    checked = server.fsck()
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_refused_calls_change_nothing(server: Pachd) -> None:
    caller = Caller(server.address, SEED)
    end = time.monotonic() + SECONDS / 2
    with Client(server.address, timeout=60) as client:
        _seed(client)
        before = _state(client)
        count = 0
        while (time.monotonic() < end or count <= 100) and len(caller.wrong) < 10:
            path, code, details = caller.call()
            count += 1
            after = _state(client)
            if code not in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
                changed = sorted(set(before) ^ set(after))
                assert before == after, f"seed {SEED}: {path} was refused ({details}) and yet changed {changed}"
            before = after
            caller.ids = re.findall(r"[0-9a-f]{32}", " ".join(after))
            if count % 200 == 0:
                _reseed(client)
                before = _state(client)
    assert count > 100, count
    _check_whole(server, caller.wrong)


def test_many_hostile_callers_at_once(server: Pachd) -> None:
    end = time.monotonic() + SECONDS / 2
    callers = [Caller(server.address, SEED + n) for n in range(1, 5)]
    with Client(server.address, timeout=60) as client:
        _seed(client)

        def work(caller: Caller) -> None:
            while (time.monotonic() < end or caller.codes.total() <= 50) and len(caller.wrong) < 10:
                caller.call()

        threads = [threading.Thread(target=work, args=(caller,)) for caller in callers]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            _reseed(client)
            try:
                ids = re.findall(r"[0-9a-f]{32}", " ".join(_state(client)))
            except RpcError as error:  # a caller deleted what was being looked at
                assert error.code.name in ("NOT_FOUND", "UNKNOWN"), error
                continue
            for caller in callers:
                caller.ids = ids
        for thread in threads:
            thread.join()
    assert sum(sum(caller.codes.values()) for caller in callers) > 200
    _check_whole(server, [line for caller in callers for line in caller.wrong])


def _reseed(client: Client) -> None:
    """Give the callers something to hit again, where they removed it; what they left may refuse that."""
    try:
        _seed(client)
    except RpcError as error:
        assert error.code.name not in ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"), error
