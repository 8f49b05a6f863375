"""One row of results, and the bar it is held to."""

import time
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def row(
    name: str,
    value: float,
    unit: str,
    bar: float,
    *,
    at_least: bool = False,
    peer: str | None = None,
    peer_value: float | None = None,
) -> Row:
    """A measured value beside its bar.

    :param value: the measurement, in `unit`; `bar` is in the same unit.
    :param at_least: True for rates (more is better); else the bar is an upper limit.
    :param peer: what else did the same work on the same machine in the same run; `peer_value` is in the same unit.
    """
    met = value >= bar if at_least else value <= bar
    return {
        "name": name,
        "value": round(value, 6 if abs(value) < 1 else 3),
        "unit": unit,
        "bar": bar,
        "met": bool(met),
        "peer": peer,
        "peer_value": None if peer_value is None else round(peer_value, 6 if abs(peer_value) < 1 else 3),
    }


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes, in seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median(values: list[float]) -> float:
    """The middle of the measurements: one disturbed run does not move it."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
