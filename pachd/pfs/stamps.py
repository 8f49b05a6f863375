"""Times and metadata between rows and messages."""

import json

from google.protobuf.timestamp_pb2 import Timestamp


def stamp(ns: int) -> Timestamp:
    """Return a time as a message. Clients rely on fractions of a second that are not zero."""
    seconds, nanos = divmod(ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos or 1000)


def nanoseconds(message: Timestamp) -> int:
    """Return the time of a message in nanoseconds."""
    return message.seconds * 1_000_000_000 + message.nanos


def load(text: str) -> dict[str, str]:
    """Return the metadata in a column."""
    return dict(json.loads(text)) if text else {}


def dump(metadata: dict[str, str]) -> str:
    """Return what to store of metadata."""
    return json.dumps(metadata, sort_keys=True) if metadata else ""
