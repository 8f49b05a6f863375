"""Paths of files: what is legal, and how a path is written canonically.

Files are `/a/b`, directories `/a/`, the root `/`. The rules and their words are Pachyderm's: printable ASCII, nothing
that a glob would understand, no `.` or `..`.
"""

import posixpath
import re

from pachd.errors import PachError

GLOB_CHARACTERS = re.compile(r"[*?[\]{}!()@+^]")
_PRINTABLE = re.compile(r"[ -~]+")
_PLAIN = re.compile(r"""(?:/(?!\.\.?(?:/|$))[ "-'\-.,0-Z\\_-z|~$#%&:;<=>]+)+""")


def validate(path: str) -> None:
    """Raise PachError if a file cannot have this path."""
    if not _PRINTABLE.fullmatch(path):
        raise PachError(f"path ({path}) invalid: only printable ASCII characters allowed")
    found = GLOB_CHARACTERS.search(path)
    if found:
        raise PachError(f"path ({path}) invalid: globbing character ({found.group()}) not allowed in path")
    if any(part in (".", "..") for part in path.split("/")):
        raise PachError(f"path ({path}) invalid: relative file paths are not allowed")


def validate_copied(path: str) -> None:
    """Raise PachError if no file can be copied to this path; it may have characters of globs, as in Pachyderm."""
    if not _PRINTABLE.fullmatch(path):
        raise PachError(f"path ({path}) invalid: only printable ASCII characters allowed")


def clean(path: str) -> str:
    """The canonical path without a trailing slash: "", "." and "/" are the root `/`, `a//b/` is `/a/b`."""
    if path.startswith("/") and "//" not in path and "/." not in path:
        return "/" + path.strip("/")
    return "/" + posixpath.normpath(path or "/").strip("/") if posixpath.normpath(path or "/") != "." else "/"


def as_dir(path: str) -> str:
    """A canonical path as a directory: with one trailing slash."""
    return path if path.endswith("/") else path + "/"


def file_path(path: str) -> str:
    """Validate a path given for a file; returns it in canonical form. Raises PachError."""
    if _PLAIN.fullmatch(path) and not GLOB_CHARACTERS.search(path):
        return path
    validate(path)
    return clean(path)


def deleted_path(path: str) -> str:
    """Validate a path given to delete; returns it in canonical form, with a slash at its end if it means a
    directory."""
    validate(path)
    return as_dir(clean(path)) if path.endswith("/") else clean(path)


def after(prefix: str) -> str | None:
    """The first string that sorts behind everything that begins with `prefix`; None if there is none."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else None


def parents(path: str) -> list[str]:
    """The directories above a path, the root first: `/a/b/c` gives `/`, `/a/`, `/a/b/`."""
    found = ["/"]
    at = path.find("/", 1)
    while 0 < at < len(path) - 1:
        found.append(path[: at + 1])
        at = path.find("/", at + 1)
    return found
