"""What a job has to do: which datums run, which are kept from an earlier job, whose outputs go.

The base of a job is its nearest ancestor that succeeded.  What changed since is found from the difference of the input
commits where that is possible (`difference`).  Otherwise all datums are made anew and compared with what the base's
meta commit says.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pachd.errors import NotFound
from pachd.pfs import read, refs
from pachd.pps import datums, difference, jobs, meta
from pachd.pps.datums import Datum, Found
from pachd.proto import pfs_pb2, pps_pb2
from pachd.store import Snapshot
from pachd.types import Commit, Repo


class Base(NamedTuple):
    """The job that a new one builds on: its meta commit's row, and its own row when it was not deleted."""

    meta: Any
    job: sqlite3.Row | None


@dataclass
class Plan:
    """``todo`` must run; the outputs of ``gone`` (datum IDs) are deleted first; ``skipped`` others stay as they are."""

    total: int = 0
    skipped: int = 0
    todo: list[Datum] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    base: Base | None = None


def glob(txn: Snapshot, job: str = "") -> datums.Glob:
    """A lister of matches: in the commits that job ``job`` reads, or at the heads of the branches when it is empty."""

    def matches(leaf: pps_pb2.PFSInput) -> tuple[Commit, Iterable[Found]]:
        row = refs.resolve_commit(txn, (datums.repo_of(leaf), leaf.commit or job or leaf.branch or "master"))
        view = read.View.of(txn, row)
        return Commit(row.repo, row.id), (datums.found(entry) for entry in view.glob(leaf.glob))

    return matches


def find_base(txn: Snapshot, row: sqlite3.Row) -> Base | None:
    """The nearest ancestor of the job's meta commit without an error."""
    commit = refs.resolve_commit(txn, (Repo(row["project"], row["name"], "meta"), row["id"]))
    while True:
        if commit.parent_pk is None:
            return None
        parent = txn.db.execute("SELECT id FROM commits WHERE pk=?", (commit.parent_pk,)).fetchone()
        if parent is None:
            return None
        commit = refs.resolve_commit(txn, (commit.repo, parent["id"]))
        if commit.error or commit.state != pfs_pb2.FINISHED:
            continue
        job = pps_pb2.Job(id=commit.id)
        job.pipeline.name, job.pipeline.project.name = row["name"], row["project"]
        try:
            found = jobs.find(txn, job)
        except NotFound:
            return Base(commit, None)
        return Base(commit, found) if found["state"] == jobs.SUCCESS else Base(commit, None)


def make(txn: Snapshot, row: sqlite3.Row) -> Plan:
    """The plan of a job whose input commits are finished."""
    info = pps_pb2.PipelineInfo.FromString(row["info"])
    base = find_base(txn, row)
    again = info.details.reprocess_spec == "every_job" or info.details.s3_out
    if base is not None and not again:
        plan = _from_difference(txn, row, info, base)
        if plan is not None:
            return plan
    old = _known(txn, base) if base is not None else {}
    plan = Plan(base=base)
    has_input = info.details.HasField("input")  # without one there is nothing to do
    for datum in datums.create(info.details.input, glob(txn, row["id"])) if has_input else ():
        plan.total += 1
        before = old.pop(datum.id, None)
        if before is not None and not again and before == (datum.hash(info.details.salt), meta.PROCESSED):
            plan.skipped += 1
            continue
        if before is not None:
            plan.gone.append(datum.id)
        plan.todo.append(datum)
    plan.gone.extend(old)
    return plan


def _known(txn: Snapshot, base: Base) -> dict[str, tuple[str, str]]:
    """Every datum of the base: ID -> (hash, state)."""
    view = read.View.of(txn, base.meta)
    found = {}
    for entry in view.walk("/meta/") if _has(view, "/meta/") else ():
        if not entry.is_dir and entry.path.endswith("/meta"):
            found[entry.path.split("/")[2]] = meta.hash_and_state(b"".join(view.read(entry)))
    return found


def _has(view: Any, path: str) -> bool:
    try:
        view.inspect(path)
    except NotFound:
        return False
    return True


def _from_difference(txn: Snapshot, row: sqlite3.Row, info: pps_pb2.PipelineInfo, base: Base) -> Plan | None:
    """The plan by the difference of the input commits; None where that does not say it all."""
    if base.job is None or not info.details.HasField("input"):
        return None
    before = pps_pb2.PipelineInfo.FromString(base.job["info"])
    if before.details.input != info.details.input or before.details.salt != info.details.salt:
        return None
    if base.job["recovered"]:
        return None  # recovered datums run again, and only the meta commit knows them
    try:
        change = difference.affected(txn, info.details.input, base.job["id"], row["id"], base.job["total"])
    except difference.Unknown:
        return None
    known = read.View.of(txn, base.meta)
    new = {datum.id: datum for datum in change.new}
    plan = Plan(total=base.job["total"], base=base)
    for id in sorted({datum.id for datum in change.old} | set(new)):
        state = _recorded(known, id)
        if state is None:
            plan.total += id in new
        elif id not in new:
            plan.total -= 1
            plan.gone.append(id)
        elif state == (new[id].hash(info.details.salt), meta.PROCESSED):
            continue
        else:
            plan.gone.append(id)
        if id in new:
            plan.todo.append(new[id])
    plan.skipped = plan.total - len(plan.todo)
    return plan


def _recorded(view: Any, datum: str) -> tuple[str, str] | None:
    try:
        entry = view.inspect(meta.path(datum))
    except NotFound:
        return None
    return meta.hash_and_state(b"".join(view.read(entry)))
