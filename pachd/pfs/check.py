"""Checking repos, branches and commits: that the graph they make is one that pachd can have made.

Every check yields sentences that name the object; a sound store yields none.
"""

import json
import sqlite3
from collections.abc import Iterator

from pachd.errors import PachError
from pachd.pfs import collect, refs
from pachd.proto import pfs_pb2, transaction_pb2
from pachd.store import Snapshot
from pachd.store.pages import Pages
from pachd.store.store import StoreError
from pachd.store.tree import Tree

_COMMIT = "p.project || '/' || p.name || CASE p.type WHEN 'user' THEN '' ELSE '.' || p.type END"
_STATES = (pfs_pb2.STARTED, pfs_pb2.READY, pfs_pb2.FINISHING, pfs_pb2.FINISHED)


def check(txn: Snapshot, rehash: bool = False) -> Iterator[str]:
    """What is wrong with repos, branches, commits, provenance, and with files as `collect.check` sees them.

    rehash: also read every byte and compare hashes.
    """
    yield from collect.check(txn, rehash)
    for part in _PARTS:
        try:
            yield from part(txn)
        except sqlite3.DatabaseError as err:
            yield f"database: {err}"
            return


def behind(txn: Snapshot) -> Iterator[str]:
    """Which branches are not made from the heads of their direct provenance, in Pachyderm's words: no damage, but what
    moving or dropping the head of such a branch leaves. Those of pipelines follow their specs in their own way."""
    for row in txn.db.execute(
        "SELECT b.pk, s.pk AS source FROM branch_provenance e JOIN branches b ON b.pk = e.branch_pk "
        "JOIN branches s ON s.pk = e.source_pk "
        "WHERE NOT EXISTS (SELECT 1 FROM commit_provenance WHERE commit_pk = b.head_pk AND source_pk = s.head_pk) "
        "AND NOT EXISTS (SELECT 1 FROM branch_provenance o JOIN branches a ON a.pk = o.source_pk "
        "JOIN repos r ON r.pk = a.repo_pk WHERE o.branch_pk = b.pk AND r.type != 'user') ORDER BY b.pk, e.position"
    ).fetchall():
        yield (
            f"consistency error: parent branch {refs.branch_of(txn, row['source'])} commit is not in direct provenance "
            f"of head of branch {refs.branch_of(txn, row['pk'])}"
        )


def _references(txn: Snapshot) -> Iterator[str]:
    for table, row, parent, _key in txn.db.execute("PRAGMA foreign_key_check").fetchall():
        which = f"row {row} of " if row is not None else "a row of "
        yield f"{which}table {table} refers to a row of table {parent} that does not exist"


def _names(txn: Snapshot) -> Iterator[str]:
    for table in ("projects", "repos", "branches"):
        for (name,) in txn.db.execute(f"SELECT name FROM {table}"):
            try:
                refs.check_name(name)
            except (PachError, TypeError):
                yield f"{table}: {name!r} is not a legal name"
        for name, text in txn.db.execute(f"SELECT name, metadata FROM {table}"):
            if not _is_metadata(text):
                yield f"{table}: the metadata of {name!r} is damaged"


def _is_metadata(text: object) -> bool:
    try:
        found = json.loads(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return isinstance(found, dict) and all(isinstance(value, str) for value in found.values())


def _commits(txn: Snapshot) -> Iterator[str]:
    for row in txn.db.execute(f"SELECT c.*, {_COMMIT} AS repo FROM commits c JOIN repos p ON p.pk = c.repo_pk"):
        name = f"commit {row['repo']}@{row['id']}"
        if not isinstance(row["id"], str) or not refs.is_id(row["id"]):
            yield f"{name}: its ID is not an ID"
        if row["state"] not in _STATES:
            yield f"{name}: {row['state']!r} is not a state"
            continue
        finished = row["state"] == pfs_pb2.FINISHED
        if finished != (row["finished"] is not None):
            yield f"{name}: is {'finished without' if finished else 'not finished but has'} a time at which it finished"
        if row["state"] == pfs_pb2.STARTED and row["finishing"] is not None:
            yield f"{name}: is open but has a time at which it began to finish"
        times = [row[name] for name in ("started", "finishing", "finished") if row[name] is not None]
        if not all(isinstance(time, int) and time > 0 for time in times) or times != sorted(times):
            yield f"{name}: its times are not in order"
        if not finished and row["root"] is not None:
            yield f"{name}: is not finished but has a tree of files"
        if not _is_metadata(row["metadata"]):
            yield f"{name}: its metadata is damaged"
    for row in txn.db.execute(
        f"SELECT DISTINCT c.id, {_COMMIT} AS repo FROM change h JOIN commits c ON c.pk = h.commit_pk "
        "JOIN repos p ON p.pk = c.repo_pk WHERE c.state=?",
        (pfs_pb2.FINISHED,),
    ):
        yield f"commit {row['repo']}@{row['id']}: is finished but has changes that are not in its files"


def _parents(txn: Snapshot) -> Iterator[str]:
    for row in txn.db.execute(
        f"SELECT c.id, c.pk, c.repo_pk, c.state, c.root, a.id AS above, a.pk AS above_pk, a.repo_pk AS above_repo, "
        f"a.state AS above_state, {_COMMIT} AS repo FROM commits c JOIN commits a ON a.pk = c.parent_pk "
        "JOIN repos p ON p.pk = c.repo_pk"
    ):
        name = f"commit {row['repo']}@{row['id']}: its parent {row['above']}"
        if row["repo_pk"] != row["above_repo"]:
            yield f"{name} is in another repo"
        if row["above_pk"] >= row["pk"]:
            yield f"{name} is not older than itself"
        if row["state"] == pfs_pb2.FINISHED and row["above_state"] != pfs_pb2.FINISHED:
            yield f"{name} is not finished, though it is"


def _sizes(txn: Snapshot) -> Iterator[str]:
    pages = Pages(txn)
    for row in txn.db.execute(
        f"SELECT c.id, c.root, c.size, {_COMMIT} AS repo FROM commits c JOIN repos p ON p.pk = c.repo_pk "
        "WHERE c.state=? AND c.error='' AND c.size IS NOT NULL "
        "AND NOT (c.root IS NULL AND c.pk IN (SELECT commit_pk FROM forgotten))",
        (pfs_pb2.FINISHED,),
    ):
        try:
            found = Tree(pages, row["root"]).total().size
        except StoreError:
            continue  # told already
        if found != row["size"]:
            yield f"commit {row['repo']}@{row['id']}: its files have {found} bytes, it says {row['size']}"


def _heads(txn: Snapshot) -> Iterator[str]:
    for row in txn.db.execute(
        f"SELECT b.name AS branch, b.repo_pk, b.trigger, c.id, c.repo_pk AS head_repo, {_COMMIT} AS repo "
        "FROM branches b JOIN repos p ON p.pk = b.repo_pk LEFT JOIN commits c ON c.pk = b.head_pk"
    ):
        name = f"branch {row['repo']}@{row['branch']}"
        if row["id"] is not None and row["head_repo"] != row["repo_pk"]:
            yield f"{name}: its head {row['id']} is a commit of another repo"
        if row["trigger"] is not None:
            try:
                pfs_pb2.Trigger.FromString(row["trigger"])
            except Exception:
                yield f"{name}: its trigger is damaged"


def _branch_provenance(txn: Snapshot) -> Iterator[str]:
    names: dict[int, str] = {}
    repos: dict[int, int] = {}
    for row in txn.db.execute(
        f"SELECT b.pk, b.name AS branch, b.repo_pk, {_COMMIT} AS repo FROM branches b JOIN repos p ON p.pk = b.repo_pk"
    ):
        names[row["pk"]], repos[row["pk"]] = f"{row['repo']}@{row['branch']}", row["repo_pk"]
    above: dict[int, set[int]] = {pk: set() for pk in names}
    for below, source in txn.db.execute("SELECT branch_pk, source_pk FROM branch_provenance"):
        if below in names and source in names:
            above[below].add(source)
            if repos[below] == repos[source]:
                yield f"branch {names[below]}: {names[source]} in its provenance is of the same repo"
    while ready := [pk for pk, sources in above.items() if not sources & above.keys()]:
        for pk in ready:
            del above[pk]
    for pk in sorted(above):
        if _reaches(above, pk):
            yield f"branch {names[pk]}: is in its own provenance"


def _reaches(above: dict[int, set[int]], pk: int) -> bool:
    seen: set[int] = set()
    todo = [pk]
    while todo:
        for source in above.get(todo.pop(), ()):
            if source == pk:
                return True
            if source not in seen:
                seen.add(source)
                todo.append(source)
    return False


def _commit_provenance(txn: Snapshot) -> Iterator[str]:
    """Sources are always made before what is made from them, so an edge the other way is the mark of every cycle."""
    for row in txn.db.execute(
        f"SELECT c.id, c.pk, c.repo_pk, s.id AS source, s.pk AS source_pk, s.repo_pk AS source_repo, {_COMMIT} AS repo "
        "FROM commit_provenance e JOIN commits c ON c.pk = e.commit_pk JOIN commits s ON s.pk = e.source_pk "
        "JOIN repos p ON p.pk = c.repo_pk"
    ):
        name = f"commit {row['repo']}@{row['id']}: {row['source']} in its provenance"
        if row["source_pk"] >= row["pk"]:
            yield f"{name} is not older than itself"
        if row["source_repo"] == row["repo_pk"]:
            yield f"{name} is of the same repo"


def _rest(txn: Snapshot) -> Iterator[str]:
    for row in txn.db.execute("SELECT id, info FROM transactions"):
        try:
            transaction_pb2.TransactionInfo.FromString(row["info"])
        except Exception:
            yield f"transaction {row['id']}: its list of requests is damaged"


_PARTS = (_references, _names, _commits, _parents, _sizes, _heads, _branch_provenance, _commit_provenance, _rest)
