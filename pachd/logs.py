"""Logging: one line per event to stderr, for people or as JSON, and the last lines kept for whoever asks.

Everything in pachd logs by the standard library or by structlog; both come out in the same form. What is secret by its
name is masked, and tokens are never logged in the first place.
"""

import logging
import sys
from collections import deque
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from pachd.operations import LEVELS

KEPT = 2000  # lines
_SECRET = ("token", "secret", "password", "authorization", "cookie", "private_key")
_MASK = "***"

Event = MutableMapping[str, Any]


def _mask(_logger: Any, _name: str, event: Event) -> Event:
    for key in event:
        if key != "event" and any(word in key.lower() for word in _SECRET):
            event[key] = _MASK
    return event


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    _mask,
]


class Recent(logging.Handler):
    """Keeps the last lines as JSON, for a debug dump."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=KEPT)
        self.setFormatter(_formatter(as_json=True))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        try:
            self._lines.append(self.format(record))
        except Exception:
            self.handleError(record)

    def lines(self) -> list[str]:
        """Return what was kept, oldest first."""
        return list(self._lines)


def _formatter(as_json: bool, colors: bool = False) -> logging.Formatter:
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def configure(level: str = "warning", as_json: bool = False, stream: TextIO | None = None) -> None:
    """Send what is logged at `level` (one of LEVELS) or above to `stream`, stderr unless given."""
    stream = stream or sys.stderr
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    shown = logging.StreamHandler(stream)
    shown.setFormatter(_formatter(as_json, colors=not as_json and stream.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [shown, Recent()]
    set_level(level)
    if level != "debug":
        logging.getLogger("grpclib").setLevel(logging.CRITICAL)  # it warns of every client that goes away
        for name in ("httpx", "httpcore", "hpack", "asyncio"):
            logging.getLogger(name).setLevel(logging.WARNING)


def set_level(level: str) -> str:
    """Change what is logged; returns the level until now."""
    root = logging.getLogger()
    before = logging.getLevelName(root.level).lower()
    root.setLevel(level.upper())
    return before if before in LEVELS else "warning"


def recent() -> list[str]:
    """Return the last lines that were logged, as JSON, oldest first."""
    found = [handler for handler in logging.getLogger().handlers if isinstance(handler, Recent)]
    return found[0].lines() if found else []
