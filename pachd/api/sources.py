"""Files whose content pachd itself fetches from a URL."""

import posixpath
from collections.abc import Iterator

from pachd.pfs import web
from pachd.pfs.buckets import open_bucket
from pachd.proto import pfs_pb2


def fetch(path: str, source: pfs_pb2.AddFile.URLSource) -> Iterator[tuple[str, bytes]]:
    """Yield (path, bytes) pieces of what `source` names, to be appended to each path in this order.

    From an object store, `recursive` makes a file of every object whose name begins as the URL says.

    :raises PachError: there is no such thing, it cannot be reached, or pachd must not fetch it.
    """
    url = source.URL
    if url.partition(":")[0].lower() in ("http", "https"):
        for piece in web.fetch(url):
            yield path, piece
        return
    bucket = open_bucket(url)
    if not source.recursive:
        for piece in bucket.read(bucket.key):
            yield path, piece
        return
    for key in bucket.list(bucket.key):
        place = posixpath.join(path, key.removeprefix(bucket.key).lstrip("/")).rstrip("/")
        for piece in bucket.read(key):
            yield place, piece
