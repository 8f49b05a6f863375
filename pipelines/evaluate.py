"""evaluate: how good a model is on the items that no model was ever trained on.

Reads `/pfs/preprocess` (the held-out examples) and `/pfs/train` (the model); writes `/pfs/out/metrics.json`,
`/pfs/out/confusion.json`, `/pfs/out/confusion.png` and `/pfs/out/predictions.json` (every held-out item with its label
and the model's answer). The model before this one, read from the parent of the `train` commit, is asked the same items.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as scores

from pipelines import model as models
from pipelines.command import options
from pipelines.dataset import load
from pipelines.layout import out, pfs, write_json
from pipelines.worker import read_file


def evaluate() -> None:
    """Evaluate the model in `/pfs/train` on the held-out examples in `/pfs/preprocess`."""
    models.settle(0)
    table, images = load(pfs() / "preprocess")
    images = images[table.held_out.to_numpy()]
    table = table[table.held_out].reset_index(drop=True)
    card = json.loads((pfs() / "train" / "card.json").read_bytes())
    model = models.restore((pfs() / "train" / "model.pt").read_bytes(), card)
    table["predicted"] = models.predict(model, card, images)

    result = measure(table)
    result["trained_on"] = card["counts"]["trained"]
    result["data"] = {name: os.environ.get(f"{name}_COMMIT") for name in ("preprocess", "train")}
    result["previous"] = previous(table, images)
    before = result["previous"].get("accuracy")
    result["change"] = None if before is None or result["accuracy"] is None else result["accuracy"] - before
    classes = sorted(set(table.label) | set(card["classes"]))
    matrix = confusion(table, classes)
    write_json(out() / "metrics.json", result)
    write_json(
        out() / "confusion.json",
        {"classes": classes, "rows": "label", "columns": "predicted", "matrix": matrix.tolist()},
    )
    write_json(out() / "predictions.json", json.loads(table[["item", "label", "predicted"]].to_json(orient="records")))
    draw(matrix, classes, out() / "confusion.png")
    print(f"accuracy {result['accuracy']} on {result['held_out']} held-out items; before: {before}")


def measure(table: pd.DataFrame) -> dict[str, Any]:
    """Accuracy, and precision, recall, F1 and support per class, of a table with `label` and `predicted`.

    Without any item the accuracy is None, not a number.
    """
    if not len(table):
        return {"held_out": 0, "accuracy": None, "classes": {}}
    names = sorted(set(table.label) | set(table.predicted))
    columns = scores.precision_recall_fscore_support(table.label, table.predicted, labels=names, zero_division=0)
    per_class = pd.DataFrame(dict(zip(("precision", "recall", "f1", "support"), columns, strict=True)), index=names)
    return {
        "held_out": len(table),
        "accuracy": float(scores.accuracy_score(table.label, table.predicted)),
        "macro_f1": float(per_class.f1.mean()),
        "classes": json.loads(per_class.to_json(orient="index")),
    }


def previous(table: pd.DataFrame, images: np.ndarray) -> dict[str, Any]:
    """What the model before this one answers for the same items, with today's labels.

    :return: its accuracy and how many items it gets right that the new one gets wrong, and the other way round; or
        accuracy None and the reason why there is no such model.
    """
    commit = os.environ.get("train_COMMIT")
    if not commit:
        return {"accuracy": None, "reason": "not run by a pipeline"}
    try:
        card = json.loads(read_file("train", f"{commit}^", "/card.json"))
        model = models.restore(read_file("train", f"{commit}^", "/model.pt"), card)
        old = pd.Series(models.predict(model, card, images), dtype=str)
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        return {"accuracy": None, "reason": f"no model before this one: {e}"}
    right_before, right_now = old == table.label, table.predicted == table.label
    return {
        "accuracy": float(right_before.mean()) if len(table) else None,
        "items": len(table),
        "job": card.get("job"),
        "fixed": table.item[right_now & ~right_before].tolist(),
        "broken": table.item[right_before & ~right_now].tolist(),
    }


def confusion(table: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """Counts of shape (classes, classes): rows are labels, columns what the model says."""
    if not len(table):
        return np.zeros((len(classes), len(classes)), int)
    return scores.confusion_matrix(table.label, table.predicted, labels=classes)


def draw(matrix: np.ndarray, classes: list[str], path: Path) -> None:
    """Draw a confusion matrix as PNG; the same matrix gives the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    inches = max(4.0, 0.45 * len(classes) + 1.5)
    figure, axes = pyplot.subplots(figsize=(inches, inches), layout="constrained")
    scores.ConfusionMatrixDisplay(matrix, display_labels=classes).plot(ax=axes, cmap="Blues", colorbar=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)


if __name__ == "__main__":
    options(__doc__)
    evaluate()
