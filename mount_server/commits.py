"""Turning what is staged into exactly one commit, or none; what was interrupted becomes whole, or never was."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mount_server.errors import (
    Conflict,
    HeadMoved,
    MountError,
    NotADirectory,
    NotFound,
    PachdFailed,
    ReadOnly,
    TimedOut,
    Unreachable,
)
from mount_server.journal import Intent, Staged
from mount_server.listing import CommitTree, split
from mount_server.mount import Mount
from mount_server.source import Change, CommitRef, Copy, Delete, Difference, Entry, Put, Source

ONE_CHUNK = 1_000_000  # bytes; PFS hashes smaller files as one chunk


class Plan(NamedTuple):
    """What a commit has to do on top of a tree."""

    deletes: list[str]
    puts: dict[str, Staged]
    replaced: set[str]

    def __bool__(self) -> bool:
        return bool(self.deletes or self.puts)

    def counts(self) -> dict[str, int]:
        """Numbers for the answer."""
        return {
            "files_added": len(self.puts) - len(self.replaced),
            "files_changed": len(self.replaced),
            "files_deleted": len(self.deletes),
            "bytes": sum(staged.size for staged in self.puts.values()),
        }


def content_hash(data: bytes) -> bytes:
    """PFS's hash of a file under ONE_CHUNK bytes: BLAKE2b-256 over its chunk's hash, or over nothing."""
    chunks = hashlib.blake2b(data, digest_size=32).digest() if data else b""
    return hashlib.blake2b(chunks, digest_size=32).digest()


def commit(
    mount: Mount,
    source: Source,
    message: str = "",
    metadata: dict[str, str] | None = None,
    expected_head: str | None = None,
    key: str = "",
) -> dict[str, Any]:
    """Commit what is staged at this moment. What is written meanwhile is the next commit's.

    :param message: the commit's description.
    :param metadata: the commit's metadata.
    :param expected_head: the commit ID that the branch must have; "" for a branch without commits.
    :param key: idempotency key: asked again with it, the first answer is given again.
    :return: `commit` (ID; None where nothing differs from the head), `project`, `repo`, `branch`, counts, `bytes`.
    :raises HeadMoved, Conflict, Unreachable, MountError: nothing is lost, everything is still staged.
    """
    if not mount.row.repo:
        raise ReadOnly("`out` is scratch space of the mounted datum: nothing commits it")
    if not mount.writable:
        raise ReadOnly(f"mount {mount.row.name!r} is read-only: it has nothing to commit")
    if not mount.row.branch:
        raise ReadOnly(f"mount {mount.row.name!r} is of a commit: mount a branch to commit")
    with mount.commit_lock:
        try:
            answer = _commit(mount, source, message, metadata or {}, expected_head, key)
        except MountError as e:
            mount.last_error = str(e)
            raise
        mount.last_error = ""
        if answer["commit"]:
            mount.last_commit = answer["commit"]
        return answer


def _commit(
    mount: Mount, source: Source, message: str, metadata: dict[str, str], expected_head: str | None, key: str
) -> dict[str, Any]:
    row, journal = mount.row, mount.journal
    resolve(mount, source)
    if key and (known := journal.result(row.name, key)) is not None:
        answer: dict[str, Any] = json.loads(known)
        return answer
    tree = catch_up(mount, source, for_commit=True)
    if expected_head is not None and expected_head != tree.id:
        raise HeadMoved(
            f"{row.project}/{row.repo}@{row.branch} is at {tree.id or 'no commit'},"
            f" not at {expected_head or 'no commit'}:"
            " look at what came in, then commit again"
        )
    taken = mount.snapshot()
    seq = journal.next_seq()
    plan = make_plan(tree, taken, source, journal.blobs)
    answer = {"commit": None, "project": row.project, "repo": row.repo, "branch": row.branch, **plan.counts()}
    if not plan:
        _done(mount, taken, None, answer, "")
        return answer
    intent = Intent(key, seq, mount.now(), tree.id, message, json.dumps(answer), "")
    journal.intend(row.name, intent)
    mount.in_commit = frozenset(plan.puts)
    try:
        try:
            info = source.start(row.project, row.repo, row.branch, message)
        except (Unreachable, PachdFailed):
            raise  # as below
        except MountError:
            # refused: an open commit that is found there later is somebody else's
            journal.abandon(row.name)
            raise
        ref = CommitRef(row.project, row.repo, info.id)
        answer["commit"] = info.id
        journal.intend(row.name, intent._replace(commit=info.id, metadata=json.dumps(answer)))
        try:
            if info.parent != tree.id and not (tree.id == "" and _is_empty(source, ref, info.parent)):
                raise HeadMoved(f"{row.project}/{row.repo}@{row.branch} moved while the commit began: commit again")
            source.fill(ref, _changes(mount, plan))
            if metadata:
                source.describe(ref, metadata)
            finished = source.finish(ref, message)
        except (Unreachable, TimedOut):
            raise  # whether it happened is looked up when pachd is back
        except MountError:
            source.drop(ref)
            journal.abandon(row.name)
            raise
        if finished.error:
            journal.abandon(row.name)
            raise Conflict(f"pachd refused the content of commit {info.id}: {finished.error}")
        after = tree.with_changes(ref, finished.finished, _differences(plan))
        _done(mount, taken, after, answer, key)
    finally:
        mount.in_commit = frozenset()
    return answer


def resolve(mount: Mount, source: Source) -> None:
    """See an interrupted commit to its end: finished, its changes are forgotten; open, it is removed.

    :raises Unreachable: pachd does not answer; it is tried again by the next commit.
    """
    row, journal = mount.row, mount.journal
    intent = journal.intent(row.name)
    if intent is None:
        return
    id_ = intent.commit
    if not id_:
        # the process ended between starting the commit and noting its ID
        try:
            head = source.branch(row.project, row.repo, row.branch).head
            found = source.commit(row.project, row.repo, head) if head else None
        except NotFound:
            found = None
        ours = (
            found is not None
            and not found.finished
            and found.description == intent.description
            and found.parent == intent.parent
            and found.started >= intent.started - 5_000_000_000
        )
        if found is not None and ours:
            source.drop(CommitRef(row.project, row.repo, found.id))
        journal.abandon(row.name)
        return
    ref = CommitRef(row.project, row.repo, id_)
    try:
        info = source.commit(row.project, row.repo, id_)
    except NotFound:
        journal.abandon(row.name)
        return
    if not info.finished:
        try:
            source.drop(ref)
            journal.abandon(row.name)
            return
        except (Conflict, NotFound):  # it was finishing
            info = source.commit(row.project, row.repo, id_)
    if info.finished and not info.error:
        with mount.lock:
            done = {path: staged for path, staged in mount.staged.items() if staged.seq <= intent.seq}
        _done(mount, done, None, json.loads(intent.metadata), intent.idempotency_key)
        mount.last_commit = id_
    else:
        journal.abandon(row.name)


def catch_up(mount: Mount, source: Source, for_commit: bool = False) -> CommitTree:
    """Show the branch's newest finished commit.

    :param for_commit: also refuse a branch that a commit cannot be made on.
    :return: its tree, the empty one where the branch has no commit.
    """
    row = mount.row
    try:
        branch = source.branch(row.project, row.repo, row.branch)
    except NotFound:
        source.has_repo(row.project, row.repo)
        if mount.tree.ref is not None:
            # an empty directory would make a mirror of it delete its copy
            raise NotFound(
                f"branch {row.project}/{row.repo}@{row.branch} was deleted: the mount stays at commit {mount.tree.id};"
                " make the branch again, or unmount with discard: true"
            ) from None
        branch = None
    if for_commit and branch is not None:
        if branch.is_output:
            raise ReadOnly(
                f"{row.project}/{row.repo}@{row.branch} is written by a pipeline: commits of others are not possible"
            )
        if branch.head and branch.finished is not None and branch.head != branch.finished.id:
            head = source.commit(row.project, row.repo, branch.head)
            if not head.finished:
                raise Conflict(
                    f"commit {branch.head} on {row.project}/{row.repo}@{row.branch} is still open: finish it first"
                )
    finished = branch.finished if branch is not None else None
    tree = mount.tree
    if finished is None:
        if tree.ref is not None:
            mount.move(CommitTree(source, None, 0), None)
    elif finished.id != tree.id:
        ref = CommitRef(row.project, row.repo, finished.id)
        try:
            changes = source.diff(tree.ref, ref, 0) if tree.ref is not None else None
        except NotFound:  # the old commit was squashed
            changes = None
        mount.move(tree.with_changes(ref, finished.finished, changes), changes)
    return mount.tree


def make_plan(tree: CommitTree, taken: dict[str, Staged], source: Source, blobs: Path) -> Plan:
    """What of the staged changes differs from a commit.

    :param blobs: where content files are.
    :raises Conflict: a file would stand where the commit has a directory, or below a file.
    """
    deletes: list[str] = []
    puts: dict[str, Staged] = {}
    replaced: set[str] = set()
    gone = {
        path for path, staged in taken.items() if staged.kind == "deleted" or (staged.kind == "dir" and staged.hash)
    }
    for path, staged in taken.items():
        if staged.kind == "rmdir" or (staged.kind == "dir" and not staged.hash):
            continue
        try:
            entry = tree.find(path)
        except NotADirectory:
            entry = None
            if path not in gone:
                _check_above(tree, path, gone)
        if path in gone:
            if entry is not None and not entry.is_dir:
                deletes.append(path)
            continue
        if entry is not None and entry.is_dir:
            if _any_left(tree, path, gone):
                raise Conflict(f"/{path} is a directory in commit {tree.id}: remove it first, or choose another name")
            entry = None
        if entry is not None:
            if _same(tree, path, entry, staged, source, blobs):
                continue
            replaced.add(path)
        puts[path] = staged
    return Plan(deletes, puts, replaced)


def _any_left(tree: CommitTree, directory: str, gone: set[str]) -> bool:
    for name, entry in tree.list(directory).items():
        path = f"{directory}/{name}"
        if _any_left(tree, path, gone) if entry.is_dir else path not in gone:
            return True
    return False


def _check_above(tree: CommitTree, path: str, gone: set[str]) -> None:
    directory = split(path)[0]
    while directory:
        try:
            entry = tree.find(directory)
        except NotADirectory:
            entry = None
        if entry is not None and not entry.is_dir and directory not in gone:
            raise Conflict(f"/{path} cannot be committed: /{directory} is a file in commit {tree.id}")
        directory = split(directory)[0]


def _same(tree: CommitTree, path: str, entry: Entry, staged: Staged, source: Source, blobs: Path) -> bool:
    if entry.size != staged.size:
        return False
    if staged.kind == "copy":
        return entry.hash == staged.hash
    if staged.data is not None:
        return entry.hash == content_hash(staged.data) or entry.size == 0
    with open(blobs / staged.blob, "rb") as f:
        if entry.size < ONE_CHUNK:
            return entry.hash == content_hash(f.read())
        # how a larger file is cut into chunks is the store's own affair: its bytes are compared, up to the first change
        assert tree.ref is not None
        pieces = source.read(tree.ref, path, 0, 0)
        try:
            return all(f.read(len(piece)) == piece for piece in pieces) and not f.read(1)
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()


def _changes(mount: Mount, plan: Plan) -> Iterator[Change]:
    for path in plan.deletes:
        yield Delete(path)
    for path, staged in plan.puts.items():
        if staged.kind == "copy":
            yield Copy(path, staged.source, staged.source_path)
        else:
            yield Put(path, _pieces(mount, staged), path in plan.replaced)


def _pieces(mount: Mount, staged: Staged) -> Iterator[bytes]:
    if not staged.blob:
        if staged.data:
            yield staged.data
        return
    left = staged.size
    with open(mount.journal.blobs / staged.blob, "rb") as f:
        while left and (piece := f.read(min(left, 1 << 20))):
            left -= len(piece)
            yield piece


def _differences(plan: Plan) -> list[Difference] | None:
    """How the new commit differs from its parent, as far as its hashes can be known here; None: not at all."""
    found = [Difference(path, "deleted", 0, b"") for path in plan.deletes]
    for path, staged in plan.puts.items():
        op = "changed" if path in plan.replaced else "added"
        if staged.kind == "copy":
            found.append(Difference(path, op, staged.size, staged.hash))
        elif staged.data is not None:
            found.append(Difference(path, op, staged.size, content_hash(staged.data)))
        else:
            return None
    return found


def _is_empty(source: Source, ref: CommitRef, parent: str) -> bool:
    """A branch that never had a commit may get an empty first one by itself."""
    return not parent or not source.children(CommitRef(ref.project, ref.repo, parent), "")


def _done(mount: Mount, taken: dict[str, Staged], tree: CommitTree | None, answer: dict[str, Any], key: str) -> None:
    settled = {path: staged for path, staged in taken.items() if staged.kind != "dir" or staged.hash}
    # a file's directory outlives the commit by itself, an empty one stays local
    mount.journal.forget(
        mount.row.name,
        [(path, staged.seq) for path, staged in settled.items()],
        (key, json.dumps(answer)) if key else None,
    )
    mount.settle(settled, tree)
