"""Defaults of pipeline specs: the cluster's and each project's, as JSON documents that a client may replace."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format

from pachd.auth import owners
from pachd.errors import InvalidArgument, NotFound, PachError
from pachd.pfs import projects
from pachd.pps import spec
from pachd.proto import pps_pb2
from pachd.store import Snapshot, Txn

_BUILT_IN = {"createPipelineRequest": spec.CLUSTER}


def _get(txn: Snapshot, scope: str) -> str | None:
    row = txn.db.execute("SELECT json FROM pps_defaults WHERE scope=?", (scope,)).fetchone()
    return row["json"] if row else None


def cluster_json(txn: Snapshot) -> str:
    """The cluster's defaults as JSON text."""
    return _get(txn, "cluster") or json.dumps(_BUILT_IN, separators=(",", ":"))


def project_defaults(txn: Snapshot, project: str) -> str:
    """A project's defaults as JSON text, `{}` when none were set."""
    return _get(txn, f"project/{project}") or "{}"


def layers(txn: Snapshot, project: str) -> list[dict[str, Any]]:
    """What a user's spec is merged over, weakest first. NotFound when there is no such project."""
    try:
        projects.inspect_project(txn, project)
    except NotFound as error:
        told = f"could not get defaults for project {project}"  # which two layers of Pachyderm add
        raise NotFound(f"{told}: {told}: {error}") from None
    return [_layer(text) for text in (cluster_json(txn), project_defaults(txn, project))]


def project_response(txn: Snapshot, project: str) -> pps_pb2.GetProjectDefaultsResponse:
    """A project's defaults with the time at which they were set, and who did it. NotFound."""
    projects.inspect_project(txn, project)
    found = pps_pb2.GetProjectDefaultsResponse(project_defaults_json=project_defaults(txn, project))
    row = txn.db.execute(
        "SELECT d.created, b.user FROM pps_defaults d LEFT JOIN pps_defaults_by b USING (scope) WHERE scope=?",
        (f"project/{project}",),
    ).fetchone()
    if row:
        found.created_at.FromNanoseconds(row["created"])
        found.created_by = row["user"] or ""
    return found


def replace_cluster(txn: Txn, text: str) -> None:
    """Set the cluster's defaults; InvalidArgument for malformed JSON, an unknown field or what no spec may say."""
    try:
        layer = _layer(text)
    except PachError as error:
        raise InvalidArgument(_because("invalid cluster defaults JSON", text, error)) from None
    try:
        spec.effective({}, layer)
    except PachError as error:
        told = json.dumps({"createPipelineRequest": spec.BUILT_IN}, separators=(",", ":"))
        merging = f"could not merge cluster defaults {text} into built-in defaults {told}"
        raise InvalidArgument(_because(merging, text, error)) from None
    _set(txn, "cluster", text)


def replace_project(txn: Txn, project: str, text: str) -> None:
    """Set a project's defaults; errors as for the cluster's."""
    cluster = cluster_json(txn)
    try:
        spec.effective({}, _layer(cluster), _layer(text))
    except PachError as error:
        merging = f"could not merge project defaults {text} into cluster defaults {cluster}"
        raise InvalidArgument(_because(merging, text, error)) from None
    _set(txn, f"project/{project}", text)


def _because(what: str, text: str, error: PachError) -> str:
    """What Pachyderm says, with the reason, which it sends apart, unless there is no text that could be wrong."""
    return f"{what}: {error}" if text.strip() else what


def _layer(text: str) -> dict[str, Any]:
    """The defaults that a JSON document has for pipeline specs."""
    value = spec.canonical(spec.parse_json(text), pps_pb2.ClusterDefaults.DESCRIPTOR)
    found: dict[str, Any] = value.get("createPipelineRequest") or {}
    try:
        json_format.ParseDict(found, pps_pb2.CreatePipelineRequest())
    except (RecursionError, json_format.ParseError) as error:
        raise InvalidArgument(f"malformed defaults: {error}") from None
    return found


def _set(txn: Txn, scope: str, text: str) -> None:
    txn.db.execute(
        "INSERT INTO pps_defaults VALUES (?,?,?) ON CONFLICT (scope) DO UPDATE SET json=excluded.json, "
        "created=excluded.created",
        (scope, text, txn.now),
    )
    txn.db.execute("REPLACE INTO pps_defaults_by VALUES (?,?)", (scope, owners.principal(txn)))
