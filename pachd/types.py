"""Keys of Pachyderm's objects: hashable, comparable, and printed as Pachyderm prints them."""

from typing import NamedTuple


class Repo(NamedTuple):
    """A repo; `type` is user, meta or spec."""

    project: str
    name: str
    type: str = "user"

    def __str__(self) -> str:
        """Return `default/images`, or `default/images.spec` where the type is not user."""
        return f"{self.project}/{self.name}" + ("" if self.type == "user" else f".{self.type}")

    @property
    def key(self) -> str:
        """Return `default/images.user`, the form that some messages have."""
        return f"{self.project}/{self.name}.{self.type}"


class Branch(NamedTuple):
    """A branch of a repo."""

    repo: Repo
    name: str

    def __str__(self) -> str:
        """Return `default/images@master`."""
        return f"{self.repo}@{self.name}"


class Commit(NamedTuple):
    """A commit of a repo, by its ID of 32 hex digits."""

    repo: Repo
    id: str

    def __str__(self) -> str:
        """Return `default/images@<id>`."""
        return f"{self.repo}@{self.id}"
