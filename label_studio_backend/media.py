"""Media of tasks: bytes of one file at one commit, read through a read-only mount of that commit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .mount_api import MountApi
from .refs import FileAddress, Ref, parse_address


class FileStream:
    """Part of an open file, in the shape that Label Studio's proxy reads."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file, self._left = file, count

    def iter_chunks(self, chunk_size: int = 512 * 1024) -> Iterator[bytes]:
        """Chunks of at most `chunk_size` bytes until the part ends."""
        while self._left > 0:
            chunk = self._file.read(min(chunk_size, self._left))
            if not chunk:
                return
            self._left -= len(chunk)
            yield chunk

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Nothing:
    """An empty body (for answers that are headers only)."""

    def iter_chunks(self, chunk_size: int = 0) -> Iterator[bytes]:
        """No chunk."""
        return iter(())

    def close(self) -> None:
        """Nothing to close."""


def locate(api: MountApi, address: FileAddress) -> Path:
    """The file of an address in the mount of its commit.

    The address is user input: its path was checked to have no `..`, and what it leads to must still lie below the
    mount after links are followed. Raises: MountError; PermissionError when it would leave the mount.
    """
    root = api.reading(Ref(address.project, address.repo, None, address.commit))
    path = root / address.path.lstrip("/")
    if not path.resolve().is_relative_to(root.resolve()):
        raise PermissionError(f"{address} leads out of its repository.")
    return path


def read_label(api: MountApi, address: FileAddress) -> str | None:
    """The text of a label file at one commit; None when it is not there or no text. Raises: MountError, OSError."""
    try:
        return locate(api, address).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError):
        return None


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The (first, last) byte of a `Range` header, as the proxy hands it on; None for the whole file.

    Raises: ValueError when the range begins behind the end of the file.
    """
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", (header or "").strip())
    if not found or not size:
        return None
    first = int(found[1])
    # The proxy writes "-0" both for one byte at the start and for "until the end".
    last = int(found[2]) if found[2] and (int(found[2]) or not first) else size - 1
    if first >= size or last < first:
        raise ValueError(f"bytes */{size}")
    return first, min(last, size - 1)


def open_stream(api: MountApi, uri: str, range_header: str | None) -> tuple[Any, str | None, dict[str, Any]]:
    """The stream, the content type (None: by the name's extension) and the metadata that Label Studio's proxy asks for.

    Returns (None, None, {}) when the file does not exist. The tag is commit and path: such a file never changes.
    Raises: MountError, ValueError, PermissionError, OSError.
    """
    address = parse_address(uri)
    path = locate(api, address)
    if not path.is_file():
        return None, None, {}
    file = open(path, "rb")
    size = os.fstat(file.fileno()).st_size
    meta: dict[str, Any] = {"ETag": f"-{address.commit}{_tag(address.path)}", "StatusCode": 200, "ContentLength": size}
    try:
        part = byte_range(range_header, size)
    except ValueError as error:
        file.close()
        return Nothing(), None, {**meta, "StatusCode": 416, "ContentLength": 0, "ContentRange": str(error)}
    if part is None:
        return FileStream(file, size), None, meta
    first, last = part
    file.seek(first)
    meta.update(StatusCode=206, ContentLength=last - first + 1, ContentRange=f"bytes {first}-{last}/{size}")
    return FileStream(file, last - first + 1), None, meta


def _tag(path: str) -> str:
    # A header takes ASCII without quotes; any path becomes that without two paths becoming the same.
    return "".join(c if c.isalnum() and c.isascii() or c in "/._-" else f"%{ord(c):x};" for c in path)
