"""References to commits as people write them: `master`, an ID, `master^2`, `master.3`, `master.3^`.

`^` and `~` mean the same, so many commits back; `branch.N` is the Nth commit of a branch, the first one is 1, and only
then may it go back from there. Source: the grammar of Pachyderm's commit pickers.
"""

import re
from typing import NamedTuple

from pachd.errors import PachError
from pachd.types import Repo

_STEPS = re.compile(r"(?P<root>\.[0-9]+)?(?:(?P<many>\^+|~+)|[\^~](?P<number>[0-9]+))?")
_LIKE_ID = re.compile(r"[0-9a-fA-F]{12}4[0-9a-fA-F]{19}")
_WRAP = 1 << 32  # Pachyderm keeps an offset in 32 bits, and says so in its errors


class Reference(NamedTuple):
    """A branch or a commit ID; how many commits to go back from there, or from the root on."""

    base: str
    from_root: bool
    offset: int


def like_id(text: str) -> bool:
    """Whether a text names a commit by its ID, in small letters or in capitals."""
    return _LIKE_ID.fullmatch(text) is not None


def parse(repo: Repo, text: str) -> Reference:
    """Return what a reference means. Raises PachError, with `repo`, for one that means nothing."""
    at = next((i for i, char in enumerate(text) if char in "^~."), None)
    if at is None:
        return Reference(text, False, 0)
    base = text[:at]
    try:
        offset = _offset(text[at:])
    except PachError as err:
        raise err.wrapped(f"pick commit tx: calculate offset {repo}@{text}") from err
    from_root = "." in text
    if from_root and like_id(base):
        raise PachError(
            f"pick commit tx: unmarshal branch picker {repo}@{base}: "
            "invalid branch picker: name refers to a commit, not a branch"
        )
    return Reference(base, from_root, offset)


def _offset(steps: str) -> int:
    match = _STEPS.fullmatch(steps)
    if match is None:
        raise PachError("count offset and clean: invalid ancestry format")
    root = _number(match["root"][1:], "descendants") - 1 if match["root"] else 0
    back = len(match["many"]) if match["many"] else _number(match["number"] or "0", "ancestor")
    if not match["root"]:
        return back % _WRAP
    if back and back > root:
        raise PachError("there should be less ancestors than descendants")
    return (root - back) % _WRAP


def _number(digits: str, of: str) -> int:
    if len(digits) > 19 or int(digits) >= 1 << 63:
        raise PachError(f"invalid {of} format")
    return int(digits)
