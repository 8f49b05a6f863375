"""Triggers: a branch that moves to another's head when enough has changed there."""

import re

from pachd.errors import NotFound, PachError
from pachd.pfs import propagate, refs
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Txn
from pachd.types import Branch

_SIZE = re.compile(r"([0-9.]+) ?([kKmMgGtTpP]?)([iI]?)[bB]?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str) -> int:
    """Return a size such as `3B`, `10K` or `1.5GiB` in bytes; decimal units unless they have an `i`."""
    match = _SIZE.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError(text)
        number = float(match[1])
    except ValueError as err:
        raise PachError(f"invalid trigger size: invalid size: '{text}'") from err
    return int(number * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()])


def check(txn: Snapshot, branch: Branch, trigger: pfs_pb2.Trigger) -> None:
    """Raise NotFound or PachError unless the trigger makes sense on the branch."""
    if trigger.size:
        parse_size(trigger.size)
    for kind, spec in (("cron", trigger.cron_spec), ("rate limit", trigger.rate_limit_spec)):
        fields = spec.split()
        if spec and not spec.startswith("@") and len(fields) != 5:
            raise PachError(f"invalid trigger {kind} spec: Expected exactly 5 fields, found {len(fields)}: {spec}")
    if refs.find_branch(txn, Branch(branch.repo, trigger.branch)) is None:
        raise NotFound(
            "create branch: update head: updating branch trigger: "
            f"branch (id=0, branch={branch.repo}@{trigger.branch}) not found"
        )
    seen, name = {branch.name}, trigger.branch
    while name:
        if name in seen:
            raise PachError("triggers cannot form a loop")
        seen.add(name)
        row = refs.find_branch(txn, Branch(branch.repo, name))
        name = pfs_pb2.Trigger.FromString(row["trigger"]).branch if row is not None and row["trigger"] else ""


def fire(txn: Txn, row: refs.CommitRow) -> None:
    """Move the branches whose trigger the finished commit `row` sets off, and those that follow them."""
    moved = {
        found["name"]
        for found in txn.db.execute("SELECT name FROM branches WHERE head_pk=?", (row.pk,)).fetchall()
        if found["name"] == row.branch
    }
    if row.error or not moved:
        return
    todo = list(moved)
    while todo:
        source = todo.pop(0)
        candidates = txn.db.execute(
            "SELECT * FROM branches WHERE repo_pk=? AND trigger IS NOT NULL", (row.repo_pk,)
        ).fetchall()
        for found in candidates:
            trigger = pfs_pb2.Trigger.FromString(found["trigger"])
            if trigger.branch == source and found["name"] not in moved and _due(txn, trigger, found["head_pk"], row):
                propagate.move_head(txn, found["pk"], row.pk)
                moved.add(found["name"])
                todo.append(found["name"])


def _due(txn: Snapshot, trigger: pfs_pb2.Trigger, old_pk: int | None, new: refs.CommitRow) -> bool:
    old = None if old_pk is None else refs.commit_row(txn, old_pk)
    results = []
    if trigger.size:
        results.append((new.size or 0) - ((old.size or 0) if old is not None else 0) >= parse_size(trigger.size))
    if trigger.commits:
        results.append(_count(txn, new, old) >= trigger.commits)
    if trigger.cron_spec or trigger.rate_limit_spec:
        results.append(False)  # time alone moves no branch in this version
    return bool(results) and (all(results) if trigger.all else any(results))


def _count(txn: Snapshot, new: refs.CommitRow, old: refs.CommitRow | None) -> int:
    """The commits since `old`, of users only."""
    count, current = 0, new
    while old is None or current.pk != old.pk:
        count += current.origin == pfs_pb2.USER
        above = refs.parent(txn, current)
        if above is None:
            break
        current = above
    return count
