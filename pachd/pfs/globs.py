"""Pachyderm's globs, compiled to regular expressions.

`*` and `?` stay within one path element, `**` does not. `[a-z]`, `[!a-z]`, `[[:digit:]]`, `{a,b}`, `(a|b)` and
`@(…) *(…) +(…) ?(…) !(…)` with alternatives separated by `|`; a backslash takes the next character as it is.
Everything in round brackets is captured, for `join_on` and `group_by`. A pattern matches a whole path, without a
directory's last slash.

The rules, odd ones too, are those of ohmyglob, the library that Pachyderm uses: a bracket that is never closed ends
with the pattern; `}` and `)` close the innermost bracket of either kind; an `@ ! ^ +` that opens nothing begins a text
that only `? * [ { (` end; `!(a)` takes what does not begin with `a`, or, if only `?` and classes follow it, what is not
`a`; a class that is negated matches slashes. And Pachyderm only looks at paths that begin with what is before the first
special character, with any backslash in it.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from pachd.errors import PachError
from pachd.pfs import paths

_CLASSES = {
    ":alnum:": "0-9A-Za-z",
    ":alpha:": "A-Za-z",
    ":ascii:": "\x00-\x7f",
    ":blank:": "\t ",
    ":cntrl:": "\x00-\x1f\x7f",
    ":digit:": "0-9",
    ":graph:": "!-~]",
    ":lower:": "a-z",
    ":print:": " -~",
    ":punct:": "!-/:-@[-`{-~",
    ":space:": "\t\n\v\f\r ",
    ":upper:": "A-Z",
    ":word:": "0-9A-Za-z_",
    ":xdigit:": "0-9A-Fa-f",
}
_ANY = "[^/]"
_REFERENCE = re.compile(r"\$(?:(\d+)|\{(\d+)\}|(\$))")
_SPECIAL = re.compile(r"[*?[\]{}!()@+^]")
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")
_STOPS = "?*[{("  # what ends a text in any case
_OPENS = "@!^+"  # what opens a bracket if `(` follows
_BOUND, _CLOSE = "\ufffe", "\uffff"  # marks in an expression: the end of something definite, of what `!(…)` excludes


class Glob:
    """A compiled pattern. `prefix`: what every match begins with. `depth`: how many slashes every match has, if
    known."""

    def __init__(self, pattern: str) -> None:
        self.pattern = paths.clean(pattern)
        found = _SPECIAL.search(self.pattern)
        self.prefix = self.pattern[: found.start()] if found else self.pattern
        self.literal = found is None and "\\" not in self.pattern
        translated = _Translated(self.pattern)
        self.depth = translated.depth
        self._regex = re.compile("(?!)") if "\\" in self.prefix else _compiled(translated.expression)

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
        """`template` with `$1` or `${1}` replaced by the first capture and so on, `$0` by all, what was not captured by
        nothing."""
        found = self._regex.fullmatch(path.rstrip("/") or "/")

        def put(reference: re.Match[str]) -> str:
            if reference.group(3):
                return "$"
            digits = reference.group(1) or reference.group(2)
            if found is None or len(digits) > 8 or int(digits) > len(found.groups()):
                return ""
            return found.group(int(digits)) or ""

        return _REFERENCE.sub(put, template)


def _quoted(text: str) -> str:
    return _META.sub(lambda found: "\\" + found.group(), text)


def _compiled(expression: str) -> re.Pattern[str]:
    """Raises PachError for an expression that is none, which only classes can make."""
    try:
        return re.compile(expression, re.DOTALL)
    except re.error as err:
        reason = "unterminated [] set"
        if err.msg.startswith("bad character range"):
            reason = f"[{err.msg.split()[-1].replace(chr(92), '')}] range in reverse order"
        raise PachError(f"error parsing regexp: {reason} in `\\A{expression}\\z`") from err


class _Token:
    """A part of a pattern: "text", "class" with the expression, "any", "one", "all", "open" with the kind of bracket,
    "next" alternative, "close"."""

    __slots__ = ("kind", "text")

    def __init__(self, kind: str, text: str = "") -> None:
        self.kind, self.text = kind, text


def _tokens(text: str) -> Iterator[_Token]:
    """Raises PachError for a class that is never closed."""
    at = braces = rounds = 0
    while at < len(text):
        char, after = text[at], text[at + 1 : at + 2]
        if char in _OPENS + "*?" and after == "(":
            rounds += 1
            yield _Token("open", char)
            at += 2
        elif char in "{(":
            braces, rounds = braces + (char == "{"), rounds + (char == "(")
            yield _Token("open", "{" if char == "{" else "@")
            at += 1
        elif (char == "," and braces) or (char == "|" and rounds):
            yield _Token("next")
            at += 1
        elif (char == "}" and braces) or (char == ")" and rounds):
            braces, rounds = braces - (char == "}"), rounds - (char == ")")
            yield _Token("close")
            at += 1
        elif char == "[":
            expression, at = _class(text, at + 1)
            yield _Token("class", expression)
        elif char == "?":
            yield _Token("one")
            at += 1
        elif char == "*":
            wide = after == "*" and text[at + 2 : at + 3] != "("
            yield _Token("all" if wide else "any")
            at += 1 + wide
        else:
            stops = _STOPS
            if char not in _OPENS:
                stops += _OPENS + ("}," if braces else ")|" if rounds else "")
            words, at = _text(text, at, stops)
            if words:
                yield _Token("text", words)


def _text(text: str, at: int, stops: str) -> tuple[str, int]:
    """(what is meant literally from `at` on, where it ends)."""
    out = ""
    while at < len(text) and text[at] not in stops:
        at += text[at] == "\\"
        out += text[at : at + 1]
        at += 1
    return out, at


def _class(text: str, at: int) -> tuple[str, int]:
    """(the expression of a class that begins at `at`, where it ends). Raises PachError if it does not end."""
    chars, negated, named = "", False, False
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\\":
            chars += text[at : at + 1]
            at += 1
            continue
        if char == "]" and not named:
            for name, meaning in _CLASSES.items():
                chars = chars.replace(name, meaning)
            return f"[{'^' if negated else ''}{_quoted(chars)}]", at
        named = char == "[" or (named and char != "]")
        if char in "!^" and not negated:
            negated = True
        else:
            chars += char
    raise PachError("unexpected end of input")


class _Group:
    """A bracket and its alternatives so far."""

    __slots__ = ("alternatives", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.alternatives = [""]

    def expression(self) -> str:
        inner = (f"{_CLOSE}|" if self.kind == "!" else "|").join(self.alternatives)
        if self.kind == "{":
            return f"(?:{inner})"
        if self.kind == "@":
            return f"({inner})"
        if self.kind == "!":
            return f"((?:(?!(?:{inner}{_CLOSE})){_ANY}*))"
        if self.kind == "^":
            raise PachError("unimplemented quatifier ^")
        return f"((?:{inner}){self.kind})"


class _Translated:
    """A pattern as a regular expression. `depth`: how many slashes every match has, if known."""

    def __init__(self, pattern: str) -> None:
        groups = [_Group("")]
        slashes: int | None = 0
        for token in _tokens(pattern):
            if token.kind == "open":
                groups.append(_Group(token.text))
                continue
            if token.kind == "next":
                groups[-1].alternatives.append("")
                continue
            if token.kind == "close":
                part = groups.pop().expression()
            elif token.kind == "text":
                part = _quoted(token.text) + _BOUND
                if slashes is not None and "/" in token.text:
                    slashes = slashes + token.text.count("/") if len(groups) == 1 else None
            elif token.kind == "class":
                part = token.text
                if slashes is not None and _may_be_slash(part):
                    slashes = None
            else:
                part = {"any": f"{_ANY}*{_BOUND}", "all": f".*{_BOUND}", "one": _ANY}[token.kind]
                if token.kind == "all":
                    slashes = None
            groups[-1].alternatives[-1] += part
        while len(groups) > 1:
            part = groups.pop().expression()
            groups[-1].alternatives[-1] += part
        self.depth = slashes
        self.expression = self._anchored(groups[0].alternatives[0])

    @staticmethod
    def _anchored(expression: str) -> str:
        """Say where what `!(…)` excludes ends: at the end, unless something definite follows the first of them."""
        at = expression.find(f"{_CLOSE})")
        if at > 0:
            expression = expression.replace(_CLOSE, "" if _BOUND in expression[at:] else "$")
        return expression.replace(_BOUND, "")


def _may_be_slash(expression: str) -> bool:
    try:
        return re.fullmatch(expression, "/") is not None
    except re.error:
        return True


@lru_cache(maxsize=1024)
def compile(pattern: str) -> Glob:
    """The glob of this pattern. Raises PachError if it is none."""
    return Glob(pattern)
