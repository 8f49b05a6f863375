"""Where a pipeline's files are, and which items are held out."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELD_OUT_PERCENT = 20


def pfs() -> Path:
    """The root of inputs and output: `/pfs`, or what the environment variable PFS_ROOT says."""
    return Path(os.environ.get("PFS_ROOT", "/pfs"))


def out() -> Path:
    """The folder whose files become the output commit."""
    return pfs() / "out"


def files(root: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """All files below `root` that end in `suffix`, as (path below root without the suffix, path), sorted."""
    found = ((p.relative_to(root).as_posix(), p) for p in root.rglob("*" + suffix) if p.is_file())
    for name, path in sorted(found):
        yield name[: -len(suffix)], path


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is the same bytes for the same value; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n")


def held_out(item: str) -> bool:
    """Whether an item is only ever used to evaluate.

    The item's name alone decides, by its SHA-256: an item never changes sides, whoever labels it and whenever.
    """
    return int.from_bytes(hashlib.sha256(item.encode()).digest()[:8], "big") % 100 < HELD_OUT_PERCENT
