"""The history of a path: which commits changed it."""

from collections.abc import Iterator
from typing import NamedTuple

from pachd.pfs import refs, steps
from pachd.pfs.diff import differs
from pachd.pfs.read import View
from pachd.store.store import Snapshot

_LINE = """
WITH RECURSIVE line (pk, parent_pk, root, finished) AS (
    SELECT pk, parent_pk, root, finished FROM commits WHERE pk = ?
    UNION ALL SELECT c.pk, c.parent_pk, c.root, c.finished FROM commits c JOIN line ON c.pk = line.parent_pk
)
SELECT line.pk, line.parent_pk, line.finished, coalesce(line.root, x'') AS root, coalesce(p.root, x'') AS base, s.paths,
    coalesce(p.error, '') != '' OR EXISTS (SELECT 1 FROM forgotten WHERE commit_pk = line.parent_pk) AS skipped,
    EXISTS (SELECT 1 FROM forgotten WHERE commit_pk = line.pk) AS forgotten,
    EXISTS (SELECT 1 FROM idle WHERE commit_pk = line.pk AND path = ?) AS idle
FROM line LEFT JOIN commits p ON p.pk = line.parent_pk
LEFT JOIN step s ON s.root = coalesce(line.root, x'') AND s.base = coalesce(p.root, x'')
"""


class Searched(NamedTuple):
    """A commit that was looked at: its number, whether it is finished, and whether it changed the path."""

    pk: int
    finished: bool
    changed: bool


def search(txn: Snapshot, start: int, path: str) -> Iterator[Searched]:
    """Go from the commit number `start` back through its ancestors and say of each whether it changed a file, wrote it
    again as it was, or deleted it where it was not.

    Only a file has a history, and only by its whole path: `/a/b`, neither `/a/` nor `a/b`. A forgotten commit changed
    nothing, as far as anybody knows.
    """
    for row in txn.db.execute(_LINE, (start, path)):
        if row["finished"] is None or row["forgotten"]:
            changed = False
        elif row["idle"]:
            changed = True
        elif row["skipped"]:  # it was not built on its parent, which failed; or what that was is forgotten
            changed = _compare(txn, row["pk"], _base(txn, row["parent_pk"]), path)
        elif row["root"] == row["base"]:
            changed = False
        elif row["paths"] is not None and not steps.can_differ(row["paths"], path):
            changed = False
        else:
            changed = _compare(txn, row["pk"], row["parent_pk"], path)
        yield Searched(row["pk"], row["finished"] is not None, changed)


def _base(txn: Snapshot, pk: int | None) -> int | None:
    """The nearest of a commit and its ancestors that did not fail and is not forgotten."""
    while pk is not None:
        row = txn.db.execute(
            "SELECT parent_pk, error, pk IN (SELECT commit_pk FROM forgotten) AS forgotten FROM commits WHERE pk=?",
            (pk,),
        ).fetchone()
        if not row["error"] and not row["forgotten"]:
            return pk
        pk = row["parent_pk"]
    return None


def _compare(txn: Snapshot, pk: int, parent_pk: int | None, path: str) -> bool:
    new = View.of(txn, refs.commit_row(txn, pk))
    old = None if parent_pk is None else View.of(txn, refs.commit_row(txn, parent_pk))
    return differs(new, old, path)
