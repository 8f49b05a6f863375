"""Files whose content pachd itself fetches from a URL."""

from collections.abc import Iterator

import httpx

from pachd.errors import PachError
from pachd.proto import pfs_pb2

TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 20  # bytes


def fetch(path: str, source: pfs_pb2.AddFile.URLSource) -> Iterator[tuple[str, bytes]]:
    """Yield (path, bytes) pieces of what `source` names, to be appended to each path in this order.

    :raises PachError: the scheme is not http(s), the server cannot be reached or answers with an error.
    """
    url = httpx.URL(source.URL)
    if url.scheme not in ("http", "https"):
        raise PachError(f"cannot fetch {source.URL!r}: this pachd reads http and https URLs only")
    yield path, b""  # an empty answer is an empty file
    try:
        with httpx.stream("GET", url, timeout=TIMEOUT, follow_redirects=True) as response:
            if response.status_code >= 400:
                raise PachError(
                    f"error retrieving content from {source.URL!r}: {response.status_code} {response.reason_phrase}"
                )
            for chunk in response.iter_bytes(CHUNK):
                yield path, chunk
    except httpx.HTTPError as e:
        raise PachError(f"error retrieving content from {source.URL!r}: {e}") from None
