"""The bytes of a label file: Label Studio's export shape of one task, in one canonical form.

The same labels are always the same bytes, so an unchanged label is an unchanged file in the repository.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any


def label_path(prefix: str, item: str) -> str:
    """The label file of an item: `/cats/001.jpg` below prefix "" → `/cats/001.jpg.json`. Both canonical paths."""
    return f"{prefix}{item}.json"


def iso(moment: datetime | None) -> str | None:
    """A time as Label Studio's exports write it: ISO 8601 in UTC with a Z."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def encode(task: dict[str, Any]) -> str:
    """Sorted keys, no spaces, one newline at the end. Raises: ValueError for NaN, which JSON does not know."""
    return json.dumps(task, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


def digest(text: str) -> str:
    """32 hexadecimal digits that tell two label files apart (BLAKE2b, 128 bits)."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
