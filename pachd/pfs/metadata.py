"""Metadata: key-value pairs that users attach to projects, repos, branches and commits."""

import json
from collections.abc import Sequence
from typing import Any

from pachd.errors import NotFound, PachError
from pachd.pfs import refs
from pachd.proto import metadata_pb2
from pachd.store import Txn


def edit(txn: Txn, edits: Sequence[metadata_pb2.Edit]) -> None:
    """Apply edits in order, all or none. Raises PachError, with the number of the edit that cannot be done."""
    for number, each in enumerate(edits):
        try:
            table, column, key, what = _target(txn, each)
            row = txn.db.execute(f"SELECT metadata FROM {table} WHERE {column}=?", (key,)).fetchone()
            if row is None:
                raise NotFound(f"{what} not found")
            new = _apply(refs.metadata(row["metadata"]), each)
        except PachError as err:
            raise PachError(f"apply edits: edit #{number}: {err}") from err
        text = json.dumps(new, sort_keys=True)
        txn.db.execute(f"UPDATE {table} SET metadata=? WHERE {column}=?", (text, key))


def _target(txn: Txn, each: metadata_pb2.Edit) -> tuple[str, str, Any, str]:
    kind = each.WhichOneof("target")
    try:
        if kind == "project":
            return "projects", "name", each.project.name, f'project "{each.project.name}"'
        if kind == "repo":
            repo = refs.pick_repo(txn, each.repo)
            return "repos", "pk", refs.repo_row(txn, repo)["pk"], f"repo {repo}"
        if kind == "branch":
            branch = refs.pick_branch(txn, each.branch)
            return "branches", "pk", refs.branch_row(txn, branch)["pk"], f"branch {branch}"
        if kind == "commit":
            row = refs.pick_commit(txn, each.commit)
            return "commits", "pk", row.pk, f"commit {row.key}"
    except PachError as err:
        raise err.wrapped(f"pick {kind}") from err
    raise PachError(f"metadata of a {kind} is not kept by this pachd" if kind else "no target given")


def _apply(old: dict[str, str], each: metadata_pb2.Edit) -> dict[str, str]:
    kind = each.WhichOneof("op")
    new = dict(old)
    if kind == "replace":
        return dict(each.replace.replacement)
    if kind == "add_key":
        if each.add_key.key in new:
            raise PachError(f'add key: key "{each.add_key.key}" already exists; use edit_key instead')
        new[each.add_key.key] = each.add_key.value
    elif kind == "edit_key":
        new[each.edit_key.key] = each.edit_key.value
    elif kind == "delete_key":
        new.pop(each.delete_key.key, None)
    else:
        raise PachError("no operation given")
    return new
