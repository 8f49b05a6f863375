"""Pachyderm's globs, compiled to regular expressions.

`*` and `?` stay within one path element, `**` does not. `[a-z]`, `[!a-z]`, `[[:digit:]]`, `{a,b}`, `(a|b)` and
`@(…) *(…) +(…) ?(…) !(…)` with alternatives separated by `|`; a backslash takes the next character as it is.
Everything in round brackets is captured, for `join_on` and `group_by`. A pattern matches a whole path, without a
directory's last slash.
"""

import re
from functools import lru_cache

from pachd.errors import PachError
from pachd.pfs import paths

_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": r"!-~",
    "lower": "a-z",
    "print": r" -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t-\r ",
    "upper": "A-Z",
    "word": r"0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_REPEAT = {"@": "", "*": "*", "+": "+", "?": "?"}
_NEVER = r"(?!)"
_REFERENCE = re.compile(r"\$(?:(\d+)|\{(\d+)\}|(\$))")


class Glob:
    """A compiled pattern. `prefix`: what every match begins with. `depth`: how many slashes every match has, if
    known."""

    def __init__(self, pattern: str) -> None:
        self.pattern = paths.clean(pattern)
        found = re.search(r"[*?[\]{}!()@+^\\]", self.pattern)
        self.literal = found is None
        self.prefix = self.pattern[: found.start()] if found else self.pattern
        nested = re.search(r"\*\*|[({\[][^)}\]]*/|\\|!\(", self.pattern)
        self.depth = None if nested else self.pattern.count("/")
        self._regex = re.compile(_Translator(self.pattern).result, re.DOTALL)

    def match(self, path: str) -> bool:
        """Does the pattern match this canonical path (a directory with or without its slash)?"""
        if path == "/":
            return self.pattern == "/"
        if path[-1] == "/":
            path = path[:-1]
        return path == self.pattern if self.literal else self._regex.fullmatch(path) is not None

    def captures(self, path: str) -> tuple[str, ...] | None:
        """What the round brackets matched in this path, or None if it does not match."""
        found = self._regex.fullmatch(path.rstrip("/") or "/")
        return tuple(group or "" for group in found.groups()) if found else None

    def replace(self, path: str, template: str) -> str:
        """`template` with `$1` or `${1}` replaced by the first capture and so on; `path` itself if it does not
        match."""
        path = path.rstrip("/") or "/"
        found = self._regex.fullmatch(path)
        if not found:
            return path

        def put(reference: re.Match[str]) -> str:
            if reference.group(3):
                return "$"
            number = int(reference.group(1) or reference.group(2))
            if number > len(found.groups()):
                return reference.group()
            return found.group(number) or ""

        return _REFERENCE.sub(put, template)


class _Translator:
    """Turns one pattern into a regular expression, by recursive descent."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._groups = True
        self._open = False  # a bracket is never closed: such a pattern matches nothing
        self.result = self._sequence(0, "")[0]
        if self._open:
            self.result = _NEVER

    def _sequence(self, at: int, stop: str) -> tuple[str, int]:
        """Translate from `at` up to one of the characters `stop`; returns (expression, where it stopped)."""
        out: list[str] = []
        text = self._text
        while at < len(text):
            char = text[at]
            if char in stop:
                break
            if char == "\\" and at + 1 < len(text):
                out.append(re.escape(text[at + 1]))
                at += 2
            elif char in "@*+?!" and text[at + 1 : at + 2] == "(":
                expression, at = self._extended(char, at + 2, stop)
                out.append(expression)
            elif char == "*":
                wide = text[at + 1 : at + 2] == "*" and text[at + 2 : at + 3] != "("
                out.append(".*" if wide else "[^/]*")
                at += 2 if wide else 1
            elif char == "?":
                out.append("[^/]")
                at += 1
            elif char == "[":
                expression, at = self._range(at + 1)
                out.append(expression)
            elif char == "{":
                options, at = self._options(at + 1, ",", "}")
                out.append(f"(?:{'|'.join(options)})")
            elif char == "(":
                options, at = self._options(at + 1, "|", ")")
                out.append(self._capture("|".join(options)))
            else:
                out.append(re.escape(char))
                at += 1
        return "".join(out), at

    def _capture(self, expression: str) -> str:
        return f"({expression})" if self._groups else f"(?:{expression})"

    def _options(self, at: int, separator: str, end: str) -> tuple[list[str], int]:
        options = []
        while True:
            expression, at = self._sequence(at, separator + end)
            options.append(expression)
            if at >= len(self._text):
                self._open = True
                return options, at
            at += 1
            if self._text[at - 1] == end:
                return options, at

    def _extended(self, kind: str, at: int, stop: str) -> tuple[str, int]:
        if kind != "!":
            options, at = self._options(at, "|", ")")
            inner = "|".join(options)
            return self._capture(f"(?:{inner}){_REPEAT[kind]}" if _REPEAT[kind] else inner), at
        # "not one of these": what follows must not be one of them and then the rest of the pattern
        kept, self._groups = self._groups, False
        options, at = self._options(at, "|", ")")
        rest = self._sequence(at, stop)[0]
        self._groups = kept
        return self._capture(f"(?!(?:{'|'.join(options)}){rest}$)[^/]*") if not stop else self._capture(
            f"(?!(?:{'|'.join(options)}){rest})[^/]*"
        ), at

    def _range(self, at: int) -> tuple[str, int]:
        text = self._text
        negated = text[at : at + 1] in ("!", "^")
        at += negated
        out = ""
        first = True
        while at < len(text) and (text[at] != "]" or first):
            first = False
            if text.startswith("[:", at) and (end := text.find(":]", at)) > 0:
                name = text[at + 2 : end]
                if name not in _CLASSES:
                    raise PachError(f"error parsing glob {text}: no character class [:{name}:]")
                out += _CLASSES[name]
                at = end + 2
            elif text[at] == "\\" and at + 1 < len(text):
                out += re.escape(text[at + 1])
                at += 2
            elif text[at] == "-" and out and at + 1 < len(text) and text[at + 1] != "]":
                out += "-"
                at += 1
            else:
                out += re.escape(text[at])
                at += 1
        if at >= len(text):
            raise PachError("unexpected end of input")
        return f"[^/{out}]" if negated else f"(?!/)[{out}]", at + 1


@lru_cache(maxsize=1024)
def compile(pattern: str) -> Glob:
    """The glob of this pattern. Raises PachError if it is none."""
    try:
        return Glob(pattern)
    except re.error as err:
        raise PachError(f"the glob {pattern} is not valid: {err.msg}") from err
