"""Cron expressions: five fields, `@every 1h30m`, `@hourly` and the like, `@never`. Times are UTC."""

import re
from datetime import UTC, datetime, timedelta

from pachd.errors import PachError

_NAMED = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_MONTHS = {name: i + 1 for i, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split())}
_DAYS = {name: i for i, name in enumerate("sun mon tue wed thu fri sat".split())}
_UNIT = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECOND = 10**9


class Schedule:
    """A parsed cron expression.

    :raises PachError: it is none.
    """

    def __init__(self, text: str) -> None:
        self._every = 0
        self._fields: list[set[int]] | None = None
        self._star = (True, True)
        if text == "@never":
            return
        if text.startswith("@every "):
            self._every = max(_duration(text[7:]) // _SECOND, 1) * _SECOND
            return
        if text.startswith("@") and text not in _NAMED:
            raise PachError(f"unrecognized descriptor: {text}")
        fields = _NAMED.get(text, text).split()
        if len(fields) != 5:
            raise PachError(f"Expected exactly 5 fields, found {len(fields)}: {text}")
        names = ({}, {}, {}, _MONTHS, _DAYS)
        self._fields = [_field(f, *b, names=n) for f, b, n in zip(fields, _BOUNDS, names, strict=True)]
        self._star = (fields[2][0] in "*?", fields[4][0] in "*?")

    def next(self, after: int) -> int | None:
        """Return the first time (ns) later than `after`, or None for never."""
        if self._every:
            return (after // _SECOND) * _SECOND + self._every
        if self._fields is None:
            return None
        minutes, hours, days, months, weekdays = self._fields
        at = datetime.fromtimestamp(after // _SECOND, UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        limit = at.year + 8
        while at.year < limit:
            if at.month not in months:
                at = (at.replace(day=1, hour=0, minute=0) + timedelta(days=32)).replace(day=1)
                continue
            by_day, by_weekday = at.day in days, (at.weekday() + 1) % 7 in weekdays
            if not (by_day and by_weekday if any(self._star) else by_day or by_weekday):
                at = at.replace(hour=0, minute=0) + timedelta(days=1)
            elif at.hour not in hours:
                at = at.replace(minute=0) + timedelta(hours=1)
            elif at.minute not in minutes:
                at += timedelta(minutes=1)
            else:
                return int(at.timestamp()) * _SECOND
        return None


def _duration(text: str) -> int:
    parts = _DURATION.findall(text.strip())
    if not parts or "".join(n + u for n, u in parts) != text.strip():
        raise PachError(f'failed to parse duration @every {text}: time: invalid duration "{text}"')
    return int(sum(float(number) * _UNIT[unit] for number, unit in parts))


def _field(text: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span in ("*", "?"):
            start, end = low, high
        else:
            start = _number(first, names)
            end = _number(last, names) if dash else (high if step else start)
        by = _number(step, {}) if step else 1
        if start < low or end > high:
            bad, what = (start, "beginning") if start < low else (end, "end")
            raise PachError(f"{what} of range ({bad}) {'below minimum' if start < low else 'above maximum'} "
                            f"({low if start < low else high}): {part}")  # fmt: skip
        if start > end or by < 1:
            raise PachError(f"beginning of range ({start}) beyond end of range ({end}), or a step of 0: {part}")
        found |= set(range(start, end + 1, by))
    return found


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not text.isdecimal():
        raise PachError(f"failed to parse int from {text}")
    return int(text)
