"""A small convolutional network for small gray images, and how it is kept in files."""

import io
from typing import Any

import numpy as np
import torch
from torch import nn

NAME = "small-cnn"


class SmallCNN(nn.Module):
    """Two 3×3 convolutions, pooling to 4×4, one hidden layer. Input (n, 1, side, side), output (n, classes) logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, classes)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.features(images)
        # average pooling to a fixed grid: any side from 4 upwards, and deterministic where the sides divide evenly
        step = found.shape[-1] // 4
        cut = found[..., : step * 4, : step * 4]
        return self.head(nn.functional.avg_pool2d(cut, step))


def settle(seed: int) -> None:
    """Make what follows give the same numbers every time.

    On a CPU one thread and one seed are enough; `torch.use_deterministic_algorithms` would add nothing but the four
    seconds that it needs to import torch's compiler.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)


def dump(model: SmallCNN) -> bytes:
    """The state_dict as `torch.save` writes it."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.getvalue()


def restore(data: bytes, card: dict[str, Any]) -> SmallCNN:
    """The model of a model file and its card; only tensors are read from the file, no code.

    :raises ValueError: the card is of another kind of model.
    """
    if card.get("model") != NAME:
        raise ValueError(f"the model is a {card.get('model')!r}, not a {NAME!r}")
    model = SmallCNN(len(card["classes"]))
    model.load_state_dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    return model.eval()


def predict(model: SmallCNN, card: dict[str, Any], images: np.ndarray) -> list[str]:
    """The class of each image."""
    if not len(images):
        return []
    if images.shape[-1] != card["image"]["side"]:
        raise ValueError(f"the model takes images of {card['image']['side']} pixels, these have {images.shape[-1]}")
    scaled = (torch.from_numpy(images) - card["image"]["mean"]) / card["image"]["std"]
    with torch.inference_mode():
        best = torch.cat([model(part).argmax(1) for part in scaled.split(1024)])
    return [card["classes"][i] for i in best.tolist()]
