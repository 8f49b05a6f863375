"""What Go says of JSON that cannot be read: Pachyderm's errors about Kubernetes documents repeat it."""

from __future__ import annotations

import base64
import json
import string
from typing import Any

_ALPHABET = frozenset(string.ascii_letters + string.digits + "+/")
_WHERE = (
    ("Expecting property name", "looking for beginning of object key string"),
    ("Illegal trailing comma before end of object", "looking for beginning of object key string"),
    ("Illegal trailing comma before end of array", "looking for beginning of value"),
    ("Expecting ':'", "after object key"),
    ("Expecting ','", "after object key:value pair"),
    ("Extra data", "after top-level value"),
    ("Invalid \\escape", "in string escape code"),
    ("Invalid control character", "in string literal"),
)


def loads(document: bytes) -> Any:
    """The value of a JSON document. Raises ValueError."""
    text = document.decode(errors="replace")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("exceeded max depth") from None
    except json.JSONDecodeError as error:
        rest = text[error.pos :].lstrip()
        if not rest or error.msg.startswith("Unterminated string"):
            raise ValueError("unexpected end of JSON input") from None
        where = next(
            (words for start, words in _WHERE if error.msg.startswith(start)), "looking for beginning of value"
        )
        raise ValueError(f"invalid character '{rest[0]}' {where}") from None


def kind(value: Any) -> str:
    """What Go calls a JSON value."""
    for python, go in (bool, "bool"), (dict, "object"), (list, "array"), (str, "string"):
        if isinstance(value, python):
            return go
    return "number"


def field(value: Any, where: str, wanted: type, go: str) -> Any:
    """A field's value, or an empty one for null and for none. Raises ValueError for one of another kind."""
    if value is None:
        return wanted()
    if not isinstance(value, wanted):
        raise ValueError(f"json: cannot unmarshal {kind(value)} into Go {where} of type {go}")
    return value


def unbase64(text: str) -> bytes:
    """Bytes from base64 with its padding; line breaks do not count. Raises ValueError that names the wrong place."""
    places = [(at, char) for at, char in enumerate(text) if char not in "\r\n"]
    wrong = _wrong(places, len(text))
    if wrong is not None:
        raise ValueError(f"illegal base64 data at input byte {wrong}")
    return base64.b64decode("".join(char for _, char in places))


def _wrong(places: list[tuple[int, str]], end: int) -> int | None:
    for number, (at, char) in enumerate(places):
        if char in _ALPHABET:
            continue
        if char != "=" or number % 4 < 2:
            return at
        rest = places[number + 1 :]
        if number % 4 == 2:  # another one has to follow
            if not rest or rest[0][1] != "=":
                return rest[0][0] if rest else end
            rest = rest[1:]
        return rest[0][0] if rest else None
    left = len(places) % 4
    return places[-left][0] if left else None
