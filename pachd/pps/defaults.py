"""Defaults of pipeline specs: the cluster's and each project's, as JSON documents that a client may replace."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format

from pachd.errors import InvalidArgument
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
    """What a user's spec is merged over, weakest first."""
    found = []
    for text in (cluster_json(txn), project_defaults(txn, project)):
        value = spec.canonical(json.loads(text), pps_pb2.ClusterDefaults.DESCRIPTOR)
        found.append(value.get("createPipelineRequest") or {})
    return found


def project_response(txn: Snapshot, project: str) -> pps_pb2.GetProjectDefaultsResponse:
    """A project's defaults with the time at which they were set."""
    found = pps_pb2.GetProjectDefaultsResponse(project_defaults_json=project_defaults(txn, project))
    row = txn.db.execute("SELECT created FROM pps_defaults WHERE scope=?", (f"project/{project}",)).fetchone()
    if row:
        found.created_at.FromNanoseconds(row["created"])
    return found


def replace_cluster(txn: Txn, text: str) -> None:
    """Set the cluster's defaults; InvalidArgument for malformed JSON or an unknown field."""
    if not text.strip():
        raise InvalidArgument("invalid cluster defaults JSON")
    _check(text)
    _set(txn, "cluster", text)


def replace_project(txn: Txn, project: str, text: str) -> None:
    """Set a project's defaults; errors as for the cluster's."""
    if not text.strip():
        raise InvalidArgument(f"could not merge project defaults {text} into cluster defaults {cluster_json(txn)}")
    _check(text)
    _set(txn, f"project/{project}", text)


def _check(text: str) -> None:
    value = spec.canonical(spec.parse_json(text), pps_pb2.ClusterDefaults.DESCRIPTOR)
    defaults = value.get("createPipelineRequest") or {}
    found = [name for name in ("pipeline", "update", "reprocess") if name in defaults]
    if found:
        raise InvalidArgument(f"defaults cannot set {found[0]}")
    try:
        json_format.ParseDict(defaults, pps_pb2.CreatePipelineRequest())
    except json_format.ParseError as error:
        raise InvalidArgument(f"malformed defaults: {error}") from None


def _set(txn: Txn, scope: str, text: str) -> None:
    txn.db.execute(
        "INSERT INTO pps_defaults VALUES (?,?,?) ON CONFLICT (scope) DO UPDATE SET json=excluded.json, "
        "created=excluded.created",
        (scope, text, txn.now),
    )
