"""Secrets that pipelines use: Kubernetes Secret documents (JSON), kept in the store."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pachd.errors import AlreadyExists, InvalidArgument, NotFound, PachError
from pachd.proto import pps_pb2
from pachd.store import Snapshot, Txn


def create_secret(txn: Txn, document: bytes) -> None:
    """Keep a Secret document: `metadata.name`, `type`, `data` (base64) or `stringData`."""
    try:
        value = json.loads(document)
    except ValueError as error:
        raise PachError(f"failed to unmarshal secret: {error}") from None
    name = value.get("metadata", {}).get("name", "") if isinstance(value, dict) else ""
    if not name:
        raise InvalidArgument("failed to create secret: metadata.name is missing")
    suite = (value["metadata"].get("labels") or {}).get("suite", "")
    if suite not in ("", "pachyderm"):
        raise PachError(f"invalid suite label set on secret: suite={suite}")
    data: dict[str, str] = dict(value.get("data") or {})
    for key, text in data.items():
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise InvalidArgument(f'failed to create secret "{name}": the value of "{key}" is not base64') from None
    for key, text in (value.get("stringData") or {}).items():
        data[key] = base64.b64encode(str(text).encode()).decode()
    if txn.db.execute("SELECT 1 FROM pps_secrets WHERE name=?", (name,)).fetchone():
        raise AlreadyExists(f'failed to create secret: secrets "{name}" already exists')
    txn.db.execute(
        "INSERT INTO pps_secrets VALUES (?,?,?,?)", (name, value.get("type") or "", txn.now, json.dumps(data))
    )


def _info(row: Any) -> pps_pb2.SecretInfo:
    created = Timestamp()
    created.FromNanoseconds(row["created"])
    return pps_pb2.SecretInfo(secret=pps_pb2.Secret(name=row["name"]), type=row["type"], creation_timestamp=created)


def inspect_secret(txn: Snapshot, name: str) -> pps_pb2.SecretInfo:
    """Name, type and time of a secret; never its content."""
    row = txn.db.execute("SELECT * FROM pps_secrets WHERE name=?", (name,)).fetchone()
    if row is None:
        raise PachError(f'failed to get secret: secrets "{name}" not found')
    return _info(row)


def list_secrets(txn: Snapshot) -> pps_pb2.SecretInfos:
    """All secrets by name."""
    return pps_pb2.SecretInfos(
        secret_info=[_info(r) for r in txn.db.execute("SELECT * FROM pps_secrets ORDER BY name")]
    )


def delete_secret(txn: Txn, name: str) -> None:
    """Forget a secret."""
    if not txn.db.execute("DELETE FROM pps_secrets WHERE name=?", (name,)).rowcount:
        raise PachError(f'failed to delete secret: secrets "{name}" not found')


def values(txn: Snapshot, name: str) -> dict[str, bytes]:
    """The decoded data of a secret; NotFound when there is none of that name."""
    row = txn.db.execute("SELECT data FROM pps_secrets WHERE name=?", (name,)).fetchone()
    if row is None:
        raise NotFound(f'missing Kubernetes secret: secrets "{name}" not found')
    return {key: base64.b64decode(text) for key, text in json.loads(row["data"]).items()}


def check(txn: Snapshot, transform: pps_pb2.Transform) -> None:
    """Whether there is what a spec says of its secrets; PachError."""
    for secret in transform.secrets:
        if secret.env_var and not secret.key:
            raise PachError(f"secret {secret.name} has env_var set but is missing key")
        try:
            data = values(txn, secret.name)
        except NotFound:
            raise PachError(f"missing Kubernetes secret {secret.name}") from None
        if secret.env_var and secret.key not in data:
            raise PachError(f"Kubernetes secret {secret.name} missing key {secret.key}")


def provide(txn: Snapshot, info: pps_pb2.PipelineInfo, env: dict[str, str], work: Path) -> list[tuple[str, str]]:
    """Put secrets into the environment; returns (file on disk, path in the sandbox) of those that are mounted."""
    mounts = []
    for number, secret in enumerate(info.details.transform.secrets):
        data = values(txn, secret.name)
        if secret.env_var:
            if secret.key not in data:
                raise PachError(f'the secret "{secret.name}" has no key "{secret.key}"')
            env[secret.env_var] = data[secret.key].decode(errors="replace")
        if secret.mount_path:
            folder = work / "secrets" / f"{info.pipeline.project.name}.{info.pipeline.name}.{number}"
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for key, value in data.items():
                if "/" not in key and key not in ("", ".", ".."):
                    (folder / key).write_bytes(value)
            mounts.append((str(folder), secret.mount_path))
    return mounts
