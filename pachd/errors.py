"""What can go wrong, as a client is told. One table in `pachd.api.errors` maps these classes to gRPC statuses.

`str(error)` is the exact text that a client sees. Most of Pachyderm's errors travel as UNKNOWN: a plain `PachError`.
"""


class PachError(Exception):
    """An error for the client; gRPC status UNKNOWN."""

    def wrapped(self, prefix: str) -> "PachError":
        """Return the same kind of error with `prefix: ` before its text, as Pachyderm's layers add their own words."""
        return type(self)(f"{prefix}: {self}")


class NotFound(PachError):
    """An object does not exist."""


class AlreadyExists(PachError):
    """An object of that name exists already."""


class InvalidArgument(PachError):
    """The request makes no sense, whatever the state of the server."""


class FailedPrecondition(PachError):
    """The state of the server does not allow the request."""


class Unimplemented(PachError):
    """This pachd does not have what was asked for."""


class Unauthenticated(PachError):
    """The client did not say who it is."""


class PermissionDenied(PachError):
    """The client may not do that."""


class ResourceExhausted(PachError):
    """No room: disk, memory or a limit."""


class Unavailable(PachError):
    """Not now; trying again may help."""


class NotYet(PachError):
    """What was asked for is being made: who can wait does, and who cannot is told this."""


class Aborted(PachError):
    """Another writer was quicker; trying again may help."""


class DeadlineExceeded(PachError):
    """It took longer than the client allows."""


class Internal(PachError):
    """Something inside is not as it must be."""
