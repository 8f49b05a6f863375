"""The two things that pipeline code may ask over gRPC: the next datum, and a file of an earlier commit.

A worker with `datumBatching` starts the code once and hands it datum after datum (Pachyderm's worker.proto). The few
messages are written by hand here, so that a pipeline needs no Pachyderm client and no generated code.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator

from pipelines.layout import pfs
from pipelines.unary import Caller, CallError


def each_datum(work: Callable[[], None]) -> None:
    """Call `work` once for every datum that the worker hands out; returns when the worker has no more.

    Before each call `/pfs` and the environment are those of the datum. An exception fails that datum alone: it is
    reported to the worker, which decides on another try. The worker usually kills this process after the last datum.
    """
    port = os.environ.get("PPS_WORKER_GRPC_PORT")
    if not port:
        raise SystemExit("PPS_WORKER_GRPC_PORT is not set: batching needs a worker (transform.datumBatching)")
    try:
        with Caller(int(port)) as worker:
            error = ""
            while True:
                reply = worker.call("/pachyderm.worker.Worker/NextDatum", _text(1, error) if error else b"")
                _set_environment([value.decode() for number, value in _fields(reply) if number == 1])
                error = _tried(work)
    except CallError as e:
        print(f"no more datums: {e}", file=sys.stderr)


def _tried(work: Callable[[], None]) -> str:
    """What went wrong in it, "" for nothing."""
    error = ""
    try:
        work()
    except Exception as e:
        traceback.print_exc()
        error = f"{type(e).__name__}: {e}"
    sys.stdout.flush()
    sys.stderr.flush()
    return error


def read_file(repo: str, commit: str, path: str, project: str | None = None) -> bytes:
    """Read one file of any commit from the pachd that this worker belongs to.

    :param commit: a commit ID, with ancestry if wanted (`<id>^` is its parent).
    :raises OSError: no pachd is named in the environment, it cannot be reached, or it answered with an error.
    """
    host, port = os.environ.get("PACHD_PEER_SERVICE_HOST"), os.environ.get("PACHD_PEER_SERVICE_PORT")
    if not host or not port:
        raise OSError("PACHD_PEER_SERVICE_HOST and _PORT are not set")
    project = project or os.environ.get("PPS_PROJECT_NAME") or "default"
    repo_message = _text(1, repo) + _text(2, "user") + _message(3, _text(1, project))
    file = _message(1, _message(3, repo_message) + _text(2, commit)) + _text(2, path)

    import grpc  # type: ignore[import-untyped]  # it takes longer to load than a small datum's whole work

    with grpc.insecure_channel(f"{host}:{port}") as channel:
        replies = channel.unary_stream("/pfs_v2.API/GetFile")(_message(1, file), timeout=60)
        try:
            return b"".join(value for reply in replies for number, value in _fields(reply) if number == 1)
        except grpc.RpcError as e:
            raise OSError(e.details()) from e


def _set_environment(pairs: list[str]) -> None:
    if not pairs:  # some workers leave it in a file only
        dotenv = pfs() / ".env"
        pairs = dotenv.read_text().splitlines() if dotenv.exists() else []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if equals:
            os.environ[name] = value


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _message(field: int, value: bytes) -> bytes:
    """A field of wire type 2: text, bytes or a message inside a message."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message whose fields are all of wire type 2."""
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(data):
        key = varint()
        if key & 7 != 2:
            raise ValueError(f"unexpected wire type {key & 7} in a reply")
        size = varint()
        yield key >> 3, data[at : at + size]
        at += size
