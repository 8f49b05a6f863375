"""Times that repeat: standard cron with five fields, `@hourly` and its like, `@every 1h30m`, `@never`."""

import re
from collections.abc import Callable
from datetime import UTC, datetime

from croniter import CroniterError, croniter

from pachd.errors import PachError

NEVER = 253_370_764_800 * 1_000_000_000  # the year 9999, as Pachyderm has it
_SECOND = 1_000_000_000
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": _SECOND, "m": 60 * _SECOND, "h": 3600 * _SECOND}
_WORD = re.compile(
    r"\*|\d{1,2}|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT", re.IGNORECASE
)
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")

Schedule = Callable[[int], int]


def parse(spec: str) -> Schedule:
    """Return a function from a time to the next one of the schedule, both in nanoseconds since 1970, in UTC.

    Raises PachError, in the words of Pachyderm's parser where it counts fields.
    """
    text = spec.strip()
    if text == "@never":
        return lambda _after: NEVER
    if text.startswith("@every "):
        return _every(text.removeprefix("@every "), spec)
    if text.startswith("@"):
        if text not in _NAMED:
            raise PachError(f"Unrecognized descriptor: {spec}")
        text = _NAMED[text]
    fields = text.split()
    if len(fields) != 5:
        raise PachError(f"Expected exactly 5 fields, found {len(fields)}: {spec}")
    fields = ["*" if field == "?" else field for field in fields]
    unknown = [word for field in fields for word in re.split(r"[,/-]", field) if not _WORD.fullmatch(word)]
    if unknown:
        raise PachError(f"Failed to parse the schedule {spec!r}: {unknown[0]!r} is nothing that standard cron knows")
    text = " ".join(fields)
    try:
        croniter(text, 0)
    except (CroniterError, ValueError, KeyError, OverflowError) as err:
        raise PachError(f"Failed to parse the schedule {spec!r}: {err}") from err
    return lambda after: _next(text, after)


def _next(text: str, after: int) -> int:
    start = datetime.fromtimestamp(max(after, 0) // _SECOND, UTC)
    try:
        found: datetime = croniter(text, start).get_next(datetime)
    except (CroniterError, OverflowError, ValueError):
        return NEVER  # the 30th of February
    return int(found.timestamp()) * _SECOND


def _every(text: str, spec: str) -> Schedule:
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise PachError(f"Failed to parse duration {spec}")
    delay = int(sum(float(number) * _UNITS[unit] for number, unit in parts))
    delay = max(delay - delay % _SECOND, _SECOND)
    return lambda after: min(after - after % _SECOND + delay, NEVER)
