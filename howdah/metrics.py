"""How good each model was: the metrics of every commit of an evaluation."""

from typing import Any

from howdah.pachyderm import Problem, ancestors, describe_commit, is_missing, read_json, show_repo
from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2

METRICS = "/metrics.json"
PREDICTIONS = "/predictions.json"


def metrics(client: Client, commit: pfs_pb2.Commit) -> list[dict[str, Any]]:
    """The metrics of a branch, newest commit first.

    :return: per commit accuracy, macro F1, number of held-out items and of items trained on; `before` and `change`,
        the accuracy of the commit before on the items that both evaluated, with the newer commit's labels; and
        `causes`, the commits made by people that belong to it.
    :raises Problem: the branch has no metrics at all.
    """
    rows: list[dict[str, Any]] = []
    newer: tuple[dict[str, Any], Any] | None = None
    for info in ancestors(client, commit):
        found = read_json(client, info.commit, METRICS) if not info.error else None
        if not isinstance(found, dict):
            continue
        predictions = read_json(client, info.commit, PREDICTIONS)
        row = {
            **describe_commit(info),
            "accuracy": found.get("accuracy"),
            "macro_f1": found.get("macro_f1"),
            "held_out": found.get("held_out"),
            "trained_on": found.get("trained_on"),
            "before": None,
            "change": None,
            "common_items": None,
            "causes": causes(client, info),
        }
        if newer is not None:
            newer[0].update(compare(newer[1], predictions))
        newer = row, predictions
        rows.append(row)
    if not rows:
        raise Problem(
            f"{show_repo(commit.repo)} has no {METRICS} in any commit: name the repo of an evaluation, "
            "such as evaluate@master, or wait for its first job"
        )
    return rows


def compare(new: Any, old: Any) -> dict[str, Any]:
    """Both models' accuracy on the items that both predicted, measured against the newer labels.

    :param new, old: lists of {"item", "label", "predicted"}.
    """
    if not isinstance(new, list) or not isinstance(old, list):
        return {}
    answered = {row["item"]: row["predicted"] for row in old}
    common = [row for row in new if row["item"] in answered]
    if not common:
        return {"common_items": 0}
    before = sum(answered[row["item"]] == row["label"] for row in common) / len(common)
    now = sum(row["predicted"] == row["label"] for row in common) / len(common)
    return {"before": before, "change": now - before, "common_items": len(common)}


def causes(client: Client, info: pfs_pb2.CommitInfo) -> list[dict[str, Any]]:
    """The commits by people that a result was made of, without the pipelines' specs."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    waiting = list(info.direct_provenance)
    seen = set()
    while waiting:
        commit = waiting.pop()
        key = (show_repo(commit.repo), commit.id)
        if key in seen or commit.repo.type not in ("", "user"):
            continue
        seen.add(key)
        try:
            upstream = client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=commit))
        except RpcError as e:
            if is_missing(e):  # squashed since
                continue
            raise
        if not upstream.direct_provenance:
            found[key] = describe_commit(upstream)
        waiting += upstream.direct_provenance
    return [found[key] for key in sorted(found)]
