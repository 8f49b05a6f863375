"""What can go wrong in a mount, in the words of the domain.

Adapters translate: the FUSE layer into an errno, the HTTP layer into a status and a JSON body.
Each has exactly one table.
"""


class MountError(Exception):
    """Base of all domain errors. str(error) is a sentence for the user: what happened, which object, what to do."""

    code = "internal"


class NotFound(MountError):
    """A file, mount, repo, branch or commit does not exist."""

    code = "not_found"


class AlreadyExists(MountError):
    """The name is taken by another file."""

    code = "already_exists"


class NotADirectory(MountError):
    """A part of the path is a file."""

    code = "not_a_directory"


class IsADirectory(MountError):
    """The operation is for files, the path is a directory."""

    code = "is_a_directory"


class NotEmpty(MountError):
    """The directory still holds something."""

    code = "not_empty"


class ReadOnly(MountError):
    """The mount, or the place in it, does not take changes."""

    code = "read_only"


class IllegalName(MountError):
    """PFS would refuse this path, so it is refused before anything is written."""

    code = "illegal_name"


class NotSupported(MountError):
    """PFS has nothing that this could become (a symbolic link, a device)."""

    code = "not_supported"


class InvalidRequest(MountError):
    """The request makes no sense as it stands."""

    code = "invalid_request"


class NameInUse(MountError):
    """Another mount has this name."""

    code = "name_in_use"


class HeadMoved(MountError):
    """The branch is not where the caller expects it to be."""

    code = "head_moved"


class Conflict(MountError):
    """The change cannot be made in the state that things are in."""

    code = "conflict"


class Unreachable(MountError):
    """pachd does not answer. Staged changes are kept."""

    code = "pachd_unreachable"


class TimedOut(Unreachable):
    """pachd took too long."""

    code = "pachd_timeout"


class Denied(MountError):
    """pachd refuses this user."""

    code = "permission_denied"


class Unauthenticated(MountError):
    """A token is missing or wrong."""

    code = "unauthenticated"


class NoSpace(MountError):
    """The disk that holds the state directory, or pachd's, is full."""

    code = "no_space"


class BadHandle(MountError):
    """The file handle is not open (for this)."""

    code = "bad_handle"


class PachdFailed(MountError):
    """pachd answered with an error that has no better name here."""

    code = "pachd_error"


class NotImplementedHere(MountError):
    """This server does not offer the call."""

    code = "not_implemented"


class CrossMount(MountError):
    """A rename or link would leave its mount; the caller has to copy."""

    code = "cross_mount"
