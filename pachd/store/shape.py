"""A hash of a directory that can be added up from the pages of a tree.

Pachyderm's directory hash is a hash of its children's hashes, in order, directories inside directories, without
names. What follows distinguishes exactly what that one does, but never needs a walk: the directory is written as a
sequence of tokens — one per file, one for entering and one for leaving a directory between two files — and the
sequence is the polynomial of its tokens modulo a prime. Two adjacent sequences join by one multiplication, so inner
pages can keep the value of all below them.
"""

import hashlib

PRIME = 2**255 - 19
_BASE = int.from_bytes(hashlib.blake2b(b"directory shape", digest_size=32).digest(), "big") % PRIME
_ENTER, _LEAVE = 1, 2

Shape = tuple[int, int]
"""(value of the polynomial, base to the power of the number of tokens)."""

EMPTY: Shape = (0, 1)

_enters: list[Shape] = [EMPTY]
_leaves: list[Shape] = [EMPTY]


def join(a: Shape, b: Shape) -> Shape:
    """The shape of sequence `a` followed by sequence `b`."""
    return (a[0] * b[1] + b[0]) % PRIME, a[1] * b[1] % PRIME


def _repeat(token: int, known: list[Shape], count: int) -> Shape:
    while len(known) <= count:
        known.append(join(known[-1], (token, _BASE)))
    return known[count]


def enter(count: int) -> Shape:
    """Entering `count` directories, one inside the other."""
    return _repeat(_ENTER, _enters, count)


def leave(count: int) -> Shape:
    """Leaving `count` directories."""
    return _repeat(_LEAVE, _leaves, count)


def depth(path: str) -> int:
    """How many directories above a file, not counting the root: 0 for `/a`, 1 for `/d/a`."""
    return path.count("/") - 1


def between(left: str, right: str) -> Shape:
    """What comes between two neighbouring files: the directories left and entered on the way."""
    a, b = left[: left.rfind("/") + 1], right[: right.rfind("/") + 1]
    if a == b:
        return EMPTY
    parts_a, parts_b = a.split("/")[1:-1], b.split("/")[1:-1]
    common = 0
    for x, y in zip(parts_a, parts_b, strict=False):
        if x != y:
            break
        common += 1
    return join(leave(len(parts_a) - common), enter(len(parts_b) - common))


def of_files(files: list[tuple[str, bytes]]) -> Shape:
    """The shape of neighbouring files: [(path, hash)], in order."""
    value, power = 0, 1
    last, last_dir = "", ""
    base, prime = _BASE, PRIME
    for path, digest in files:
        here = path[: path.rfind("/") + 1]
        if here != last_dir:
            if last:
                value, power = join((value, power), between(last, path))
            last_dir = here
        value = (value * base + int.from_bytes(digest, "big")) % prime
        power = power * base % prime
        last = path
    return value, power


def of_directory(inside: Shape, first: str, last: str, level: int) -> bytes:
    """The 32 bytes that are the hash of a directory.

    inside: the shape of all files below it, of which `first` and `last` are the first and last paths. level: how many
    directories are above its files' names (0 for the root).
    """
    shape = join(join(enter(depth(first) - level), inside), leave(depth(last) - level))
    return hashlib.blake2b(
        shape[0].to_bytes(32, "big") + shape[1].to_bytes(32, "big"), digest_size=32, person=b"directory"
    ).digest()
