"""The one table from what goes wrong inside pachd to the gRPC status that a client sees."""

import errno
import logging
import sqlite3

from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pachd import errors

log = logging.getLogger(__name__)

# Most of Pachyderm's errors reach the client as UNKNOWN: a plain PachError.
STATUS: list[tuple[type[errors.PachError], Status]] = [
    (errors.NotFound, Status.NOT_FOUND),
    (errors.AlreadyExists, Status.ALREADY_EXISTS),
    (errors.InvalidArgument, Status.INVALID_ARGUMENT),
    (errors.FailedPrecondition, Status.FAILED_PRECONDITION),
    (errors.Unimplemented, Status.UNIMPLEMENTED),
    (errors.Unauthenticated, Status.UNAUTHENTICATED),
    (errors.PermissionDenied, Status.PERMISSION_DENIED),
    (errors.ResourceExhausted, Status.RESOURCE_EXHAUSTED),
    (errors.Unavailable, Status.UNAVAILABLE),
    (errors.Aborted, Status.ABORTED),
    (errors.DeadlineExceeded, Status.DEADLINE_EXCEEDED),
    (errors.Internal, Status.INTERNAL),
    (errors.PachError, Status.UNKNOWN),
]

# A longer status message overflows the header limit of common clients, who then see no message at all.
MAX_DETAILS = 4096  # characters


def to_grpc(error: Exception, method: str) -> GRPCError:
    """Return what a client of `method` is told about `error`; the unexpected is logged with its traceback."""
    if isinstance(error, GRPCError):
        return error
    for kind, status in STATUS:
        if isinstance(error, kind):
            return GRPCError(status, _cut(str(error)))
    if isinstance(error, DecodeError):
        return GRPCError(Status.INTERNAL, f"the request of {method} is not a valid message: {error}")
    if _is_full(error):
        return GRPCError(
            Status.RESOURCE_EXHAUSTED, "the disk of pachd is full: nothing was written; free space and try again"
        )
    log.error("%s failed unexpectedly", method, exc_info=error)
    return GRPCError(Status.INTERNAL, _cut(f"{method} failed inside pachd: {type(error).__name__}: {error}"))


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, sqlite3.OperationalError) and "full" in str(error)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_DETAILS else text[: MAX_DETAILS - 1] + "…"
