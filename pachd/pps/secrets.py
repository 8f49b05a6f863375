"""Secrets that pipelines use: Kubernetes Secret documents (JSON), kept in the store."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pachd.errors import NotFound, PachError
from pachd.pps import gojson
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
    txn.db.execute("INSERT INTO pps_secrets VALUES (?,?,?,?)", (name, type, txn.now, json.dumps(data)))


def _parse(document: bytes) -> tuple[str, str, str, dict[str, str]]:
    """Name, label `suite`, type and data (base64) of a Secret document. Raises ValueError with what is wrong."""
    value = gojson.field(gojson.loads(document), "value", dict, "v1.Secret")
    metadata = gojson.field(value.get("metadata"), "struct field Secret.metadata", dict, "v1.ObjectMeta")
    labels = gojson.field(metadata.get("labels"), "struct field ObjectMeta.metadata.labels", dict, "map[string]string")
    name = gojson.field(metadata.get("name"), "struct field ObjectMeta.metadata.name", str, "string")
    suite = gojson.field(labels.get("suite"), "struct field ObjectMeta.metadata.labels", str, "string")
    type = gojson.field(value.get("type"), "struct field Secret.type", str, "v1.SecretType")
    data: dict[str, str] = {}
    for key, text in gojson.field(value.get("data"), "struct field Secret.data", dict, "map[string][]uint8").items():
        coded = gojson.field(text, "struct field Secret.data", str, "[]uint8")
        data[key] = base64.b64encode(gojson.unbase64(coded)).decode()
    texts = gojson.field(value.get("stringData"), "struct field Secret.stringData", dict, "map[string]string")
    for key, text in texts.items():
        plain = gojson.field(text, "struct field Secret.stringData", str, "string")
        data[key] = base64.b64encode(plain.encode()).decode()
    return name, suite, type, data


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
