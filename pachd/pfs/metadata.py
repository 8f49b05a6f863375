"""Metadata: key-value pairs that users attach to the cluster, to projects, repos, branches, commits and pipelines."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pachd.errors import FailedPrecondition, PachError, PermissionDenied
from pachd.pfs import hooks, pickers, refs
from pachd.proto import metadata_pb2
from pachd.store import Snapshot, Txn
from pachd.types import Branch, Repo

_CLUSTER = "cluster_metadata"  # its key among the store's own settings


class Target(NamedTuple):
    """What an edit is about: how errors call it, its metadata, how to replace that, and what it is or belongs to."""

    name: str
    metadata: dict[str, str]
    save: Callable[[dict[str, str]], object]
    of: Repo | Branch | None = None


Check = Callable[[str, Repo | Branch | None], None]
"""Raises an error unless the metadata of such a target (its field of an Edit, and its `Target.of`) may be edited."""


def edit(txn: Txn, edits: Sequence[metadata_pb2.Edit], check: Check = lambda kind, of: None) -> None:
    """Apply edits in order, all or none.

    Raises PachError, with every edit that cannot be done and its number; PermissionDenied if one may not be done, else
    FailedPrecondition if a key is there already.
    """
    wrong = []
    for number, each in enumerate(edits):
        try:
            target = _target(txn, each)
            check(each.WhichOneof("target") or "", target.of)
            try:
                target.save(_apply(target.metadata, each))
            except PachError as err:
                raise err.wrapped(f"edit {target.name}") from err
        except PachError as err:
            wrong.append(f"edit #{number}: {err}")
    if wrong:
        text = "apply edits: " + "\n".join(wrong)
        if "is not authorized" in text:
            raise PermissionDenied(text)
        raise FailedPrecondition(text) if "already exists" in text else PachError(text)


def cluster(txn: Snapshot) -> dict[str, str]:
    """Return the metadata of the whole cluster."""
    row = txn.db.execute("SELECT value FROM meta WHERE key=?", (_CLUSTER,)).fetchone()
    return {} if row is None else refs.metadata(row["value"])


def _target(txn: Txn, each: metadata_pb2.Edit) -> Target:
    kind = each.WhichOneof("target")
    try:
        if kind == "project":
            name = pickers.pick_project(txn, each.project)
            return _row(txn, "projects", "name", name, f'project "{name}"')
        if kind == "repo":
            repo = pickers.pick_repo(txn, each.repo)
            key = f"{repo.project}/{repo.name}.{repo.type}"
            return _row(txn, "repos", "pk", refs.repo_row(txn, repo)["pk"], f'repo "{key}"', repo)
        if kind == "branch":
            branch = pickers.pick_branch(txn, each.branch)
            key = f"{branch.repo.project}/{branch.repo.name}.{branch.repo.type}@{branch.name}"
            return _row(txn, "branches", "pk", refs.branch_row(txn, branch)["pk"], f'branch "{key}"', branch)
        if kind == "commit":
            row = pickers.pick_commit(txn, each.commit)
            key = f"{row.repo.project}/{row.repo.name}.{row.repo.type}@{row.id}"
            return _row(txn, "commits", "pk", row.pk, f'commit "{key}"')
        if kind == "pipeline" and (pick := hooks.of(txn).pipeline) is not None:
            target: Target = pick(txn, each.pipeline)
            return target
    except PachError as err:
        raise err.wrapped(f"pick {kind}") from err
    if kind == "cluster":
        return Target("cluster metadata", cluster(txn), lambda new: _save_cluster(txn, new))
    raise PachError("unknown target <nil>" if kind is None else f"metadata of a {kind} is not kept by this pachd")


def _row(txn: Txn, table: str, column: str, key: Any, name: str, of: Repo | Branch | None = None) -> Target:
    row = txn.db.execute(f"SELECT metadata FROM {table} WHERE {column}=?", (key,)).fetchone()

    def save(new: dict[str, str]) -> None:
        text = json.dumps(new, sort_keys=True)
        txn.db.execute(f"UPDATE {table} SET metadata=? WHERE {column}=?", (text, key))

    return Target(name, refs.metadata(row["metadata"]), save, of)


def _save_cluster(txn: Txn, new: dict[str, str]) -> None:
    text = json.dumps(new, sort_keys=True)
    txn.db.execute(
        "INSERT INTO meta (key, value) VALUES (?,?) ON CONFLICT (key) DO UPDATE SET value=excluded.value",
        (_CLUSTER, text),
    )


def _apply(old: dict[str, str], each: metadata_pb2.Edit) -> dict[str, str]:
    kind = each.WhichOneof("op")
    new = dict(old)
    if kind == "replace":
        return dict(each.replace.replacement)
    if kind == "add_key":
        if each.add_key.key in new:
            raise PachError(f'add_key target key "{each.add_key.key}" already exists; use edit_key instead')
        new[each.add_key.key] = each.add_key.value
    elif kind == "edit_key":
        new[each.edit_key.key] = each.edit_key.value
    elif kind == "delete_key":
        new.pop(each.delete_key.key, None)
    return new
