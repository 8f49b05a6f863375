"""Files as a tar stream, the way GetFileTAR sends them: absolute names, mode 0, directories included."""

import tarfile
from collections.abc import Iterable, Iterator

from pachd.pfs.read import Entry, View

_BLOCK = 512
_PIECE = 1 << 20


def stream(view: View, entries: Iterable[Entry]) -> Iterator[bytes]:
    """The tar stream of entries of a view, in pieces of about 1 MiB: thousands of small files are a few messages."""
    waiting = bytearray()
    for entry in entries:
        waiting += header(entry)
        if not entry.is_dir:
            for piece in view.read(entry):
                waiting += piece
                if len(waiting) >= _PIECE:
                    yield bytes(waiting)
                    waiting.clear()
            waiting += bytes(-entry.size % _BLOCK)
    yield bytes(waiting) + bytes(2 * _BLOCK)


def header(entry: Entry) -> bytes:
    """The blocks before a file's bytes."""
    info = tarfile.TarInfo(entry.path)
    info.mode = 0
    info.type = tarfile.DIRTYPE if entry.is_dir else tarfile.REGTYPE
    info.size = 0 if entry.is_dir else entry.size
    return info.tobuf(tarfile.PAX_FORMAT, "ascii")
