"""train: a classifier from the examples that are not held out.

Reads `/pfs/preprocess`; writes `/pfs/out/model.pt` (a state_dict) and `/pfs/out/card.json`, which says what the model
was made of. The same examples and settings give the same model.
"""

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines import model as models
from pipelines.command import options
from pipelines.dataset import conflicts, load
from pipelines.layout import out, pfs, write_json

HYPER_PARAMETERS = {
    "epochs": 20,
    "batch_size": 32,
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "seed": 7,
}


def train() -> None:
    """Train on everything in `/pfs/preprocess` that is not held out.

    :raises SystemExit: there is nothing to train on; the message says what is missing.
    """
    root = pfs() / "preprocess"
    table, images = load(root)
    known = table[~table.held_out]
    classes = sorted(known.label.unique())
    if len(classes) < 2:
        raise SystemExit(
            f"{len(known)} examples of {len(classes)} class(es) to train on: label images of at least two classes "
            f"({int(table.held_out.sum())} more are held out, {conflicts(root)} are conflicts)"
        )
    if images.shape[-1] < 4:
        raise SystemExit(f"images of {images.shape[-1]} pixels are too small: set IMAGE_SIDE to 4 or more")
    settings = hyper_parameters()
    pixels = images[(~table.held_out).to_numpy()]
    mean, std = float(pixels.mean()), float(pixels.std()) or 1.0
    targets = known.label.map(classes.index).to_numpy()
    fitted = fit((pixels - mean) / std, targets, len(classes), settings)
    card: dict[str, Any] = {
        "model": models.NAME,
        "classes": classes,
        "image": {"side": images.shape[-1], "channels": 1, "mean": mean, "std": std},
        "data": {name[: -len("_COMMIT")]: os.environ[name] for name in sorted(os.environ) if _is_input_commit(name)},
        "job": os.environ.get("PACH_JOB_ID"),
        "code": code_version(),
        "hyper_parameters": settings,
        "counts": {
            "examples": len(table),
            "trained": len(known),
            "held_out": int(table.held_out.sum()),
            "conflicts": conflicts(root),
            "per_class": {str(name): int(n) for name, n in known.label.value_counts().sort_index().items()},
        },
    }
    out().mkdir(parents=True, exist_ok=True)
    (out() / "model.pt").write_bytes(models.dump(fitted))
    write_json(out() / "card.json", card)
    print(f"trained on {len(known)} examples of {len(classes)} classes")


def fit(images: np.ndarray, targets: np.ndarray, classes: int, settings: dict[str, Any]) -> models.SmallCNN:
    """Fit a network.

    :param images: float32 (n, 1, side, side), standardised.
    :param targets: int (n,), 0 to classes - 1.
    """
    models.settle(int(settings["seed"]))
    model = models.SmallCNN(classes)
    x, y = torch.tensor(images, dtype=torch.float32), torch.tensor(targets, dtype=torch.long)
    steps = -(-len(x) // settings["batch_size"]) * settings["epochs"]
    # annotators err now and then: smoothed targets keep single wrong labels from pulling too hard
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    # Gradient descent with Nesterov's momentum, written out: the first use of an optimiser of torch.optim imports
    # torch's compiler, which takes longer than this whole training.
    weights = list(model.parameters())
    speeds = [torch.zeros_like(weight) for weight in weights]
    momentum, step = settings["momentum"], 0
    model.train()
    for _ in range(settings["epochs"]):
        for chosen in torch.randperm(len(x)).split(settings["batch_size"]):
            slopes = torch.autograd.grad(loss(model(x[chosen]), y[chosen]), weights)
            rate = settings["learning_rate"] * one_cycle(step / steps)
            step += 1
            with torch.no_grad():
                for weight, speed, slope in zip(weights, speeds, slopes, strict=True):
                    slope = slope.add(weight, alpha=settings["weight_decay"])
                    speed.mul_(momentum).add_(slope)
                    weight.sub_(slope.add(speed, alpha=momentum), alpha=rate)
    return model.eval()


def one_cycle(done: float) -> float:
    """The learning rate as a share of its maximum, when `done` (0 to 1) of the steps are: up quickly, down slowly."""
    return min(done / 0.2 + 0.04, 1.0) if done < 0.2 else (1 + math.cos(math.pi * (done - 0.2) / 0.8)) / 2


def hyper_parameters() -> dict[str, Any]:
    """The defaults, or what the environment says (EPOCHS, LEARNING_RATE, …)."""
    return {name: type(value)(os.environ.get(name.upper(), value)) for name, value in HYPER_PARAMETERS.items()}


def code_version() -> dict[str, str]:
    """What code made the model: a hash over this package's sources, and the versions of what does the arithmetic."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return {"pipelines_sha256": digest.hexdigest(), "torch": torch.__version__, "numpy": np.__version__}


def _is_input_commit(name: str) -> bool:
    return name.endswith("_COMMIT") and name not in ("PPS_SPEC_COMMIT",)


if __name__ == "__main__":
    options(__doc__)
    train()
