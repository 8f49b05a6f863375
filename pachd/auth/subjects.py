"""Subjects: who can hold a role, a name with a prefix that says of which kind."""

from pachd.errors import PachError

ROOT = "pach:root"
INTERNAL = "internal:auth-server"
EVERYBODY = "allClusterUsers"
PACH, ROBOT, PIPELINE = "pach:", "robot:", "pipeline:"
_PREFIXES = (PIPELINE, "internal:", ROBOT, PACH, "user:", "group:")


def check_subject(subject: str) -> None:
    """Raise PachError unless `subject` is `<type>:<name>` or everybody."""
    if subject == EVERYBODY or subject.startswith(_PREFIXES):
        return
    prefix, colon, _ = subject.partition(":")
    if not colon:
        raise PachError("subject has no prefix, must be of the form <type>:<name>")
    raise PachError(f"subject has unrecognized prefix: {prefix}:")
