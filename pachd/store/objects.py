"""Packs on S3-compatible storage: each is a row of objects of 8 MiB, the last one shorter.

An object that nobody needs any more becomes an empty one. Credentials come from the environment (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and what else the AWS tools know) and are never told.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from pachd.errors import Unavailable
from pachd.store import system
from pachd.store.packs import PIECE, Part, merged
from pachd.store.store import StoreError

SEGMENT = 8 << 20
_UPLOADS = 4  # at once, of all streams together
_AHEAD = 2  # segments that one stream has under way
_TRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=45)}
_DEBUG = "\n\nDebug source"  # what obstore adds to its sentences

T = TypeVar("T")


class ObjectsError(StoreError, Unavailable):
    """The object storage does not answer, or refuses. str() says which, and what it said."""


def check_url(url: str) -> tuple[str, str]:
    """(bucket, prefix) of s3://bucket/prefix. Raises StoreError for any other URL."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise StoreError(f"{url}: objects can be kept at s3://BUCKET/PREFIX only")
    if "@" in parts.netloc:
        raise StoreError("credentials for the object storage belong into the environment, not into its URL")
    return parts.netloc, parts.path.strip("/")


class ObjectStore:
    """One place for packs. `name`s are those of packs; every method raises ObjectsError when the storage fails.

    :param url: s3://bucket/prefix.
    :param endpoint: http(s)://host:port of storage that is not Amazon's.
    :param folder: below the prefix: what belongs to one data folder.
    """

    def __init__(self, url: str, endpoint: str, folder: str) -> None:
        bucket, prefix = check_url(url)
        self.url, self.endpoint = url, endpoint
        self._run = system.random_bytes(4).hex()
        below = f"{prefix}/{folder}".strip("/")
        config: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
        if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
            config["region"] = "us-east-1"
        client: Any = {"allow_http": endpoint.startswith("http://"), "timeout": "60s", "connect_timeout": "10s"}
        with self._telling("cannot be used"):
            self._store = S3Store(bucket, prefix=below, client_options=client, retry_config=_TRIES, **config)
        self._pool = ThreadPoolExecutor(_UPLOADS, thread_name_prefix="objects")

    def _telling(self, what: str) -> "Telling":
        return Telling(f"the object storage {self.url}{f' at {self.endpoint}' if self.endpoint else ''} {what}")

    def probe(self) -> None:
        """Write, read and remove an object."""
        name = f"probe-{self._run}"
        with self._telling("cannot be used"):
            obstore.put(self._store, name, b"probe", use_multipart=False)
            found = bytes(obstore.get(self._store, name).bytes())
            obstore.delete(self._store, name)
        if found != b"probe":
            raise ObjectsError(f"{self.url} does not return what was written to it")

    def create(self, container: int) -> "ObjectWriter":
        """Begin a pack."""
        return ObjectWriter(self, container, f"{self._run}/{container:x}")

    def put(self, name: str, number: int, data: bytes) -> None:
        """Make one object of a pack."""
        with self._telling("does not take what is written"):
            obstore.put(self._store, f"{name}/{number:06}", data, use_multipart=False)

    def submit(self, call: Callable[..., T], *args: Any) -> "Future[T]":
        """Run a call in a thread of the storage's own."""
        return self._pool.submit(call, *args)

    def read(self, name: str, start: int, length: int) -> Iterator[bytes]:
        """The bytes of a pack from `start`, in pieces. Raises StoreError if they are not there."""
        while length:
            number, at = divmod(start, SEGMENT)
            count = min(length, SEGMENT - at)
            with self._telling("does not give what was written to it"):
                found = memoryview(obstore.get_range(self._store, f"{name}/{number:06}", start=at, length=count))
            if len(found) != count:
                raise StoreError(f"object {name}/{number:06} of {self.url} is too short; run `pachd fsck`")
            for piece in range(0, count, PIECE):
                yield bytes(found[piece : piece + PIECE])
            start, length = start + count, length - count

    def sizes(self, name: str) -> dict[int, int]:
        """The bytes of each object of a pack."""
        with self._telling("cannot be listed"):
            found = [entry for page in obstore.list(self._store, name) for entry in page]
        return {int(entry["path"].rpartition("/")[2]): entry["size"] for entry in found}

    def size(self, name: str, size: int) -> int | None:
        """How many of the `size` bytes of a pack there are, counting those given back; None if there is none."""
        sizes = self.sizes(name)
        if not sizes:
            return None
        count = 0
        for number, start in enumerate(range(0, size, SEGMENT)):
            expected = min(SEGMENT, size - start)
            if sizes.get(number) not in (expected, 0):
                break
            count += expected
        return count

    def keep_only(self, name: str, size: int, parts: Iterable[Part]) -> int:
        """Empty the objects of a pack in which no part lies; returns how many bytes that gave back."""
        live = {n for start, stop in merged(parts) for n in range(start // SEGMENT, (stop - 1) // SEGMENT + 1)}
        dead = [number for number in range(-(-size // SEGMENT)) if number not in live]
        if not dead:
            return 0
        sizes, freed = self.sizes(name), 0
        for number in dead:
            if sizes.get(number):
                self.put(name, number, b"")
                freed += sizes[number]
        return freed

    def remove(self, names: Iterable[str]) -> None:
        """Remove packs."""
        for name in names:
            found = [f"{name}/{number:06}" for number in self.sizes(name)]
            with self._telling("does not remove what is not needed"):
                if found:
                    obstore.delete(self._store, found)

    def clean(self, known: set[str]) -> int:
        """Remove packs of earlier processes that no transaction names; returns how many objects."""
        with self._telling("cannot be listed"):
            found = [entry["path"] for page in obstore.list(self._store) for entry in page]
            stray = [path for path in found if path.rpartition("/")[0] not in known and not self._of_now(path)]
            if stray:
                obstore.delete(self._store, stray)
        return len(stray)

    def _of_now(self, path: str) -> bool:
        return path.startswith(f"{self._run}/") or path == f"probe-{self._run}"

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class ObjectWriter:
    """A pack being written; segments are sent while the next one is filled."""

    def __init__(self, place: ObjectStore, container: int, name: str) -> None:
        self.container = container
        self.name = name
        self.size = 0
        self.sealed = False
        self._place = place
        self._filling = bytearray()
        self._number = 0
        self._sent: list[Future[None]] = []

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            part = view[: SEGMENT - len(self._filling)]
            self._filling += part
            view = view[len(part) :]
            if len(self._filling) == SEGMENT:
                self._send()
        self.size += len(data)

    def _send(self) -> None:
        while len(self._sent) >= _AHEAD:
            self._sent.pop(0).result()
        data, self._filling = bytes(self._filling), bytearray()
        self._sent.append(self._place.submit(self._place.put, self.name, self._number, data))
        self._number += 1

    def seal(self) -> None:
        if self.sealed:
            return
        if self._filling:
            self._send()
        while self._sent:
            self._sent.pop(0).result()
        self.sealed = True

    def abort(self) -> None:
        """Remove it, if the storage answers; otherwise the next process does."""
        for sent in self._sent:
            sent.cancel()
            if not sent.cancelled():
                sent.exception()
        self._sent.clear()
        if self._number:
            try:
                self._place.remove([self.name])
            except ObjectsError:
                pass


class Telling:
    """A context in which errors of object storage become `kind`, with a sentence in front."""

    def __init__(self, sentence: str, kind: type[Exception] = ObjectsError) -> None:
        self._sentence, self._kind = sentence, kind

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (BaseError, OSError, ValueError)):
            reason = str(error).partition(_DEBUG)[0]
            raise self._kind(f"{self._sentence}: {reason}") from None
