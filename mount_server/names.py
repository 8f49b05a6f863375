"""Which names are legal: paths in a repo, names of mounts."""

import re

from mount_server.errors import IllegalName, InvalidRequest

# PFS takes printable ASCII without its globbing characters (2.12: internal/storage/paths.go, ValidateFilename).
_ILLEGAL = re.compile(r"[^ -~]|[*?\[\]{}!()@+^]")
_ELEMENT = r"(?!\.\.?(?:/|\Z))[^\x00-\x1f\x7f-\U0010ffff/*?\[\]{}!()@+^]{1,255}"
_PATH = re.compile(f"{_ELEMENT}(?:/{_ELEMENT})*\\Z")  # what check_path takes; the rest says what is wrong
_REF_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
COMMIT_ID = re.compile(r"[0-9a-f]{12}4[0-9a-f]{19}\Z")
MAX_NAME = 255  # bytes; the kernel's limit for one path element


def check_name(name: str) -> str:
    """Return one path element if PFS takes it.

    :raises IllegalName: it is empty, `.`, `..`, too long, or has a character that PFS refuses.
    """
    if not name or name in (".", "..") or "/" in name:
        raise IllegalName(f"{name!r} cannot be a file name")
    if len(name) > MAX_NAME:
        raise IllegalName(f"file name {name[:40]!r}… has {len(name)} characters, at most {MAX_NAME} are possible")
    bad = _ILLEGAL.search(name)
    if bad:
        raise IllegalName(
            f"file name {name!r} holds {bad.group()!r}, which Pachyderm refuses:"
            " use printable ASCII without *?[]{}!()@+^"
        )
    return name


def check_path(path: str) -> str:
    """Return a path below a repo's root as `a/b/c`; `/a/b/c` is accepted too.

    :raises IllegalName: PFS would refuse it, or it names a directory or the root.
    """
    inner = path[1:] if path.startswith("/") else path
    if _PATH.match(inner):
        return inner
    for element in inner.split("/"):
        try:
            check_name(element)
        except IllegalName as e:
            raise IllegalName(f"path {path!r} is not legal: {e}") from None
    return inner


def check_mount_name(name: str) -> str:
    """Return a mount's name: one path element, so that a mount is always a directory right below the mount directory.

    :raises InvalidRequest: it is empty, `.` or `..`, holds `/`, NUL or control characters, or is longer than 255 bytes.
    """
    if not name:
        raise InvalidRequest("no name specified")
    if name in (".", "..") or "/" in name or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise InvalidRequest(
            f"mount name {name!r} is not legal: it becomes one directory, so no '/', '.', '..' or control characters"
        )
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"mount name {name!r} is not valid text") from None
    if size > MAX_NAME:
        raise InvalidRequest(f"mount name {name[:40]!r}… is {size} bytes long, at most {MAX_NAME} are possible")
    return name


def check_branch_name(name: str) -> str:
    """Return a branch's name as PFS takes it for a new branch.

    :raises InvalidRequest: other characters than letters, digits, `_`, `-`, or it looks like a commit ID.
    """
    if not _REF_NAME.match(name):
        raise InvalidRequest(f"branch name {name!r} is not legal: only letters, digits, '_' and '-'")
    if COMMIT_ID.match(name):
        raise InvalidRequest(f"branch name {name!r} is not legal: it is a commit ID; mount it as `commit`")
    return name
