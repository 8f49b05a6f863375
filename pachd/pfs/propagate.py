"""Propagation: at the end of a transaction every branch downstream of one that moved gets one open AUTO commit.

All commits of a transaction share one ID, the commit set's; a repo takes part with one commit at most.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pachd.auth import owners
from pachd.errors import AlreadyExists
from pachd.pfs import refs
from pachd.proto import pfs_pb2
from pachd.store import Store, Txn

# Called in the transaction with the AUTO commits that propagation has just made, upstream first.
on_new_commits: list[Callable[[Txn, Sequence[refs.CommitRow]], None]] = []


@contextmanager
def writing(store: Store) -> Iterator[Txn]:
    """`with writing(store) as txn:` — a writing transaction that propagates before it commits."""
    with store.write() as txn:
        yield txn
        run(txn)


def commit_set_id(txn: Txn) -> str:
    """Return the ID that all commits of this transaction share."""
    id: str = txn.state.setdefault("commit set", uuid.uuid4().hex)
    return id


def touch(txn: Txn, branch_pk: int) -> None:
    """Note that a branch moved or was connected anew."""
    txn.state.setdefault("touched", {})[branch_pk] = True


def force(txn: Txn, branch_pk: int) -> None:
    """Have a branch get a new commit even if the heads of its provenance are those it has already."""
    txn.state.setdefault("forced", {})[branch_pk] = True


def move_head(txn: Txn, branch_pk: int, commit_pk: int | None) -> None:
    """Move the head of a branch."""
    txn.db.execute("UPDATE branches SET head_pk=?, updated=? WHERE pk=?", (commit_pk, txn.now, branch_pk))
    touch(txn, branch_pk)


def make_commit(
    txn: Txn,
    repo_pk: int,
    branch: str | None,
    origin: int,
    parent_pk: int | None,
    description: str = "",
    finished: bool = False,
) -> int:
    """Insert a commit of this transaction's set and return its number.

    finished: it is over at once, with the files of its parent. Raises AlreadyExists if the repo has one in this set.
    """
    id = commit_set_id(txn)
    if txn.db.execute("SELECT 1 FROM commits WHERE repo_pk=? AND id=?", (repo_pk, id)).fetchone():
        row = txn.db.execute("SELECT project, name, type FROM repos WHERE pk=?", (repo_pk,)).fetchone()
        raise AlreadyExists(
            f"commit {row['project']}/{row['name']}.{row['type']}@{id} already exists\ninconsistent dependencies: "
            f"cannot create commit from {row['project']}/{row['name']}@{id}; repo ({row['name']}) already has a commit "
            "in this transaction"
        )
    now, size = (txn.now, 0) if finished else (None, None)
    if finished and parent_pk is not None:
        raise ValueError("only a commit without a parent is born finished")
    state = pfs_pb2.FINISHED if finished else pfs_pb2.STARTED
    cursor = txn.db.execute(
        "INSERT INTO commits (repo_pk, id, branch, parent_pk, origin, state, description, started, finishing, finished,"
        " updated, size) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
        (repo_pk, id, branch, parent_pk, origin, state, description, txn.now, now, now, txn.now, size),
    )
    assert cursor.lastrowid is not None
    owners.commit_created(txn, cursor.lastrowid)
    return cursor.lastrowid


def run(txn: Txn) -> None:
    """Propagate what this transaction touched. Hooks may touch more: it goes on until nothing is left."""
    while txn.state.get("touched"):
        touched = list(txn.state.pop("touched"))
        forced = txn.state.pop("forced", {})
        made = [row for pk in _downstream(txn, touched) if (row := _advance(txn, pk, pk in forced)) is not None]
        if made:
            for hook in on_new_commits:
                hook(txn, made)


def _downstream(txn: Txn, touched: list[int]) -> list[int]:
    """The touched branches and all below them, upstream before downstream."""
    marks = ",".join("?" * len(touched))
    found = txn.db.execute(
        f"WITH RECURSIVE down (pk) AS (SELECT pk FROM branches WHERE pk IN ({marks}) UNION "
        "SELECT p.branch_pk FROM branch_provenance p JOIN down ON p.source_pk = down.pk WHERE NOT p.never) "
        "SELECT pk FROM down",
        touched,
    ).fetchall()
    todo = {row["pk"] for row in found}
    if len(todo) == 1:
        return list(todo)
    above: dict[int, set[int]] = {pk: set() for pk in todo}
    for row in txn.db.execute("SELECT branch_pk, source_pk FROM branch_provenance").fetchall():
        if row["branch_pk"] in todo and row["source_pk"] in todo:
            above[row["branch_pk"]].add(row["source_pk"])
    order: list[int] = []
    while above:
        free = sorted(pk for pk, sources in above.items() if not sources)
        order += free
        for pk in free:
            del above[pk]
        for sources in above.values():
            sources.difference_update(free)
    return order


def _advance(txn: Txn, pk: int, forced: bool) -> refs.CommitRow | None:
    """Give a branch with provenance a commit on the heads of its sources, unless it has that already."""
    sources = txn.db.execute(
        "SELECT b.head_pk, r.type FROM branch_provenance p JOIN branches b ON b.pk = p.source_pk "
        "JOIN repos r ON r.pk = b.repo_pk WHERE p.branch_pk=? ORDER BY p.position",
        (pk,),
    ).fetchall()
    if not sources:
        return None
    branch = txn.db.execute("SELECT * FROM branches WHERE pk=?", (pk,)).fetchone()
    if all(row["type"] == "spec" for row in sources) and branch["head_pk"] is not None:
        return None  # a spout: nothing but its own code makes commits
    heads = [row["head_pk"] for row in sources if row["head_pk"] is not None]
    if branch["head_pk"] is not None:
        head = refs.commit_row(txn, branch["head_pk"])
        has = txn.db.execute("SELECT source_pk FROM commit_provenance WHERE commit_pk=?", (head.pk,)).fetchall()
        if head.id == commit_set_id(txn) or (not forced and {row["source_pk"] for row in has} == set(heads)):
            return None
    made = make_commit(txn, branch["repo_pk"], branch["name"], pfs_pb2.AUTO, branch["head_pk"])
    txn.db.executemany(
        "INSERT OR IGNORE INTO commit_provenance (commit_pk, source_pk) VALUES (?,?)", [(made, head) for head in heads]
    )
    txn.db.execute("UPDATE branches SET head_pk=?, updated=? WHERE pk=?", (made, txn.now, pk))
    return refs.commit_row(txn, made)
