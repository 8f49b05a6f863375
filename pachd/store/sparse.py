"""Containers in the database of which little is alive: the row keeps the live parts only.

Such a row is shorter than the container's size, which is how it is told from a whole one. The parts keep their places.
"""

from collections.abc import Sequence

import msgpack  # type: ignore[import-untyped]

from pachd.store.packs import Part

_MAGIC = b"sparse\0"


def shrunk(data: bytes, parts: Sequence[Part]) -> bytes:
    """The row of a container of which only `parts` (in order, none touching another) are needed."""
    packed: bytes = msgpack.packb([(start, data[start:stop]) for start, stop in parts])
    return _MAGIC + packed


def whole(row: bytes, size: int) -> bytes:
    """The bytes of a container, with zeros for what is not needed. Raises ValueError if the row is damaged."""
    if len(row) == size:
        return row
    if not row.startswith(_MAGIC):
        raise ValueError(f"it has {len(row)} bytes instead of {size}")
    data = bytearray(size)
    try:
        for start, part in msgpack.unpackb(row[len(_MAGIC) :]):
            if start + len(part) > size:
                raise ValueError("a part lies behind its end")
            data[start : start + len(part)] = part
    except (TypeError, msgpack.UnpackException) as err:
        raise ValueError(f"its list of parts is damaged: {err}") from err
    return bytes(data)
