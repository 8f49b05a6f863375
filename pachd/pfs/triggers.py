"""Triggers: a branch that moves to another's head when enough has changed there, or when it is time."""

import math
import re
import threading
from functools import partial
from typing import Any

from pachd.errors import NotFound, PachError
from pachd.pfs import propagate, refs, schedule
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Store, Txn
from pachd.types import Branch, Repo

_SIZE = re.compile(r"(.*[0-9.])([^0-9. ]*)|(.*) ([^0-9. ]*)", re.DOTALL)  # up to the last digit, point or space
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str) -> int:
    """Return a size such as `3B`, `10K` or `1.5 GiB` in bytes; decimal units even if they have an `i`, as Pachyderm."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise PachError(f"invalid trigger size: invalid size: '{text}'")
    number, suffix = (match[1], match[2]) if match[1] is not None else (match[3], match[4])
    wrong = "" if _FLOAT.fullmatch(number) else "invalid syntax"
    if wrong or math.isinf(float(number)):
        wrong = wrong or "value out of range"
        raise PachError(f'invalid trigger size: strconv.ParseFloat: parsing "{number}": {wrong}')
    if (size := float(number)) < 0:
        raise PachError(f"invalid trigger size: invalid size: '{text}'")
    unit = suffix.lower() if len(suffix) <= 3 else suffix
    if unit not in ("", "b"):
        if unit[0] not in _POWERS or unit[1:] not in ("", "b", "ib"):
            raise PachError(f"invalid trigger size: invalid suffix: '{unit}'")
        size *= 1000.0 ** _POWERS[unit[0]]
    return int(min(size, 2.0**63 - 1024))


def check(txn: Snapshot, branch: Branch, trigger: pfs_pb2.Trigger) -> None:
    """Raise PachError unless the trigger makes sense on the branch, which need not be there yet; NotFound without its
    repo."""
    if not trigger.branch:
        raise PachError("triggers must specify a branch to trigger on")
    refs.check_name(trigger.branch)
    _check_schedule("rate limit", trigger.rate_limit_spec)
    if trigger.size:
        parse_size(trigger.size)
    if trigger.commits < 0:
        raise PachError("can't trigger on a negative number of commits")
    _check_schedule("cron", trigger.cron_spec)
    refs.repo_row(txn, branch.repo)
    seen, name = {branch.name}, trigger.branch
    while name:
        if name in seen:
            raise PachError("triggers cannot form a loop")
        seen.add(name)
        row = refs.find_branch(txn, Branch(branch.repo, name))
        name = pfs_pb2.Trigger.FromString(row["trigger"]).branch if row is not None and row["trigger"] else ""


def _check_schedule(kind: str, spec: str) -> None:
    if spec:
        try:
            schedule.parse(spec)
        except PachError as err:
            raise err.wrapped(f"invalid trigger {kind} spec") from err


def connect(txn: Txn, branch: Branch, pk: int, trigger: pfs_pb2.Trigger) -> None:
    """Give a branch a trigger that `check` has found good. Raises NotFound if the branch to follow is not there."""
    if refs.find_branch(txn, Branch(branch.repo, trigger.branch)) is None:
        raise NotFound(
            "create branch: update head: updating branch trigger: "
            f"branch (id=0, branch={branch.repo}@{trigger.branch}) not found"
        )
    txn.db.execute("UPDATE branches SET trigger=? WHERE pk=?", (trigger.SerializeToString(), pk))
    if trigger.cron_spec:
        txn.after_commit(changed(txn.store).set)


def disconnect(txn: Txn, branch: Branch, force: bool) -> None:
    """Let go of a branch that will be deleted: nothing follows it any more.

    Raises PachError, unless `force`, if it follows another one, or is followed.
    """
    if not force:
        refuse_connected(txn, branch)
    for row in _followers(txn, branch):
        txn.db.execute("UPDATE branches SET trigger=NULL WHERE pk=?", (row["pk"],))


def refuse_connected(txn: Snapshot, branch: Branch) -> None:
    """Raise PachError if a branch is followed by others or follows one. (Pachyderm says "triggers" of the latter.)"""
    followers = _followers(txn, branch)
    if followers:
        names = " ".join(str(Branch(branch.repo, row["name"])) for row in followers)
        raise PachError(f'branch "{branch}" cannot be deleted because it is triggered by branches [{names}]')
    trigger = refs.find_branch(txn, branch)["trigger"]
    if trigger is not None:
        followed = Branch(branch.repo, pfs_pb2.Trigger.FromString(trigger).branch)
        raise PachError(f'branch "{branch}" cannot be deleted because it triggers branches [{followed}]')


def _followers(txn: Snapshot, branch: Branch) -> list[Any]:
    rows = txn.db.execute(
        "SELECT pk, name, trigger FROM branches WHERE repo_pk=? AND trigger IS NOT NULL ORDER BY pk",
        (refs.repo_row(txn, branch.repo)["pk"],),
    ).fetchall()
    return [row for row in rows if pfs_pb2.Trigger.FromString(row["trigger"]).branch == branch.name]


def changed(store: Store) -> threading.Event:
    """Return the event that is set when a trigger with a time was made."""
    event: threading.Event = store.shared.setdefault("triggers with a time changed", threading.Event())
    return event


def fire(txn: Txn, row: refs.CommitRow) -> None:
    """Have the finished commit `row` move, at the end of the transaction, the branches whose trigger it sets off.

    What is downstream of them gets commits of a set of its own. What has a cron spec moves by the clock alone, whatever
    else its trigger says.
    """
    if row.error or row.branch is None:
        return
    if txn.db.execute("SELECT 1 FROM branches WHERE repo_pk=? AND trigger IS NOT NULL", (row.repo_pk,)).fetchone():
        propagate.afterwards(txn, partial(_fire, pk=row.pk))


def _fire(txn: Txn, pk: int) -> None:
    try:
        row = refs.commit_row(txn, pk)
    except NotFound:  # deleted again, in the same transaction
        return
    if row.branch is None:
        return
    todo, seen = [row.branch], {row.branch}
    while todo:
        source = todo.pop(0)
        candidates = txn.db.execute(
            "SELECT * FROM branches WHERE repo_pk=? AND trigger IS NOT NULL ORDER BY pk", (row.repo_pk,)
        ).fetchall()
        for found in candidates:
            trigger = pfs_pb2.Trigger.FromString(found["trigger"])
            if trigger.branch != source or found["name"] in seen or trigger.cron_spec or found["head_pk"] == row.pk:
                continue
            if _due(txn, trigger, found["head_pk"], row):
                propagate.move_head(txn, found["pk"], row.pk)
                seen.add(found["name"])
                todo.append(found["name"])


def _due(txn: Snapshot, trigger: pfs_pb2.Trigger, old_pk: int | None, new: refs.CommitRow) -> bool:
    old = None if old_pk is None else refs.commit_row(txn, old_pk)
    results = []
    if trigger.size:
        results.append((new.size or 0) - ((old.size or 0) if old is not None else 0) >= parse_size(trigger.size))
    if trigger.rate_limit_spec:
        since = old.finishing if old is not None and old.finishing is not None else 0
        results.append(schedule.parse(trigger.rate_limit_spec)(since) < (new.finishing or 0))
    if trigger.commits:
        results.append(_count(txn, new, old, trigger.commits) >= trigger.commits)
    return all(results) if trigger.all else any(results)


def _count(txn: Snapshot, new: refs.CommitRow, old: refs.CommitRow | None, enough: int) -> int:
    """The commits since `old`, at most `enough`; the empty one that a branch began with is none.

    One that it began with and that a user made counts even if it is `old`, as in Pachyderm.
    """
    count, current = 0, new
    while count < enough:
        above = refs.parent(txn, current)
        if above is None:
            return count + (current.origin != pfs_pb2.AUTO)
        if old is not None and current.id == old.id:
            break
        count += 1
        current = above
    return count


def timed(txn: Snapshot) -> list[tuple[int, Branch, pfs_pb2.Trigger, int]]:
    """Return the branches that a clock moves: number, key, trigger, and when their head was started (ns)."""
    rows = txn.db.execute(
        "SELECT b.pk, b.name AS branch, b.trigger, r.project, r.name, r.type, c.started FROM branches b "
        "JOIN repos r ON r.pk = b.repo_pk LEFT JOIN commits c ON c.pk = b.head_pk WHERE b.trigger IS NOT NULL"
    ).fetchall()
    found = []
    for row in rows:
        trigger = pfs_pb2.Trigger.FromString(row["trigger"])
        if trigger.cron_spec:
            branch = Branch(Repo(row["project"], row["name"], row["type"]), row["branch"])
            found.append((row["pk"], branch, trigger, row["started"] or 0))
    return found


def tick(txn: Txn, pk: int, spec: str) -> bool:
    """Move a branch to the head of the one it follows, if its trigger still has this cron spec; returns whether so."""
    row = txn.db.execute("SELECT * FROM branches WHERE pk=?", (pk,)).fetchone()
    if row is None or row["trigger"] is None:
        return False
    trigger = pfs_pb2.Trigger.FromString(row["trigger"])
    branch = refs.branch_of(txn, pk)
    source = refs.find_branch(txn, Branch(branch.repo, trigger.branch))
    if trigger.cron_spec != spec or source is None or source["head_pk"] is None:
        return False
    propagate.move_head(txn, pk, source["head_pk"])
    return True
