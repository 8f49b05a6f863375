"""Where a mount's files come from: the narrow interface to a versioned store.

The only implementation that ships is `pachd_source.PachdSource`, which speaks Pachyderm's gRPC API; tests bring a plain
one in memory. Paths here are inside a repo, without a leading or trailing slash; "" is the root.
All methods raise `mount_server.errors`: Unreachable when pachd does not answer, NotFound for what is not there,
Denied, PachdFailed. All may be called from any thread.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from pachd.proto import pps_pb2

Piece = bytes | memoryview
"""A part of a file's content, not to be changed."""


class Entry(NamedTuple):
    """A file or directory in a commit. `mtime` is in nanoseconds; `hash` is the store's own, b"" for directories."""

    is_dir: bool
    size: int
    hash: bytes
    mtime: int


class CommitRef(NamedTuple):
    """A finished commit of a repo."""

    project: str
    repo: str
    id: str


class CommitInfo(NamedTuple):
    """A commit. `parent` is a commit ID or ""; times are nanoseconds; `finished` is 0 while the commit is not."""

    id: str
    parent: str
    branch: str
    started: int
    finished: int
    error: str
    description: str


class RepoInfo(NamedTuple):
    """A repo, its branches' names, what the caller may do: `off` (no access control), `none`, `read`, `write`."""

    project: str
    repo: str
    branches: tuple[str, ...]
    authorization: str


class Branch(NamedTuple):
    """A branch: its head as it stands (may be open), the newest finished commit, and whether a pipeline writes it."""

    head: str
    finished: CommitInfo | None
    is_output: bool


class Put(NamedTuple):
    """Write a whole file. `data` gives its content in pieces."""

    path: str
    data: Iterable[bytes]
    replace: bool  # False: the caller knows that the parent commit has no such file


class Delete(NamedTuple):
    """Remove one file."""

    path: str


class Copy(NamedTuple):
    """Make `path` a copy of a file in another commit, without moving its bytes."""

    path: str
    source: CommitRef
    source_path: str


Change = Put | Delete | Copy


class Difference(NamedTuple):
    """One path that differs between two commits: `added`, `changed` or `deleted`; size and hash of what is there."""

    path: str
    op: str
    size: int
    hash: bytes


class DatumFile(NamedTuple):
    """A file or directory of a datum: the commit it is of, and its path as pachd writes it, such as `/a/b` or `/a/`."""

    ref: CommitRef
    path: str


class Source(Protocol):
    """A versioned store of files."""

    address: str

    def ping(self, timeout: float) -> str:
        """Return `AUTH_DISABLED` or `AUTH_ENABLED` from a store that answers within `timeout` seconds."""

    def projects(self) -> list[dict[str, object]]:
        """All projects, as JSON-ready documents."""

    def repos(self) -> list[RepoInfo]:
        """All user repos."""

    def has_repo(self, project: str, repo: str) -> str:
        """What the caller may do with a repo, as `RepoInfo` says it. :raises NotFound: it is not there."""

    def branch(self, project: str, repo: str, branch: str) -> Branch:
        """A branch's state. :raises NotFound: no such branch."""

    def commit(self, project: str, repo: str, commit: str) -> CommitInfo:
        """One commit by ID. :raises NotFound: no such commit in this repo."""

    def count_commits(self, project: str, repo: str, older: str, newer: str, limit: int) -> int:
        """How many commits lie between two, at most `limit`."""

    def children(self, commit: CommitRef, directory: str) -> dict[str, Entry]:
        """The children of a directory by name, sorted; of the root of an empty commit, nothing.

        :raises NotFound: no such directory. :raises NotADirectory: it is a file.
        """

    def walk(self, commit: CommitRef, glob: str) -> Iterator[tuple[str, Entry]]:
        """All files (no directories) that match a PFS glob, sorted by path."""

    def read(self, commit: CommitRef, path: str, offset: int, size: int) -> Iterator[Piece]:
        """The bytes of a file from `offset`; `size` 0 means to the end. Closing the iterator stops the transfer."""

    def read_directory(self, commit: CommitRef, directory: str) -> Iterator[tuple[str, bytes]]:
        """Name and content of all files right in a directory that has no subdirectories."""

    def diff(self, old: CommitRef | None, new: CommitRef, limit: int) -> list[Difference]:
        """Files that differ, sorted; `old` None means the empty repo. Stops after `limit` entries if it is not 0."""

    def matching(self, commit: CommitRef, glob: str) -> Iterator[str]:
        """The paths of all files and directories that match a PFS glob."""

    def datums(self, input_: pps_pb2.Input) -> Iterator[tuple[str, list[DatumFile]]]:
        """ID ("": pachd gives none) and files of each datum that an input's branches make now."""

    def history(self, project: str, repo: str, commit: str, path: str, limit: int) -> Iterator[CommitInfo]:
        """The commits that changed a file, newest first, starting at `commit`."""

    def start(self, project: str, repo: str, branch: str, description: str) -> CommitInfo:
        """Open a commit on a branch, which is made if it is not there. :raises HeadMoved: one is open already."""

    def fill(self, commit: CommitRef, changes: Iterator[Change]) -> None:
        """Write changes into an open commit; all or none of one call's changes take effect."""

    def describe(self, commit: CommitRef, metadata: Mapping[str, str]) -> None:
        """Attach metadata to a commit. A store that has no commit metadata ignores it."""

    def finish(self, commit: CommitRef, description: str) -> CommitInfo:
        """Finish an open commit and wait until it is readable."""

    def drop(self, commit: CommitRef) -> None:
        """Remove an open commit as if it had never been started."""

    def login(self, id_token: str = "", token: str = "") -> None:
        """Use what pachd gives for an OIDC ID token from now on, or an access token of pachd's own.

        :raises Unauthenticated: pachd does not know it. :raises NotSupported: the store has no access control.
        """

    def login_page(self) -> tuple[str, str]:
        """Address of a web page to log in at, and the state to give to `logged_in`.

        :raises NotSupported: there is none.
        """

    def logged_in(self, state: str) -> None:
        """Wait until someone has logged in on the page, then act as them."""

    def logout(self) -> None:
        """Forget the token."""

    def close(self) -> None:
        """Close the connection."""
