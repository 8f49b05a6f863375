"""Egress: the output of a job, copied to where a URL says."""

from __future__ import annotations

import threading

from pachd.errors import Unimplemented
from pachd.pfs import buckets, read
from pachd.proto import pps_pb2


def url_of(egress: pps_pb2.Egress) -> str:
    """Where an egress goes.  Raises Unimplemented for databases."""
    if egress.HasField("sql_database"):
        raise Unimplemented(
            "this pachd cannot egress to SQL databases: write the table with the pipeline's own code, or egress files "
            "to an object store"
        )
    return egress.URL or egress.object_storage.url


def check(egress: pps_pb2.Egress) -> None:
    """Refuse an egress that cannot work: Unimplemented, PermissionDenied, or PachError where the URL is none."""
    buckets.open_bucket(url_of(egress))


def push(url: str, view: read.View, stopped: threading.Event) -> int:
    """Copy every file of a commit below ``url``; returns their number.

    What lies there under other names stays.  ``stopped`` ends it early.  Raises PachError with the reason.
    """
    bucket = buckets.open_bucket(url)
    count = 0
    for entry in view.walk("/"):
        if stopped.is_set():
            break
        if not entry.is_dir:
            bucket.write(bucket.target(entry.path), view.read(entry))
            count += 1
    return count
