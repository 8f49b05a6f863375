"""What the annotators of one item agree on."""

from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Resolution:
    """Either a `label`, or the `reason` why there is none; `votes` counts annotators by answer."""

    label: str | None
    reason: str | None
    votes: dict[str, int]
    annotators: list[str]


def resolve(task: Any) -> Resolution:
    """Resolve a task in Label Studio's export shape to one class by majority.

    Every annotator has one vote: their newest annotation that was not cancelled. A tie has no winner.
    """
    if not isinstance(task, dict) or not isinstance(task.get("annotations"), list):
        return Resolution(None, "the label file is not a Label Studio task with annotations", {}, [])
    newest: dict[str, tuple[str, str | None]] = {}
    for annotation in task["annotations"]:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        who = _annotator(annotation.get("completed_by"))
        when = str(annotation.get("updated_at") or annotation.get("created_at") or "")
        if who not in newest or newest[who][0] <= when:
            newest[who] = when, _answer(annotation.get("result"))
    votes = Counter(answer for _, answer in newest.values() if answer is not None)
    annotators = sorted(who for who, (_, answer) in newest.items() if answer is not None)
    ranked = sorted(votes.items(), key=lambda vote: (-vote[1], vote[0]))
    counts = dict(ranked)
    if not ranked:
        return Resolution(None, "nobody has chosen a class", counts, annotators)
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        tied = ", ".join(answer for answer, n in ranked if n == ranked[0][1])
        return Resolution(None, f"annotators disagree, no majority: {tied}", counts, annotators)
    return Resolution(ranked[0][0], None, counts, annotators)


def _annotator(completed_by: Any) -> str:
    if isinstance(completed_by, dict):
        return str(completed_by.get("email") or completed_by.get("id"))
    return str(completed_by)


def _answer(result: Any) -> str | None:
    """The class of the first classification (`choices`) among the regions of an annotation."""
    for region in result if isinstance(result, list) else []:
        choices = region.get("value", {}).get("choices") if isinstance(region, dict) else None
        if isinstance(choices, list) and choices:
            return str(choices[0])
    return None
