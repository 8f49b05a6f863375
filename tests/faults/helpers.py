"""Requests that the fault tests send, and what they look for afterwards."""

import os
import random
from collections.abc import Iterable, Iterator

from google.protobuf.wrappers_pb2 import BytesValue

from pachd.client import Client
from pachd.proto import pfs_pb2

PROJECT = pfs_pb2.Project(name="default")


def chance() -> random.Random:
    """Random numbers for one test; the seed is printed, and HOWDAH_SEED sets it to have a failure again."""
    seed = int(os.environ.get("HOWDAH_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"HOWDAH_SEED={seed}")
    return random.Random(seed)


def repo_of(name: str) -> pfs_pb2.Repo:
    return pfs_pb2.Repo(project=PROJECT, name=name, type="user")


def commit_of(repo: str, ref: str = "master") -> pfs_pb2.Commit:
    r = repo_of(repo)
    if len(ref) == 32:
        return pfs_pb2.Commit(repo=r, id=ref)
    return pfs_pb2.Commit(repo=r, branch=pfs_pb2.Branch(repo=r, name=ref))


def put(client: Client, repo: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Overwrite files on master in one stream: acknowledged when it returns."""

    def requests() -> Iterator[pfs_pb2.ModifyFileRequest]:
        yield pfs_pb2.ModifyFileRequest(set_commit=commit_of(repo))
        for path, raw in files:
            yield pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=path))
            for at in range(0, max(1, len(raw)), 1 << 20):
                piece = BytesValue(value=raw[at : at + (1 << 20)])
                yield pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=path, raw=piece))

    client.pfs.ModifyFile(requests(), timeout=60)


def get(client: Client, repo: str, path: str, ref: str = "master") -> bytes:
    file = pfs_pb2.File(commit=commit_of(repo, ref), path=path)
    return b"".join(part.value for part in client.pfs.GetFile(pfs_pb2.GetFileRequest(file=file), timeout=60))


def paths(client: Client, repo: str, pattern: str = "/**", ref: str = "master") -> list[str]:
    """The files, without directories, that match."""
    request = pfs_pb2.GlobFileRequest(commit=commit_of(repo, ref), pattern=pattern)
    return [f.file.path for f in client.pfs.GlobFile(request, timeout=60) if f.file_type == pfs_pb2.FILE]


def commits(client: Client, repo: str) -> list[pfs_pb2.CommitInfo]:
    """All commits of a repo, newest first."""
    return list(client.pfs.ListCommit(pfs_pb2.ListCommitRequest(repo=repo_of(repo), all=True), timeout=60))


def finished(client: Client, repo: str, ref: str = "master") -> pfs_pb2.CommitInfo:
    """The commit, once it is finished."""
    request = pfs_pb2.InspectCommitRequest(commit=commit_of(repo, ref), wait=pfs_pb2.FINISHED)
    info: pfs_pb2.CommitInfo = client.pfs.InspectCommit(request, timeout=60)
    return info
