"""Propagation: at the end of a transaction every branch downstream of one that moved gets one open AUTO commit.

All commits of a transaction share one ID, the commit set's; a repo takes part with one commit at most, and so only one
branch of a repo may be among branches that are connected with each other.
"""

import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pachd.auth import owners
from pachd.errors import AlreadyExists, PachError
from pachd.pfs import hooks, refs
from pachd.proto import pfs_pb2
from pachd.store import Store, Txn
from pachd.types import Repo


@contextmanager
def writing(store: Store, wait: bool = True) -> Iterator[Txn]:
    """`with writing(store) as txn:` — a writing transaction that propagates before it commits.

    wait: for others who write, see `Store.write`.
    """
    with store.write(wait=wait) as txn:
        yield txn
        _settle(txn)


def _settle(txn: Txn) -> None:
    run(txn)
    while todo := txn.state.get("afterwards"):
        txn.state.pop("commit set", None)
        todo.pop(0)(txn)
        run(txn)


def afterwards(txn: Txn, fn: Callable[[Txn], None]) -> None:
    """Have `fn(txn)` called at the end of the transaction: it makes commits of another set, but of the same write."""
    txn.state.setdefault("afterwards", []).append(fn)


def forget(txn: Txn) -> None:
    """Forget what would have to be done at the end of the transaction, because what led to it was undone."""
    for key in ("touched", "forced", "connected", "made", "afterwards", "commit set"):
        txn.state.pop(key, None)


def writing_together(store: Store, steps: Sequence[Callable[[Txn], Any]]) -> list[Any]:
    """Carry out several writes in one transaction and return what each returned, or the exception that undid it.

    Each is a transaction of its own to everybody but the disk: with its own time, its own commit set, its own
    propagation. Raises what ends the transaction as a whole: then none has happened.
    """
    results: list[Any] = []
    with store.write() as txn:
        quiet = True
        for step in steps:
            txn.begin_part()
            try:
                with txn.savepoint():
                    result = step(txn)
                    _settle(txn)
            except Exception as error:
                if not txn.db.in_transaction:  # the disk failed: what the others wrote is gone too
                    raise
                result = error
            else:
                quiet = quiet and txn.quiet
            results.append(result)
        txn.quiet = quiet
    return results


def commit_set_id(txn: Txn) -> str:
    """Return the ID that all commits of this transaction share."""
    id: str = txn.state.setdefault("commit set", uuid.uuid4().hex)
    return id


def touch(txn: Txn, branch_pk: int) -> None:
    """Note that a branch was moved: what is below it gets a commit, even if it has one on this very head."""
    txn.state.setdefault("touched", {})[branch_pk] = True


def is_touched(txn: Txn, branch_pk: int) -> bool:
    """Whether a branch was moved in this transaction, and what is below it has not been made yet."""
    return branch_pk in txn.state.get("touched", ())


def force(txn: Txn, branch_pk: int) -> None:
    """Note that a branch gets a commit itself, not only what is below it."""
    txn.state.setdefault("forced", {})[branch_pk] = True
    touch(txn, branch_pk)


def connected(txn: Txn, branch_pk: int) -> None:
    """Note that a branch was connected anew: whether that may be is looked at in the end."""
    txn.state.setdefault("connected", {})[branch_pk] = True


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


def make_empty(txn: Txn, branch_pk: int) -> int:
    """Make an empty AUTO commit without a parent for a branch and return its number: finished, or open and on the heads
    of its provenance if it has any."""
    branch = txn.db.execute("SELECT repo_pk, name FROM branches WHERE pk=?", (branch_pk,)).fetchone()
    rows = txn.db.execute("SELECT source_pk FROM branch_provenance WHERE branch_pk=?", (branch_pk,)).fetchall()
    return make_auto(txn, branch["repo_pk"], branch["name"], [row["source_pk"] for row in rows], None)


def make_auto(txn: Txn, repo_pk: int, branch: str, sources: Sequence[int], parent_pk: int | None) -> int:
    """Make an AUTO commit and return its number: open on the heads that the branches `sources` have now, or finished
    and empty if there are none."""
    made = make_commit(txn, repo_pk, branch, pfs_pb2.AUTO, parent_pk, finished=not sources)
    txn.db.executemany(
        "INSERT OR IGNORE INTO commit_provenance (commit_pk, source_pk) "
        "SELECT ?, head_pk FROM branches WHERE pk=? AND head_pk IS NOT NULL",
        [(made, source) for source in sources],
    )
    if sources:
        txn.state.setdefault("made", []).append(made)
    return made


def run(txn: Txn) -> None:
    """Propagate what this transaction touched. Hooks may touch more: it goes on until nothing is left."""
    while txn.state.get("touched") or txn.state.get("made"):
        touched = list(txn.state.pop("touched", ()))
        others = [row for pk in txn.state.pop("made", ()) for row in refs.commit_rows(txn, "c.pk=?", (pk,))]
        forced = txn.state.pop("forced", {})
        for pk in {**txn.state.pop("connected", {}), **forced}:  # nothing else connects branches
            _validate(txn, pk)
        below, order = _downstream(txn, touched)
        made = [row for pk in order if (pk in forced or pk in below) and (row := _advance(txn, pk)) is not None]
        told = hooks.of(txn).new_commits
        if told is not None and (others or made):
            told(txn, [*others, *made])


def _validate(txn: Txn, pk: int) -> None:
    """Raise PachError if two branches of a repo are connected with a branch, whichever way the connections go."""
    found = txn.db.execute(
        "WITH RECURSIVE linked (pk) AS (SELECT ? "
        "UNION SELECT p.source_pk FROM branch_provenance p JOIN linked ON p.branch_pk = linked.pk "
        "UNION SELECT p.branch_pk FROM branch_provenance p JOIN linked ON p.source_pk = linked.pk) "
        "SELECT r.project, r.name, r.type FROM linked JOIN branches b ON b.pk = linked.pk "
        "JOIN repos r ON r.pk = b.repo_pk GROUP BY r.pk HAVING count(*) > 1 ORDER BY r.pk LIMIT 1",
        (pk,),
    ).fetchone()
    if found is not None:
        repo = Repo(found["project"], found["name"], found["type"])
        raise PachError(
            f'validate DAG at end of transaction: multiple branches from the same repo, "{repo}", '
            "cannot participate in a DAG"
        )


def _downstream(txn: Txn, touched: list[int]) -> tuple[set[int], list[int]]:
    """The branches below the touched ones; and with the touched ones, upstream before downstream."""
    marks = ",".join("?" * len(touched))
    found = txn.db.execute(
        f"WITH RECURSIVE down (pk) AS (SELECT branch_pk FROM branch_provenance WHERE source_pk IN ({marks}) "
        "AND NOT never UNION SELECT p.branch_pk FROM branch_provenance p JOIN down ON p.source_pk = down.pk "
        "WHERE NOT p.never) SELECT pk FROM down",
        touched,
    ).fetchall()
    below = {row["pk"] for row in found}
    todo = below.union(touched)
    if len(todo) == 1:
        return below, list(todo)
    return below, upstream_first(txn, todo)


def upstream_first(txn: Txn, branches: Collection[int]) -> list[int]:
    """Order branches, given by their numbers, such that none comes before one that it is made from."""
    above: dict[int, set[int]] = {pk: set() for pk in branches}
    for row in txn.db.execute("SELECT branch_pk, source_pk FROM branch_provenance").fetchall():
        if row["branch_pk"] in above and row["source_pk"] in above:
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


def _advance(txn: Txn, pk: int) -> refs.CommitRow | None:
    """Give a branch with provenance a commit on the heads of its sources, unless it has one of this transaction."""
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
    if branch["head_pk"] is not None and refs.commit_row(txn, branch["head_pk"]).id == commit_set_id(txn):
        return None
    made = make_commit(txn, branch["repo_pk"], branch["name"], pfs_pb2.AUTO, branch["head_pk"])
    txn.db.executemany(
        "INSERT OR IGNORE INTO commit_provenance (commit_pk, source_pk) VALUES (?,?)", [(made, head) for head in heads]
    )
    txn.db.execute("UPDATE branches SET head_pk=?, updated=? WHERE pk=?", (made, txn.now, pk))
    return refs.commit_row(txn, made)
