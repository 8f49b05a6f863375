"""Hostile calls of every RPC by a user without roles: whatever is asked, what is not theirs stays as it is.

`HOWDAH_FUZZ_SECONDS` sets how long (15), `HOWDAH_FUZZ_SEED` repeats a run.
"""

import os
import time
from collections import Counter
from pathlib import Path

import grpc

from pachd.client import Client
from pachd.proto import auth_pb2, pfs_pb2, pps_pb2
from tests.auth.conftest import Guarded, activate
from tests.fuzz.messages import Maker, methods
from tests.processes import Pachd, running

SECONDS = min(float(os.environ.get("HOWDAH_FUZZ_SECONDS", "15")), 3600.0)
SEED = int(os.environ.get("HOWDAH_FUZZ_SEED", str(int(time.time()))))
PATIENCE = 2.0  # seconds that one call gets: some wait for ever


def repo(name: str, kind: str = "user") -> pfs_pb2.Repo:
    return pfs_pb2.Repo(name=name, type=kind, project=pfs_pb2.Project(name="default"))


def seed(root: Client) -> list[str]:
    """Two repos with files and a pipeline, all of the root user; returns IDs that a guess may hit."""
    ids = []
    for name in ("images", "labels"):
        root.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo(name)))
        commit = pfs_pb2.Commit(repo=repo(name), branch=pfs_pb2.Branch(repo=repo(name), name="master"))
        add = pfs_pb2.AddFile(path="/a", raw={"value": b"1"})
        root.pfs.ModifyFile([pfs_pb2.ModifyFileRequest(set_commit=commit), pfs_pb2.ModifyFileRequest(add_file=add)])
        ids.append(root.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=commit)).commit.id)
    pipeline = pps_pb2.Pipeline(project=pfs_pb2.Project(name="default"), name="copies")
    request = pps_pb2.CreatePipelineRequest(
        pipeline=pipeline,
        transform=pps_pb2.Transform(cmd=["sh", "-c", "cp -r /pfs/images/* /pfs/out/"]),
        input=pps_pb2.Input(pfs=pps_pb2.PFSInput(repo="images", glob="/*")),
    )
    root.pps.CreatePipeline(request)
    job = next(iter(root.pps.ListJob(pps_pb2.ListJobRequest(pipeline=pipeline)))).job
    root.pps.InspectJob(pps_pb2.InspectJobRequest(job=job, wait=True))
    return ids


def state(root: Client) -> list[str]:
    """All that can be seen of what the root user made."""
    seen = []
    for name in ("images", "labels", "copies"):
        info = root.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=repo(name)))
        seen.append(f"repo {name} {info.description} {sorted(info.metadata.items())}")
        for kind in ("user", "meta", "spec"):
            if kind != "user" and name != "copies":
                continue
            for branch in root.pfs.ListBranch(pfs_pb2.ListBranchRequest(repo=repo(name, kind))):
                seen.append(f"branch {name}.{kind}@{branch.branch.name} {branch.head.id} {branch.trigger}")
            for commit in root.pfs.ListCommit(pfs_pb2.ListCommitRequest(repo=repo(name, kind), all=True)):
                seen.append(f"commit {name}.{kind}@{commit.commit.id} {commit.finished.seconds} {commit.error}")
        resource = auth_pb2.Resource(type="REPO", name=f"default/{name}")
        bound = root.auth.GetRoleBinding(auth_pb2.GetRoleBindingRequest(resource=resource)).binding
        seen.append(f"roles {name} {sorted((who, sorted(roles.roles)) for who, roles in bound.entries.items())}")
    cluster = auth_pb2.GetRoleBindingRequest(resource=auth_pb2.Resource(type="CLUSTER"))
    entries = root.auth.GetRoleBinding(cluster).binding.entries
    seen.append(f"roles {sorted((who, sorted(roles.roles)) for who, roles in entries.items())}")
    pipeline = pps_pb2.Pipeline(project=pfs_pb2.Project(name="default"), name="copies")
    about = root.pps.InspectPipeline(pps_pb2.InspectPipelineRequest(pipeline=pipeline))
    seen.append(f"pipeline {about.version} {about.stopped} {about.state}")
    defaults = root.pps.GetClusterDefaults(pps_pb2.GetClusterDefaultsRequest())
    seen.append(f"defaults {defaults.cluster_defaults_json}")
    return seen


def test_an_outsider_changes_nothing_of_others(tmp_path: Path) -> None:
    codes: Counter[str] = Counter()
    wrong: list[str] = []
    with running(Pachd(tmp_path / "data")) as server:
        activate(server.address)
        guarded = Guarded(server)
        ids = seed(guarded.root)
        before = state(guarded.root)
        token = guarded.root.auth.GetRobotToken(auth_pb2.GetRobotTokenRequest(robot="outsider")).token
        maker = Maker(SEED, lambda: ids)
        channel = grpc.insecure_channel(server.address)
        rpcs = methods()
        until = time.monotonic() + SECONDS
        while time.monotonic() < until or codes["PERMISSION_DENIED"] <= 20:
            method = maker.random.choice(rpcs)
            path = f"/{method.containing_service.full_name}/{method.name}"
            sent = maker.requests(method)
            replies = channel.stream_stream(path)(iter(sent), timeout=PATIENCE, metadata=[("authn-token", token)])
            code, details = "OK", ""
            try:
                for _ in replies:
                    pass
            except grpc.RpcError as error:
                code, details = error.code().name, error.details() or ""
            codes[code] += 1
            if code == "INTERNAL" and "failed inside pachd" in details:
                wrong.append(f"{path}: {details[:300]}: {[data[:80].hex() for data in sent[:3]]}")
        after = state(guarded.root)
    assert after == before, f"HOWDAH_FUZZ_SEED={SEED}: {sorted(set(after) ^ set(before))}"
    assert not wrong, f"HOWDAH_FUZZ_SEED={SEED}: {wrong[:5]}"
    assert codes["PERMISSION_DENIED"] > 20, codes
