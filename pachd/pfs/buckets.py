"""Objects that clients name by URL: s3://bucket/key, gs://, azblob://, wasb://, minio://host/bucket/key, file:///path.

Credentials are those of pachd's own environment, in each store's usual variables. What would let a client reach into
the machine has to be allowed by whoever runs pachd: a host in the URL by `PACHD_URL_HOSTS`, a folder by
`PACHD_URL_FOLDERS` (separated by colons).
"""

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import obstore
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from pachd.errors import PachError
from pachd.pfs import web
from pachd.store.objects import Telling

CHUNK = 4 << 20  # bytes
_RETRY: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
_PART = 8 << 20  # bytes; S3 takes no smaller parts than 5 MiB


class Bucket:
    """One place in an object store: `key` is the object that the URL names, or the beginning of many."""

    def __init__(self, store: Any, key: str, url: str) -> None:
        self.store = store
        self.key = key
        self.url = url

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the names of the objects that begin with a prefix, sorted. Raises PachError."""
        directory = prefix if prefix.endswith("/") or not prefix else prefix.rpartition("/")[0]
        with Telling(f"error listing {self.url}", PachError):
            found = [each["path"] for page in obstore.list(self.store, directory or None) for each in page]
        yield from sorted(name for name in found if name.startswith(prefix))

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the content of an object, an empty piece first. Raises PachError."""
        with Telling(f"error reading {key!r} of {self.url}", PachError):
            result = obstore.get(self.store, key)
            yield b""
            for piece in result.stream(CHUNK):
                yield bytes(piece)

    def write(self, key: str, pieces: Iterable[bytes]) -> int:
        """Make or replace an object; it appears when it is complete. Returns its bytes. Raises PachError."""
        size = 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for piece in pieces:
                size += len(piece)
                yield piece

        with Telling(f"error writing {key!r} to {self.url}", PachError):
            iterator = counted()
            first = b""
            for piece in iterator:
                first += piece
                if len(first) >= _PART:
                    break
            else:
                obstore.put(self.store, key, first, use_multipart=False)
                return size

            def whole() -> Iterator[bytes]:
                yield first
                yield from iterator

            obstore.put(self.store, key, whole(), use_multipart=True, chunk_size=_PART)
        return size

    def target(self, path: str) -> str:
        """Return the name of the object that a file gets below the URL."""
        return f"{self.key}/{path.lstrip('/')}".lstrip("/")


def open_bucket(url: str) -> Bucket:
    """Return what a URL names. Raises PachError if it is none that can or may be used."""
    try:
        parsed = urlsplit(url)
        query = parse_qs(parsed.query)
        host = parsed.hostname or ""
    except ValueError as err:
        raise PachError(f"error parsing url {url}: {err}") from err
    key = unquote(parsed.path).strip("/")
    scheme = {"gcs": "gs", "test-minio": "minio", "wasbs": "wasb"}.get(parsed.scheme, parsed.scheme)
    with Telling(f"error opening bucket {url}", PachError):
        if scheme == "file":
            return Bucket(_folder(parsed.path, host), "", url)
        if scheme == "minio":
            bucket, _, key = key.partition("/")
            return Bucket(_minio(parsed.netloc, host, bucket), key, url)
        bucket = (parsed.username or "") if scheme == "wasb" else parsed.netloc
        if scheme in ("s3", "gs", "azblob", "wasb") and not bucket:
            raise PachError(f"error parsing url {url}: it names no bucket")
        if scheme == "s3":
            return Bucket(_s3(bucket, query), key, url)
        if scheme == "gs":
            return Bucket(GCSStore(bucket, retry_config=_RETRY), key, url)
        if scheme in ("azblob", "wasb"):
            account: Any = {"account_name": host.partition(".")[0]} if scheme == "wasb" else {}
            return Bucket(AzureStore(bucket, retry_config=_RETRY, **account), key, url)
    raise PachError(f"unrecognized object store: {parsed.scheme}")


def _s3(bucket: str, query: dict[str, list[str]]) -> Any:
    config: dict[str, Any] = {}
    endpoint = os.environ.get("CUSTOM_ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL") or ""
    if query.get("endpoint"):
        endpoint = query["endpoint"][0]
        web.require_allowed(urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}").hostname or "")
    plain = (query.get("disableSSL") or [os.environ.get("DISABLE_SSL", "")])[0].lower() in ("1", "t", "true")
    if endpoint:
        config["endpoint"] = endpoint if "://" in endpoint else f"{'http' if plain else 'https'}://{endpoint}"
    if query.get("region"):
        config["region"] = query["region"][0]
    elif not os.environ.get("AWS_REGION"):
        config["region"] = os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return S3Store(bucket, client_options=_client(config.get("endpoint", "")), retry_config=_RETRY, **config)


def _minio(netloc: str, host: str, bucket: str) -> Any:
    endpoint = os.environ.get("MINIO_ENDPOINT", "")
    if not endpoint:
        web.require_allowed(host)
        endpoint = netloc
    if not bucket:
        raise PachError(f"could not parse bucket of {netloc!r} from url")
    secure = os.environ.get("MINIO_SECURE", "").lower() in ("1", "t", "true")
    url = endpoint if "://" in endpoint else f"{'https' if secure else 'http'}://{endpoint}"
    return S3Store(
        bucket,
        endpoint=url,
        region="dummy-region",
        access_key_id=os.environ.get("MINIO_ID", "minioadmin"),
        secret_access_key=os.environ.get("MINIO_SECRET", "minioadmin"),
        client_options=_client(url),
        retry_config=_RETRY,
    )


def _client(endpoint: str) -> Any:
    return {"allow_http": endpoint.startswith("http://"), "timeout": "600s", "connect_timeout": "10s"}


def _folder(path: str, host: str) -> Any:
    folder = Path(os.path.realpath(unquote(path)))
    allowed = [os.path.realpath(each) for each in os.environ.get("PACHD_URL_FOLDERS", "").split(":") if each]
    if host or not any(folder.is_relative_to(each) for each in allowed):
        raise PachError(
            f"pachd does not use the folder {folder}, as a URL asks for it: name it in PACHD_URL_FOLDERS to allow that"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return LocalStore(folder)
