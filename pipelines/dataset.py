"""The examples that `preprocess` wrote, as a table and an array."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipelines.layout import files

COLUMNS = ["item", "label", "held_out"]


def load(root: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Load all examples below the folder of the `preprocess` input.

    :return: a table with the columns item, label, held_out, sorted by item; and the images in the same order, float32
        of shape (examples, 1, side, side), 0 to 1.
    :raises SystemExit: images of several sizes.
    """
    rows, images = [], []
    for item, path in files(root / "examples", ".json"):
        rows.append(json.loads(path.read_bytes()))
        with Image.open(root / "images" / f"{item}.png") as image:
            images.append(np.asarray(image.convert("L"), dtype=np.float32) / 255)
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        raise SystemExit(f"the examples have images of several sizes: {sorted(sizes)}")
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"label": str, "held_out": bool})
    array = np.stack(images)[:, None] if images else np.zeros((0, 1, 0, 0), np.float32)
    return table, array


def conflicts(root: Path) -> int:
    """How many items could not become an example."""
    return sum(1 for _ in files(root / "conflicts", ".json"))
