"""Bytes put aside while something large is worked on: a file without a name, gone when nobody has it open."""

import tempfile

from pachd.store import system


class Scratch:
    """Takes bytes and gives them back. `folder`: where there is space for them; raises OSError when there is none."""

    def __init__(self, folder: str) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        self._size = 0

    def append(self, data: bytes) -> int:
        """Put bytes aside; returns where they are."""
        at = self._size
        system.write_at(self._file.fileno(), data, at)
        self._size += len(data)
        return at

    def read(self, at: int, length: int) -> bytes:
        """The `length` bytes that were put at `at`."""
        parts: list[bytes] = []
        while length:
            part = system.read_at(self._file.fileno(), length, at)
            if not part:
                raise OSError("bytes that were put aside are gone")
            parts.append(part)
            at, length = at + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Give the space back. Twice is no error."""
        self._file.close()
