"""A versioned store in memory behind the mount server's `Source` interface: plain dictionaries, Pachyderm's rules."""

import fnmatch
import threading
import time
import uuid
from collections.abc import Iterator, Mapping

from mount_server import errors
from mount_server.commits import content_hash
from mount_server.source import (
    Branch,
    Change,
    CommitInfo,
    CommitRef,
    Copy,
    DatumFile,
    Delete,
    Difference,
    Entry,
    RepoInfo,
)
from pachd.proto import pps_pb2


class Commit:
    """A commit: its files, and what `CommitInfo` says of it."""

    def __init__(self, info: CommitInfo, files: dict[str, bytes]) -> None:
        self.info, self.files = info, files
        self.metadata: dict[str, str] = {}


class MemorySource:
    """Repos, branches and commits. `down` makes every call fail, `fail_after` one call after it took effect."""

    def __init__(self, address: str = "memory") -> None:
        self.address = address
        self.down = False
        self.fail_before = ""
        self.fail_after = ""
        self.calls: list[str] = []
        self.heads: dict[tuple[str, str, str], str] = {}
        self.repo_names: list[tuple[str, str]] = []
        self.commits: dict[CommitRef, Commit] = {}
        self.outputs: set[tuple[str, str, str]] = set()
        self._lock = threading.RLock()

    # --- for tests ---------------------------------------------------------------------------------------------------

    def make_repo(self, repo: str, files: Mapping[str, bytes] | None = None, project: str = "default") -> str:
        self.repo_names.append((project, repo))
        return self.put(repo, files, project=project) if files is not None else ""

    def put(
        self, repo: str, files: Mapping[str, bytes | None], branch: str = "master", project: str = "default"
    ) -> str:
        """One commit of another client: files written, or deleted where None."""
        with self._lock:
            commit = self._start(project, repo, branch, "other")
            for path, data in files.items():
                if data is None:
                    commit.files.pop(path, None)
                else:
                    commit.files[path] = data
            self._finish(commit)
            return commit.info.id

    def files(self, repo: str, branch: str = "master", project: str = "default") -> dict[str, bytes]:
        id_ = self.heads.get((project, repo, branch))
        return dict(self.commits[CommitRef(project, repo, id_)].files) if id_ else {}

    def history_of(self, repo: str, branch: str = "master", project: str = "default") -> list[Commit]:
        found, id_ = [], self.heads.get((project, repo, branch), "")
        while id_:
            found.append(self.commits[CommitRef(project, repo, id_)])
            id_ = found[-1].info.parent
        return found

    def _start(self, project: str, repo: str, branch: str, description: str) -> Commit:
        parent = self.heads.get((project, repo, branch), "")
        info = CommitInfo(uuid.uuid4().hex, parent, branch, time.time_ns(), 0, "", description)
        files = dict(self.commits[CommitRef(project, repo, parent)].files) if parent else {}
        commit = self.commits[CommitRef(project, repo, info.id)] = Commit(info, files)
        self.heads[project, repo, branch] = info.id
        return commit

    def _finish(self, commit: Commit) -> None:
        commit.info = commit.info._replace(finished=time.time_ns())

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.down or self.fail_before == name:
            raise errors.Unreachable("memory does not answer")

    def _called(self, name: str) -> None:
        if self.fail_after == name:
            raise errors.Unreachable("memory went away")

    def _get(self, ref: CommitRef) -> Commit:
        try:
            return self.commits[ref]
        except KeyError:
            raise errors.NotFound(f"commit {ref.project}/{ref.repo}@{ref.id} not found") from None

    # --- Source ------------------------------------------------------------------------------------------------------

    def ping(self, timeout: float) -> str:
        self._call("ping")
        return "AUTH_DISABLED"

    def projects(self) -> list[dict[str, object]]:
        self._call("projects")
        return [{"project": {"name": name}} for name in sorted({project for project, _ in self.repo_names})]

    def repos(self) -> list[RepoInfo]:
        self._call("repos")
        return [
            RepoInfo(p, r, tuple(sorted(b for pp, rr, b in self.heads if (pp, rr) == (p, r))), "off")
            for p, r in self.repo_names
        ]

    def has_repo(self, project: str, repo: str) -> str:
        self._call("has_repo")
        if (project, repo) not in self.repo_names:
            raise errors.NotFound(f"repo {project}/{repo} not found")
        return "off"

    def branch(self, project: str, repo: str, branch: str) -> Branch:
        self._call("branch")
        head = self.heads.get((project, repo, branch))
        if head is None:
            raise errors.NotFound(f'branch "{branch}" not found in repo {project}/{repo}')
        id_: str = head
        finished = None
        while id_:
            info = self.commits[CommitRef(project, repo, id_)].info
            if info.finished:
                finished = info
                break
            id_ = info.parent
        return Branch(head, finished, (project, repo, branch) in self.outputs)

    def commit(self, project: str, repo: str, commit: str) -> CommitInfo:
        self._call("commit")
        return self._get(CommitRef(project, repo, commit)).info

    def count_commits(self, project: str, repo: str, older: str, newer: str, limit: int) -> int:
        self._call("count_commits")
        count, id_ = 1, newer
        while id_ and id_ != older:
            count += 1
            id_ = self._get(CommitRef(project, repo, id_)).info.parent
        return count

    def children(self, commit: CommitRef, directory: str) -> dict[str, Entry]:
        self._call("children")
        found = self._get(commit)
        if directory in found.files:
            raise errors.NotADirectory(f"/{directory} is a file")
        prefix = directory + "/" if directory else ""
        listing: dict[str, Entry] = {}
        for path, data in found.files.items():
            if path.startswith(prefix):
                name, slash, _ = path[len(prefix) :].partition("/")
                hash_ = b"" if slash else content_hash(data)
                listing[name] = Entry(bool(slash), 0 if slash else len(data), hash_, found.info.finished)
        if not listing and directory:
            raise errors.NotFound(f"/{directory} not found")
        return dict(sorted(listing.items()))

    def walk(self, commit: CommitRef, glob: str) -> Iterator[tuple[str, Entry]]:
        self._call("walk")
        found = self._get(commit)
        for path, data in sorted(found.files.items()):
            if fnmatch.fnmatch("/" + path, glob):
                yield path, Entry(False, len(data), content_hash(data), found.info.finished)

    def read(self, commit: CommitRef, path: str, offset: int, size: int) -> Iterator[bytes]:
        self._call("read")
        data = self._get(commit).files[path][offset:]
        data = data[:size] if size else data
        for at in range(0, len(data), 1 << 20):
            yield data[at : at + (1 << 20)]

    def read_directory(self, commit: CommitRef, directory: str) -> Iterator[tuple[str, bytes]]:
        self._call("read_directory")
        prefix = directory + "/" if directory else ""
        for path, data in sorted(self._get(commit).files.items()):
            if path.startswith(prefix):
                yield path[len(prefix) :], data

    def diff(self, old: CommitRef | None, new: CommitRef, limit: int) -> list[Difference]:
        self._call("diff")
        before = self._get(old).files if old else {}
        after = self._get(new).files
        found = []
        for path in sorted(set(before) | set(after)):
            if path not in after:
                found.append(Difference(path, "deleted", 0, b""))
            elif before.get(path) != after[path]:
                op = "changed" if path in before else "added"
                found.append(Difference(path, op, len(after[path]), content_hash(after[path])))
        return found

    def history(self, project: str, repo: str, commit: str, path: str, limit: int) -> Iterator[CommitInfo]:
        self._call("history")
        yield from ()

    def start(self, project: str, repo: str, branch: str, description: str) -> CommitInfo:
        self._call("start")
        with self._lock:
            head = self.heads.get((project, repo, branch), "")
            if head and not self.commits[CommitRef(project, repo, head)].info.finished:
                raise errors.HeadMoved(f"commit {head} is open")
            info = self._start(project, repo, branch, description).info
        self._called("start")
        return info

    def fill(self, commit: CommitRef, changes: Iterator[Change]) -> None:
        self._call("fill")
        files = dict(self._get(commit).files)
        for change in changes:
            if isinstance(change, Delete):
                files.pop(change.path, None)
            elif isinstance(change, Copy):
                files[change.path] = self._get(change.source).files[change.source_path]
            else:
                before = b"" if change.replace else files.get(change.path, b"")  # add_file appends
                files[change.path] = before + b"".join(change.data)
        self._get(commit).files = files
        self._called("fill")

    def describe(self, commit: CommitRef, metadata: Mapping[str, str]) -> None:
        self._call("describe")
        self._get(commit).metadata.update(metadata)

    def finish(self, commit: CommitRef, description: str) -> CommitInfo:
        self._call("finish")
        found = self._get(commit)
        self._finish(found)
        self._called("finish")
        return found.info

    def drop(self, commit: CommitRef) -> None:
        self._call("drop")
        info = self._get(commit).info
        if info.finished:
            raise errors.Conflict("finished")
        del self.commits[commit]
        for key, head in list(self.heads.items()):
            if head == commit.id:
                if info.parent:
                    self.heads[key] = info.parent
                else:
                    del self.heads[key]

    def matching(self, commit: CommitRef, glob: str) -> Iterator[str]:
        raise errors.NotSupported("no globs of directories here")

    def datums(self, input_: pps_pb2.Input) -> Iterator[tuple[str, list[DatumFile]]]:
        raise errors.NotSupported("no pipelines here")

    def login(self, id_token: str = "", token: str = "") -> None:
        raise errors.NotSupported("the auth service is not activated")

    def login_page(self) -> tuple[str, str]:
        raise errors.NotSupported("the auth service is not activated")

    def logged_in(self, state: str) -> None:
        raise errors.NotSupported("the auth service is not activated")

    def logout(self) -> None:
        pass

    def close(self) -> None:
        pass
