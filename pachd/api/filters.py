"""What a listing of pipelines or jobs is narrowed down to: projects, and a jq expression over each message."""

import json
import re
import select
import subprocess
import sys
from typing import Any, Self

from google.protobuf import json_format
from google.protobuf.message import Message

from pachd.errors import DeadlineExceeded, PachError

_CREATING = "error creating message filter function"
SECONDS = 10.0  # that a filter may take for one message
START = 60.0  # seconds that its process may take to start, on a busy machine
_STATE = re.compile(r'\.state\s*==\s*"(\w+)"')
_SIMPLE = re.compile(r'\s*\.state\s*==\s*"\w+"(\s+or\s+\.state\s*==\s*"\w+")*\s*')


def projects_of(request: Any) -> list[str]:
    """Return the names of the projects that a request is about; empty for all. One without a name has nothing."""
    return [project.name for project in request.projects]


class Filter:
    """A jqFilter; use it as a context manager.

    The expressions that pachctl makes of `--state` are answered at once.  Any other one is evaluated by the jq library
    in a process of its own, where an endless or greedy expression hurts nobody.

    Raises PachError: the expression cannot be one.
    """

    def __init__(self, expression: str, of: str = "job") -> None:
        """`of`: what is listed, as errors call it."""
        if "\0" in expression:
            raise PachError(f"{_CREATING}: error parsing jq filter: it has a NUL character in it")
        self._of = of
        self._expression = expression.strip()
        self._states = set(_STATE.findall(expression)) if _SIMPLE.fullmatch(expression) else None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self._expression and self._states is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "pachd.api.jq_process", self._expression],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            try:
                self._answer(START)
            except PachError as error:
                self.__exit__()
                raise error.wrapped(_CREATING) from None
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                try:
                    pipe.close()
                except OSError:
                    pass
            self._process.wait()

    def matches(self, message: Message) -> bool:
        """Whether the expression's first result is neither false nor null; field names as `pachctl --raw` prints them.

        Raises PachError: the expression is wrong or fails on this message. DeadlineExceeded: it takes too long.
        """
        if not self._expression:
            return True
        if self._states is not None:
            states: Any = message.DESCRIPTOR.fields_by_name["state"].enum_type
            number: int = getattr(message, "state")  # noqa: B009
            return number in states.values_by_number and states.values_by_number[number].name in self._states
        assert self._process is not None and self._process.stdin is not None
        value = json_format.MessageToDict(message, preserving_proto_field_name=True)
        try:
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            pass  # what it said last tells why it ended
        try:
            return self._answer(SECONDS)
        except PachError as error:
            raise error.wrapped(f"error filtering {self._of}") from None

    def _answer(self, seconds: float) -> bool:
        assert self._process is not None and self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise DeadlineExceeded("error applying jq filter on proto message: context deadline exceeded")
        line = self._process.stdout.readline().decode(errors="replace").strip()
        if line not in ("true", "false"):
            raise PachError(line or "error applying jq filter on proto message: it takes too much memory or time")
        return line == "true"
