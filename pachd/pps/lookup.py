"""Finding pipelines by their names, which may name an earlier version: `edges^`, `edges~2` is that of two updates ago.

Source: the grammar of Pachyderm's ancestry references, which is not the one of its commits.
"""

from __future__ import annotations

import re
import sqlite3

from pachd.errors import NotFound, PachError
from pachd.pfs import refs
from pachd.proto import pfs_pb2, pps_pb2
from pachd.store import Snapshot
from pachd.types import Repo

# a pipeline's row with one of its versions
SELECT = """SELECT p.*, v.info, v.spec_commit, v.updated, v.version AS shown FROM pps_pipelines p
    JOIN pps_versions v ON v.pipeline = p.pk """
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


def parse(text: str) -> tuple[str, int]:
    """Return the name of a pipeline, and how many versions to go back from its current one.

    Raises PachError for what means nothing, and for a version to come (`edges.2`).
    """
    at = next((i for i, char in enumerate(text) if char in "^~."), None)
    if at is None:
        return text, 0
    name, mark, rest = text[:at], text[at], text[at + 1 :]
    if _NUMBER.fullmatch(rest):
        back = int(rest)
    else:
        other = next((char for char in rest if char != mark), None)
        if other is not None:
            raise PachError(f'invalid ancestry syntax "{text}", cannot mix {mark} and {other} characters')
        back = len(text) - at
    if mark == ".":
        back = -back
    if back < 0:
        raise PachError("cannot inspect future pipelines")
    return name, back


def find(txn: Snapshot, pipeline: pps_pb2.Pipeline) -> sqlite3.Row:
    """The row of a pipeline's current version, or, for `NAME^` or `NAME~2`, of an earlier one.

    Raises NotFound in Pachyderm's words, and PachError when there are not so many versions.
    """
    project = pipeline.project.name or "default"
    of, back = parse(pipeline.name)
    name = f"{project}/{of}"
    pk = txn.db.execute("SELECT pk, version FROM pps_pipelines WHERE project=? AND name=?", (project, of)).fetchone()
    if pk is None:
        raise _missing(txn, project, of)
    version = pk["version"] - back
    if version < 1:
        raise PachError(f'pipeline "{name}" has only {pk["version"]} versions, not enough to find ancestor {back}')
    row: sqlite3.Row = txn.db.execute(SELECT + "WHERE p.pk=? AND v.version=?", (pk["pk"], version)).fetchone()
    return row


def told(pipeline: pps_pb2.Pipeline) -> str:
    """A pipeline as errors name it: without the version, if it was named with one that makes sense."""
    name = pipeline.name
    try:
        name = parse(name)[0]
    except PachError:
        pass
    return f"{pipeline.project.name or 'default'}/{name}"


def _missing(txn: Snapshot, project: str, name: str) -> PachError:
    """What is said of a pipeline that is not there: first of all that its spec is not."""
    spec_repo = refs.repo_pb(Repo(project, name, "spec"))
    told = f'pipeline "{project}/{name}" not found'
    where = f'pipeline was not inspected: couldn\'t find up to date spec for pipeline "{project}/{name}"'
    try:
        refs.resolve_commit(txn, pfs_pb2.Commit(repo=spec_repo, branch=pfs_pb2.Branch(repo=spec_repo, name="master")))
    except NotFound as error:
        if not str(error).startswith("pick commit tx: commit "):  # it is the project that is missing
            return error.wrapped(where)
        return NotFound(f"{where}: {error}\n{told}")
    except PachError as error:
        return error.wrapped(where)
    return NotFound(told)
