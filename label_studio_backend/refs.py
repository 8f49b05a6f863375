"""How repositories, files and commits are written down: `[project/]repo[@branch|=commit]` and `pachyderm://` addresses.

No Django in here: pure text, so that every rule has a test of its own.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

SCHEME = "pachyderm"
DEFAULT_PROJECT = "default"
DEFAULT_BRANCH = "master"

_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)?\Z")  # a repo may carry its type: `edges.spec`
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,50}\Z")
_BRANCH = re.compile(r"[A-Za-z0-9_-]+\Z")
_COMMIT = re.compile(r"[0-9a-f]{12}4[0-9a-f]{19}\Z|[0-9a-f]{32}\Z")

# Pachyderm 2.12 takes printable ASCII without its globbing characters as names of files.
_ILLEGAL = re.compile(r"[^ -~]|[*?\[\]{}!()@+^]")


class Ref(NamedTuple):
    """A repository with the branch that is followed or the commit that is pinned (exactly one of them is set)."""

    project: str
    repo: str
    branch: str | None
    commit: str | None

    def __str__(self) -> str:
        tail = f"@{self.branch}" if self.branch else f"={self.commit}"
        return f"{self.project}/{self.repo}{tail}"

    @property
    def pinned(self) -> bool:
        """True when the reference names a commit, which never moves and cannot be written to."""
        return self.commit is not None


class FileAddress(NamedTuple):
    """One file at one commit. `path` starts with a slash."""

    project: str
    repo: str
    commit: str
    path: str

    def __str__(self) -> str:
        return f"{SCHEME}://{self.project}/{self.repo}@{self.commit}{quote(self.path)}"


def parse_ref(text: str) -> Ref:
    """Read `[project/]repo[@branch|=commit]`; project `default` and branch `master` when left out.

    Returns: the reference. Raises: ValueError with a sentence that names the offending part.
    """
    text = (text or "").strip()
    if not text:
        raise ValueError("Repository is required: write [project/]repo[@branch|=commit], for example images@master.")
    head, sep, tail = text, "", ""
    found = re.search(r"[@=]", text)
    if found:
        head, sep, tail = text[: found.start()], found.group(), text[found.end() :]
    project, slash, repo = head.rpartition("/")
    project = project if slash else DEFAULT_PROJECT
    if not _PROJECT.match(project):
        raise ValueError(f'"{project}" is not a project name: letters, digits, "-" and "_" only.')
    if not _NAME.match(repo):
        raise ValueError(f'"{repo}" is not a repository name: letters, digits, "-" and "_" only.')
    if not sep:
        return Ref(project, repo, DEFAULT_BRANCH, None)
    if sep == "@" and re.fullmatch(r"[0-9a-f]{32}", tail):
        sep = "="  # Pachyderm itself writes repo@<commit id>
    if sep == "=":
        if not _COMMIT.match(tail):
            raise ValueError(f'"{tail}" is not a commit ID: 32 hexadecimal digits are expected after "=".')
        return Ref(project, repo, None, tail)
    if not _BRANCH.match(tail):
        raise ValueError(f'"{tail}" is not a branch name: letters, digits, "-" and "_" only.')
    return Ref(project, repo, tail, None)


def clean_path(path: str) -> str:
    """A file path in its one canonical form: absolute, no empty, `.` or `..` parts, no NUL.

    Raises: ValueError. Nothing is "repaired" by walking upwards: `..` is refused, so a path can never leave its repo.
    """
    if "\0" in path:
        raise ValueError("A path cannot contain a NUL character.")
    parts = [part for part in path.split("/") if part]
    if not parts or any(part in (".", "..") for part in parts):
        raise ValueError(f'"{path}" is not a path of a file in a repository.')
    return "/" + "/".join(parts)


def clean_prefix(prefix: str | None) -> str:
    """A directory prefix in canonical form: "" for the root, else `/a/b`. Raises: ValueError."""
    if not prefix or not prefix.strip("/ "):
        return ""
    bad = _ILLEGAL.search(prefix)
    if bad:
        raise ValueError(f'The prefix "{prefix}" holds {bad.group()!r}, which Pachyderm does not allow in paths.')
    return clean_path(prefix.strip())


def parse_address(uri: str) -> FileAddress:
    """Read `pachyderm://project/repo@commit/path`. Raises: ValueError for anything else."""
    start = f"{SCHEME}://"
    if not uri.startswith(start):
        raise ValueError(f"Not a {start} address.")
    project, _, rest = uri[len(start) :].partition("/")
    where, _, path = rest.partition("/")
    repo, _, commit = where.partition("@")
    if not (_PROJECT.match(project) and _NAME.match(repo) and _COMMIT.match(commit)):
        raise ValueError(f'"{uri}" is not of the form {start}project/repo@commit/path.')
    return FileAddress(project, repo, commit, clean_path(unquote(path)))


def below(path: str, prefix: str) -> bool:
    """Whether the canonical `path` lies inside the canonical directory `prefix` ("" is the root)."""
    return not prefix or path.startswith(prefix + "/")


def glob_of(prefix: str, pattern: str | None, recursive: bool) -> str:
    """The Pachyderm glob that selects a source's files.

    `pattern` is relative to `prefix` unless it starts with a slash; without a pattern all files below `prefix`, or
    only those directly in it when not `recursive`.
    """
    pattern = (pattern or "").strip()
    if pattern.startswith("/"):
        return pattern
    return f"{prefix}/{pattern or ('**' if recursive else '*')}"


def first_address(data: object) -> FileAddress | None:
    """The first `pachyderm://` address among the values of a task's data (nested values too), or None."""
    if isinstance(data, str):
        try:
            return parse_address(data)
        except ValueError:
            return None
    values = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    for value in values:
        found = first_address(value)
        if found:
            return found
    return None


def mount_name(purpose: str, ref: Ref) -> str:
    """The name under which a branch (to write) or a commit (to read) is mounted: one mount for all who need the same.

    The parts cannot contain a dot, except a typed repo, so names of different references never coincide.
    """
    return f"{purpose}.{ref.project}.{ref.repo}.{ref.commit or ref.branch}"
