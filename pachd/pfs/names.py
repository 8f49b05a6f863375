"""Which names are allowed, in Pachyderm's words."""

import re

from pachd.errors import PachError

_NAME = re.compile(r"[a-zA-Z0-9_-]+\Z")
_ID = re.compile(r"[0-9a-fA-F]{12}4[0-9a-fA-F]{19}\Z")
_MAX_PROJECT = 51  # characters


def is_id(text: str) -> bool:
    """Tell whether a reference is a commit ID: a version 4 UUID in 32 hex digits without dashes."""
    return _ID.match(text) is not None


def validate_name(name: str) -> None:
    """Raise PachError unless `name` may name a repo."""
    if not _NAME.match(name):
        raise PachError(f"name ({name}) invalid: only alphanumeric characters, underscores, and dashes are allowed")


def validate_branch(name: str) -> None:
    """Raise PachError unless `name` may name a branch: a name that is not a commit ID."""
    validate_name(name)
    if is_id(name):
        raise PachError(f"branch name ({name}) invalid: it cannot be a UUIDv4, because commits are named so")


def validate_project(name: str) -> None:
    """Raise PachError unless `name` may name a project."""
    try:
        validate_name(name)
    except PachError as error:
        raise error.wrapped("invalid project name") from None
    if len(name) > _MAX_PROJECT:
        longer = len(name) - _MAX_PROJECT
        raise PachError(
            f'invalid project name: project name "{name}" is {longer} characters longer than the {_MAX_PROJECT} max'
        )
    if not name[0].isalnum():
        raise PachError(f'invalid project name: project names must start with an alphanumeric character, not "{name}"')
