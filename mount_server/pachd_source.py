"""The files of a Pachyderm cluster, or of the embedded pachd, over gRPC."""

import base64
import contextlib
import re
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, cast

from google.protobuf.json_format import MessageToDict
from grpclib.const import Status

from mount_server import errors
from mount_server.pachd_messages import commit_of, file_of, info_of, repo_of, requests_of, rights_of, value_of
from mount_server.source import (
    Branch,
    Change,
    CommitInfo,
    CommitRef,
    DatumFile,
    Difference,
    Entry,
    Piece,
    RepoInfo,
)
from mount_server.waiting import about_to_wait
from pachd.client import Client, RpcError
from pachd.proto import auth_pb2, metadata_pb2, pfs_pb2, pps_pb2

CALL_TIMEOUT = 30.0
STREAM_TIMEOUT = 3600.0
PATIENCE = 60.0  # seconds without a word from pachd after which whoever reads files is told so
LOGIN_TIMEOUT = 600.0  # seconds someone may take at the login page

_ERRORS: dict[Status, type[errors.MountError]] = {
    Status.UNAVAILABLE: errors.Unreachable,
    Status.CANCELLED: errors.Unreachable,
    Status.DEADLINE_EXCEEDED: errors.TimedOut,
    Status.NOT_FOUND: errors.NotFound,
    Status.ALREADY_EXISTS: errors.Conflict,
    Status.FAILED_PRECONDITION: errors.Conflict,
    Status.ABORTED: errors.Conflict,
    Status.PERMISSION_DENIED: errors.Denied,
    Status.UNAUTHENTICATED: errors.Unauthenticated,
    Status.RESOURCE_EXHAUSTED: errors.NoSpace,
    Status.UNIMPLEMENTED: errors.NotSupported,
}
_NO_REPO = re.compile(r"\brepo (\([^)]*\)|\S+) not found")


@contextlib.contextmanager
def _translated(what: str = "", repo: str = "") -> Iterator[None]:
    """Raise our errors instead of pachd's. `what`, in `repo`, is asked for: one is not there if pachd says so."""
    about_to_wait()
    try:
        yield
    except RpcError as e:
        kind = _ERRORS.get(e.code, errors.PachdFailed)
        if kind is errors.PachdFailed and "not found" in e.message:
            kind = errors.NotFound  # most of Pachyderm's own errors carry no better status than UNKNOWN
        if what and kind is errors.NotFound:
            raise kind(f"{repo if repo and _NO_REPO.search(e.message) else what} not found") from e
        raise kind(e.message) from e


class PachdSource:
    """A `Source` over one pachd. See `mount_server.source` for the contract.

    :param address: `HOST:PORT` or `grpc://HOST:PORT`; nothing is connected yet.
    :param token: Pachyderm access token.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        self.address = address
        self._token = token
        self._client = Client(address, token=token)
        self._lock = threading.Lock()
        self._finished: dict[CommitRef, CommitInfo] = {}

    def ping(self, timeout: float) -> str:
        with _translated():
            self._client.admin.InspectCluster(timeout=timeout)
            try:
                self._client.auth.WhoAmI(auth_pb2.WhoAmIRequest(), timeout=timeout)
            except RpcError as e:
                if e.code is Status.UNIMPLEMENTED:
                    return "AUTH_DISABLED"
        return "AUTH_ENABLED"

    def projects(self) -> list[dict[str, object]]:
        with _translated():
            found = []
            for info in self._client.pfs.ListProject(pfs_pb2.ListProjectRequest(), timeout=CALL_TIMEOUT):
                document: dict[str, object] = MessageToDict(info, preserving_proto_field_name=True)
                document["created_at"] = {"seconds": info.created_at.seconds, "nanos": info.created_at.nanos}
                found.append(document)
            return found

    def repos(self) -> list[RepoInfo]:
        with _translated():
            found = []
            for info in self._client.pfs.ListRepo(pfs_pb2.ListRepoRequest(type="user"), timeout=CALL_TIMEOUT):
                branches = tuple(sorted(branch.name for branch in info.branches))
                found.append(RepoInfo(info.repo.project.name, info.repo.name, branches, rights_of(info)))
            return found

    def has_repo(self, project: str, repo: str) -> str:
        request = pfs_pb2.InspectRepoRequest(repo=repo_of(project, repo))
        with _translated(f"repo {project}/{repo}"):
            return rights_of(self._client.pfs.InspectRepo(request, timeout=CALL_TIMEOUT))

    def branch(self, project: str, repo: str, branch: str) -> Branch:
        name = pfs_pb2.Branch(repo=repo_of(project, repo), name=branch)
        with _translated(f"branch {project}/{repo}@{branch}", f"repo {project}/{repo}"):
            info = self._client.pfs.InspectBranch(pfs_pb2.InspectBranchRequest(branch=name), timeout=CALL_TIMEOUT)
        head = id_ = info.head.id
        finished: CommitInfo | None = None
        while id_:
            commit = self.commit(project, repo, id_)
            # the children of a commit with an error skip its content
            if commit.finished and not commit.error:
                finished = commit
                break
            id_ = commit.parent
        return Branch(head, finished, bool(info.direct_provenance))

    def commit(self, project: str, repo: str, commit: str, wait: bool = False) -> CommitInfo:
        ref = CommitRef(project, repo, commit)
        known = self._finished.get(ref)
        if known is not None:
            return known
        request = pfs_pb2.InspectCommitRequest(commit=commit_of(ref))
        if wait:
            request.wait = pfs_pb2.FINISHED
        with _translated(f"commit {project}/{repo}@{commit}", f"repo {project}/{repo}"):
            info = info_of(self._client.pfs.InspectCommit(request, timeout=STREAM_TIMEOUT if wait else CALL_TIMEOUT))
        if info.finished:
            with self._lock:
                while len(self._finished) >= 1000:
                    del self._finished[next(iter(self._finished))]
                self._finished[ref] = info
        return info

    def count_commits(self, project: str, repo: str, older: str, newer: str, limit: int) -> int:
        request = pfs_pb2.ListCommitRequest(repo=repo_of(project, repo), number=limit, all=True)
        getattr(request, "from").CopyFrom(commit_of(CommitRef(project, repo, older)))
        request.to.CopyFrom(commit_of(CommitRef(project, repo, newer)))
        with _translated():
            return sum(1 for _ in self._client.pfs.ListCommit(request, timeout=CALL_TIMEOUT))

    def children(self, commit: CommitRef, directory: str) -> dict[str, Entry]:
        request = pfs_pb2.ListFileRequest(file=file_of(commit, directory))
        listing: dict[str, Entry] = {}
        start = len(directory) + 2 if directory else 1
        with _translated():
            replies = self._client.pfs.ListFile(request, timeout=STREAM_TIMEOUT)
            replies.patience = PATIENCE
            for path, entry in self._entries(replies):
                if len(path) < start:
                    if entry.is_dir:
                        continue
                    raise errors.NotADirectory(f"/{directory} is a file")
                listing[path[start:]] = entry
        return dict(sorted(listing.items()))

    def walk(self, commit: CommitRef, glob: str) -> Iterator[tuple[str, Entry]]:
        with _translated():
            request = pfs_pb2.GlobFileRequest(commit=commit_of(commit), pattern=glob)
            for path, entry in self._entries(self._client.pfs.GlobFile(request, timeout=STREAM_TIMEOUT)):
                if not entry.is_dir:
                    yield path[1:], entry

    def read(self, commit: CommitRef, path: str, offset: int, size: int) -> Iterator[Piece]:
        with _translated():
            request = pfs_pb2.GetFileRequest(file=file_of(commit, path), offset=offset)
            replies = self._client.pfs.GetFile(request, timeout=STREAM_TIMEOUT)
            replies.patience = PATIENCE
            left = size
            try:
                for batch in replies.batches():
                    for message in batch:
                        data = value_of(message)
                        if size:
                            if len(data) >= left:
                                yield data[:left]
                                return
                            left -= len(data)
                        yield data
            finally:
                replies.close()

    def read_directory(self, commit: CommitRef, directory: str) -> Iterator[tuple[str, bytes]]:
        with _translated():
            request = pfs_pb2.GetFileRequest(file=file_of(commit, f"{directory}/*" if directory else "*"))
            replies = self._client.pfs.GetFileTAR(request, timeout=STREAM_TIMEOUT)
            replies.patience = PATIENCE
            try:
                with tarfile.open(fileobj=cast(IO[bytes], _Pipe(replies)), mode="r|", bufsize=256 * 1024) as archive:
                    for member in archive:
                        content = archive.extractfile(member) if member.isfile() else None
                        if content is not None:
                            yield member.name.rpartition("/")[2], content.read()
                        archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them
            except tarfile.TarError as e:
                raise errors.PachdFailed(f"pachd sent a broken archive of /{directory}: {e}") from e
            finally:
                replies.close()

    def diff(self, old: CommitRef | None, new: CommitRef, limit: int) -> list[Difference]:
        found: list[Difference] = []
        if old is None:
            for path, entry in self.walk(new, "/**"):
                found.append(Difference(path, "added", entry.size, entry.hash))
                if limit and len(found) >= limit:
                    break
            return found
        request = pfs_pb2.DiffFileRequest(new_file=file_of(new, ""), old_file=file_of(old, ""))
        with _translated():
            replies = self._client.pfs.DiffFile(request, timeout=STREAM_TIMEOUT)
            try:
                for reply in replies:
                    now, before = reply.new_file, reply.old_file
                    is_file = now.file_type == pfs_pb2.FILE
                    was_file = before.file_type == pfs_pb2.FILE
                    if is_file:
                        path, op = now.file.path.strip("/"), "changed" if was_file else "added"
                        found.append(Difference(path, op, now.size_bytes, now.hash))
                    elif was_file:
                        found.append(Difference(before.file.path.strip("/"), "deleted", 0, b""))
                    if limit and len(found) >= limit:
                        break
            finally:
                replies.close()
        return found

    def matching(self, commit: CommitRef, glob: str) -> Iterator[str]:
        with _translated():
            request = pfs_pb2.GlobFileRequest(commit=commit_of(commit), pattern=glob)
            for path, _ in self._entries(self._client.pfs.GlobFile(request, timeout=STREAM_TIMEOUT)):
                yield path.strip("/")

    def datums(self, input_: pps_pb2.Input) -> Iterator[tuple[str, list[DatumFile]]]:
        with _translated():
            for info in self._client.pps.ListDatum(pps_pb2.ListDatumRequest(input=input_), timeout=STREAM_TIMEOUT):
                files = []
                for found in info.data:
                    commit = found.file.commit
                    ref = CommitRef(commit.repo.project.name or "default", commit.repo.name, commit.id)
                    files.append(DatumFile(ref, found.file.path))
                yield info.datum.id, files

    def history(self, project: str, repo: str, commit: str, path: str, limit: int) -> Iterator[CommitInfo]:
        start = commit_of(CommitRef(project, repo, commit))
        request = pfs_pb2.FindCommitsRequest(start=start, file_path="/" + path, limit=limit)
        with _translated():
            for reply in self._client.pfs.FindCommits(request, timeout=STREAM_TIMEOUT):
                if reply.HasField("found_commit"):
                    yield self.commit(project, repo, reply.found_commit.id)

    def start(self, project: str, repo: str, branch: str, description: str) -> CommitInfo:
        name = pfs_pb2.Branch(repo=repo_of(project, repo), name=branch)
        request = pfs_pb2.StartCommitRequest(branch=name, description=description)
        try:
            with _translated():
                commit = self._client.pfs.StartCommit(request, timeout=CALL_TIMEOUT)
        except errors.PachdFailed as e:
            if "has not been finished" not in str(e):  # Pachyderm has no better status for it than UNKNOWN
                raise
            raise errors.HeadMoved(
                f"somebody else has begun a commit on {project}/{repo}@{branch}: commit again when it is finished"
            ) from e
        return self.commit(project, repo, commit.id)

    def fill(self, commit: CommitRef, changes: Iterator[Change]) -> None:
        with _translated():
            self._client.pfs.ModifyFile(requests_of(commit, changes), timeout=STREAM_TIMEOUT)

    def describe(self, commit: CommitRef, metadata: Mapping[str, str]) -> None:
        repo = pfs_pb2.RepoPicker.RepoName(
            project=pfs_pb2.ProjectPicker(name=commit.project), name=commit.repo, type="user"
        )
        picker = pfs_pb2.CommitPicker(
            id=pfs_pb2.CommitPicker.CommitByGlobalId(repo=pfs_pb2.RepoPicker(name=repo), id=commit.id)
        )
        replace = metadata_pb2.Edit.Replace(replacement=dict(metadata))
        edit = metadata_pb2.Edit(commit=picker, replace=replace)
        with contextlib.suppress(errors.NotSupported), _translated():  # Pachyderm has it since 2.11
            self._client.metadata.EditMetadata(metadata_pb2.EditMetadataRequest(edits=[edit]), timeout=CALL_TIMEOUT)

    def finish(self, commit: CommitRef, description: str) -> CommitInfo:
        request = pfs_pb2.FinishCommitRequest(commit=commit_of(commit), description=description)
        with _translated():
            self._client.pfs.FinishCommit(request, timeout=STREAM_TIMEOUT)
        return self.commit(*commit, wait=True)

    def drop(self, commit: CommitRef) -> None:
        request = pfs_pb2.DropCommitSetRequest(commit_set=pfs_pb2.CommitSet(id=commit.id))
        with _translated():
            self._client.pfs.DropCommitSet(request, timeout=CALL_TIMEOUT)

    def login(self, id_token: str = "", token: str = "") -> None:
        if not token:
            request = auth_pb2.AuthenticateRequest(id_token=id_token)
            with _translated():
                token = self._client.auth.Authenticate(request, timeout=CALL_TIMEOUT).pach_token
        with Client(self.address, token=token) as client, _translated():
            client.auth.WhoAmI(auth_pb2.WhoAmIRequest(), timeout=CALL_TIMEOUT)
        self._use(token)

    def login_page(self) -> tuple[str, str]:
        with _translated():
            reply = self._client.auth.GetOIDCLogin(auth_pb2.GetOIDCLoginRequest(), timeout=CALL_TIMEOUT)
        return reply.login_url, reply.state

    def logged_in(self, state: str) -> None:
        request = auth_pb2.AuthenticateRequest(oidc_state=state)
        with _translated():
            token = self._client.auth.Authenticate(request, timeout=LOGIN_TIMEOUT).pach_token
        self._use(token)

    def logout(self) -> None:
        self._use(None)

    def close(self) -> None:
        self._client.close()

    def _use(self, token: str | None) -> None:
        old, self._client = self._client, Client(self.address, token=token)
        old.close()

    def _entries(self, replies: Any) -> Iterator[tuple[str, Entry]]:
        parse = pfs_pb2.FileInfo.FromString
        directory = pfs_pb2.DIR
        try:
            for batch in replies.batches():
                for data in batch:
                    info = parse(data)
                    committed = info.committed
                    is_dir = info.file_type == directory
                    path = info.file.path
                    yield (
                        path[:-1] if is_dir else path,
                        Entry(is_dir, info.size_bytes, info.hash, committed.seconds * 1_000_000_000 + committed.nanos),
                    )
        finally:
            replies.close()


class _Pipe:
    """A stream of messages as the file object that tarfile reads."""

    def __init__(self, replies: Iterable[Any]) -> None:
        self._replies = iter(replies)
        self._rest = b""

    def read(self, size: int) -> bytes:
        parts, held = [self._rest], len(self._rest)
        while held < size:
            piece = next(self._replies, None)
            if piece is None:
                break
            parts.append(piece.value)
            held += len(piece.value)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def check_certificates(text: str) -> None:
    """:raises InvalidRequest: the certificates of a `/config` request are not base64 of PEM."""
    try:
        pem = base64.b64decode(text, validate=True)
    except ValueError as e:
        raise errors.InvalidRequest(f"could not decode server CA certs: {e}") from None
    if b"BEGIN CERTIFICATE" not in pem:
        raise errors.InvalidRequest("could not decode server CA certs: no PEM certificate in server_cas")
