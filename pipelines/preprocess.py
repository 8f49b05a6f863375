"""preprocess: one example per labelled image, and a list of what could not become one.

Reads `/pfs/images/<item>` and `/pfs/labels/<item>.json`; writes, per item,
`/pfs/out/examples/<item>.json` and `/pfs/out/images/<item>.png` (gray, square, IMAGE_SIDE pixels), or else
`/pfs/out/conflicts/<item>.json` with the reason. A datum is normally one item, and the code takes a folder of them too.
"""

import json
import os
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from pipelines.answers import resolve
from pipelines.command import options
from pipelines.layout import files, held_out, out, pfs, write_json
from pipelines.worker import each_datum

SIDE = 28
MAX_PIXELS = 100_000_000


def preprocess() -> None:
    """Turn every pair of image and label in `/pfs` into an example or a conflict."""
    images, labels = pfs() / "images", pfs() / "labels"
    side = int(os.environ.get("IMAGE_SIDE", SIDE))
    for item, label in files(labels, ".json"):
        image = images / item
        if image.is_file():
            one_item(item, image, label, side)


def one_item(item: str, image: Path, label: Path, side: int) -> None:
    """Write the example of one item, or its conflict."""
    try:
        resolution = resolve(json.loads(label.read_bytes()))
    except ValueError as e:
        return _conflict(item, "label", f"the label file is not JSON: {e}", {})
    if resolution.label is None:
        return _conflict(item, "label", str(resolution.reason), resolution.votes)
    try:
        normal, size = normalise(image, side)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        return _conflict(item, "image", f"the image does not decode: {e}".replace(str(image), item), resolution.votes)
    path = out() / "images" / f"{item}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    normal.save(path, "PNG")
    example = {
        "item": item,
        "label": resolution.label,
        "votes": resolution.votes,
        "annotators": resolution.annotators,
        "held_out": held_out(item),
        "original_size": list(size),
    }
    write_json(out() / "examples" / f"{item}.json", example)


def normalise(path: Path, side: int) -> tuple[Image.Image, tuple[int, int]]:
    """Decode an image completely and bring it to `side` × `side` gray pixels, upright.

    :return: the image and the width and height it had.
    :raises OSError, ValueError, SyntaxError: it is broken, cut short or no image.
    """
    with Image.open(path) as image:
        size = image.size
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"{size[0]} × {size[1]} pixels are more than {MAX_PIXELS:,}")
        gray = ImageOps.exif_transpose(image).convert("L")
    return (gray if gray.size == (side, side) else gray.resize((side, side), Image.Resampling.LANCZOS)), size


def _conflict(item: str, kind: str, reason: str, votes: dict[str, int]) -> None:
    conflict: dict[str, Any] = {"item": item, "kind": kind, "reason": reason, "votes": votes}
    write_json(out() / "conflicts" / f"{item}.json", conflict)
    print(f"conflict: {item}: {reason}")


if __name__ == "__main__":
    if options(__doc__, batch="ask the worker for datum after datum (transform.datumBatching)").batch:
        each_datum(preprocess)
    else:
        preprocess()
