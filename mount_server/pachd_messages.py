"""pachd's messages from what a mount knows, and back."""

from collections.abc import Iterable, Iterator

from google.protobuf import wrappers_pb2

from mount_server.source import Change, CommitInfo, CommitRef, Copy, Delete, Piece, Put
from pachd.proto import auth_pb2, pfs_pb2

PIECE = 1 << 20  # bytes per add_file message; pachd takes up to 20 MiB


def value_of(message: bytes) -> Piece:
    """The bytes of an encoded BytesValue, without copying them: a tag, a length in groups of 7 bits, the bytes."""
    if message[:1] != b"\x0a":
        value: bytes = wrappers_pb2.BytesValue.FromString(message).value
        return value
    at = 1
    while message[at] & 0x80:
        at += 1
    return memoryview(message)[at + 1 :]


def requests_of(commit: CommitRef, changes: Iterable[Change]) -> Iterator[pfs_pb2.ModifyFileRequest]:
    """The requests of one ModifyFile that makes changes in a commit, in their order."""
    request = pfs_pb2.ModifyFileRequest
    yield request(set_commit=commit_of(commit))
    for change in changes:
        path = "/" + change.path
        if isinstance(change, Delete):
            yield request(delete_file=pfs_pb2.DeleteFile(path=path))
        elif isinstance(change, Copy):
            source = file_of(change.source, change.source_path)
            yield request(copy_file=pfs_pb2.CopyFile(dst=path, src=source))
        else:
            yield from _put(path, change)


def _put(path: str, change: Put) -> Iterator[pfs_pb2.ModifyFileRequest]:
    if change.replace:
        yield pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=path))
    empty = True
    for data in change.data:
        for at in range(0, len(data), PIECE):
            add = pfs_pb2.AddFile(path=path)
            add.raw.value = data if len(data) <= PIECE else data[at : at + PIECE]
            yield pfs_pb2.ModifyFileRequest(add_file=add)
            empty = False
    if empty:
        yield pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=path))


def rights_of(info: pfs_pb2.RepoInfo) -> str:
    """What the caller may do in a repo: `write`, `read`, `none`, or `off` where nobody is asked for rights."""
    if not info.HasField("auth_info"):
        return "off"
    allowed = {auth_pb2.Permission.Name(p) for p in info.auth_info.permissions}
    return "write" if "REPO_WRITE" in allowed else "read" if "REPO_READ" in allowed else "none"


def repo_of(project: str, repo: str) -> pfs_pb2.Repo:
    """A repo of files."""
    return pfs_pb2.Repo(name=repo, type="user", project=pfs_pb2.Project(name=project))


def commit_of(ref: CommitRef) -> pfs_pb2.Commit:
    """A commit."""
    return pfs_pb2.Commit(repo=repo_of(ref.project, ref.repo), id=ref.id)


def file_of(ref: CommitRef, path: str) -> pfs_pb2.File:
    """A file or directory of a commit; "" is the root."""
    return pfs_pb2.File(commit=commit_of(ref), path="/" + path)


def info_of(info: pfs_pb2.CommitInfo) -> CommitInfo:
    """What is told of a commit."""
    finished = info.finished.seconds * 1_000_000_000 + info.finished.nanos
    started = info.started.seconds * 1_000_000_000 + info.started.nanos
    parent, branch = info.parent_commit.id, info.commit.branch.name
    return CommitInfo(info.commit.id, parent, branch, started, finished, info.error, info.description)
