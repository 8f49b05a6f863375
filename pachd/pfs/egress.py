"""Files of a commit written to an object store."""

from collections.abc import Iterable

from pachd.pfs.buckets import open_bucket
from pachd.pfs.read import Entry, View


def egress(view: View, files: Iterable[Entry], url: str) -> int:
    """Write files below a URL (see `pachd.pfs.buckets`), each as an object with its whole path; returns their bytes.

    Objects that are there already are replaced, others are let alone. Raises PachError: what was written stays.
    """
    bucket = open_bucket(url)
    return sum(bucket.write(bucket.target(each.path), view.read(each)) for each in files if not each.is_dir)
