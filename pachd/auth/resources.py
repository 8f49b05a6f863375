"""What roles are given on: the cluster, a project, a repo."""

from typing import NamedTuple, Self

from pachd.proto import auth_pb2
from pachd.proto.auth_pb2 import CLUSTER, PROJECT, REPO, SPEC_REPO
from pachd.types import Repo


class Resource(NamedTuple):
    """A resource: an auth_v2.ResourceType, and the name of the project or `project/repo` ("" for the cluster)."""

    type: int
    name: str = ""

    @classmethod
    def of(cls, message: auth_pb2.Resource) -> Self:
        """Return what a message names."""
        return cls(message.type, message.name)

    @property
    def key(self) -> str:
        """Return the name of its role binding."""
        return f"{type_name(self.type)}:{'' if self.type == CLUSTER else self.name}"

    def __str__(self) -> str:
        """Return `REPO default/images`; the cluster has no name but keeps its blank, as in Pachyderm's sentences."""
        return f"{type_name(self.type)} {self.name}"


def type_name(type: int) -> str:
    """Return the name of a resource type, of an unknown one its number."""
    names = auth_pb2.ResourceType.keys() if type in auth_pb2.ResourceType.values() else ()
    return auth_pb2.ResourceType.Name(type) if names else str(type)


THE_CLUSTER = Resource(CLUSTER)


def project_resource(name: str) -> Resource:
    """Return the resource of a project."""
    return Resource(PROJECT, name)


def repo_resource(repo: Repo) -> Resource:
    """Return the resource of a repo; a meta repo shares its pipeline's, a spec repo has one that everybody reads."""
    return Resource(SPEC_REPO if repo.type == "spec" else REPO, f"{repo.project}/{repo.name}")
