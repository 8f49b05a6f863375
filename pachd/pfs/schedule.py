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
_MONTHS = {name: number for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_DAYS = {name: number for number, name in enumerate("sun mon tue wed thu fri sat".split())}
# least, most, names
_Field = tuple[int, int, dict[str, int]]
_FIELDS: list[_Field] = [(0, 59, {}), (0, 23, {}), (1, 31, {}), (1, 12, _MONTHS), (0, 6, _DAYS)]
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")

Schedule = Callable[[int], int]


def parse(spec: str) -> Schedule:
    """Return a function from a time to the next one of the schedule, both in nanoseconds since 1970, in UTC.

    Raises PachError, in the words of Pachyderm's parser.
    """
    if not spec:
        raise PachError("Empty spec string")
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
    for field, (low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            if part:
                _check(part, low, high, names)
    text = " ".join(fields)
    try:
        croniter(text, 0)
    except (CroniterError, ValueError, KeyError, OverflowError) as err:
        raise PachError(f"Failed to parse the schedule {spec!r}: {err}") from err
    return lambda after: _next(text, after)


def _check(part: str, low: int, high: int, names: dict[str, int]) -> None:
    """Raise PachError unless a part of a field, such as `*/5` or `mon-fri`, is one between these numbers."""
    span, *steps = part.split("/")
    first, *last = span.split("-")
    begin, end = low, high
    if first not in ("*", "?"):
        begin = end = _number(first, names)
        if len(last) > 1:
            raise PachError(f"Too many hyphens: {part}")
        if last:
            end = _number(last[0], names)
    if len(steps) > 1:
        raise PachError(f"Too many slashes: {part}")
    step = 1
    if steps:
        step = _number(steps[0], {})
        end = end if last else high
    if begin < low:
        raise PachError(f"Beginning of range ({begin}) below minimum ({low}): {part}")
    if end > high:
        raise PachError(f"End of range ({end}) above maximum ({high}): {part}")
    if begin > end:
        raise PachError(f"Beginning of range ({begin}) beyond end of range ({end}): {part}")
    if step == 0:
        raise PachError(f"Step of range should be a positive number: {part}")


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise PachError(f'Failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 0:
        raise PachError(f"Negative number ({int(text)}) not allowed: {text}")
    return int(text)


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
        wrong = "missing unit in" if re.fullmatch(r"[0-9.]+", text) else "invalid"
        raise PachError(f'Failed to parse duration {spec}: time: {wrong} duration "{text}"')
    delay = int(sum(float(number) * _UNITS[unit] for number, unit in parts))
    delay = max(delay - delay % _SECOND, _SECOND)
    return lambda after: min(after - after % _SECOND + delay, NEVER)
