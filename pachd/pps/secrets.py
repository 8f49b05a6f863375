"""Secrets that pipelines use: Kubernetes Secret documents (JSON), kept in the store."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pachd.errors import NotFound, PachError
from pachd.proto import pps_pb2
from pachd.store import Snapshot, Txn


def create_secret(txn: Txn, document: bytes) -> None:
    """Keep a Secret document: `metadata.name`, `type`, `data` (base64) or `stringData`.

    Raises PachError, as all errors of Kubernetes reach a client.
    """
    try:
        name, suite, type, data = _parse(document)
    except ValueError as error:
        raise PachError(f"failed to unmarshal secret: {error}") from None
    if suite not in ("", "pachyderm"):
        raise PachError(f"invalid suite label set on secret: suite={suite}")
    if not name:
        told = "metadata.name: Required value: name or generateName is required"
        raise PachError(f'failed to create secret: Secret "" is invalid: {told}')
    if txn.db.execute("SELECT 1 FROM pps_secrets WHERE name=?", (name,)).fetchone():
        raise PachError(f'failed to create secret: secrets "{name}" already exists')
    txn.db.execute(
        "INSERT INTO pps_secrets VALUES (?,?,?,?)", (name, type, txn.now, json.dumps(data))
    )


def _parse(document: bytes) -> tuple[str, str, str, dict[str, str]]:
    """Name, label `suite`, type and data (base64) of a Secret document. Raises ValueError with what is wrong."""
    if not document.strip():
        raise ValueError("unexpected end of JSON input")
    value = json.loads(document)
    if not isinstance(value, dict):
        raise ValueError("a secret is a JSON object")
    metadata = _object(value, "metadata")
    name, suite = metadata.get("name") or "", _object(metadata, "labels").get("suite") or ""
    for text, of in ((name, "metadata.name"), (suite, "metadata.labels"), (value.get("type") or "", "type")):
        if not isinstance(text, str):
            raise ValueError(f"{of} is no text")
    data: dict[str, str] = {}
    for key, text in _object(value, "data").items():
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise ValueError(f'illegal base64 data in the value of "{key}"') from None
        data[key] = text
    for key, text in _object(value, "stringData").items():
        data[key] = base64.b64encode(str(text).encode()).decode()
    return name, suite, value.get("type") or "", data


def _object(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{key} is no JSON object")
    return found


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


def delete_all(txn: Txn) -> None:
    """Forget all secrets."""
    txn.db.execute("DELETE FROM pps_secrets")


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
