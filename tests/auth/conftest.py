"""A pachd on which access control is active."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pachd.client import Client
from pachd.proto import auth_pb2, pfs_pb2
from tests.processes import Pachd, running

ROOT_TOKEN = "iamroot"


class Guarded:
    """A server with access control on, and clients of it by name."""

    def __init__(self, server: Pachd) -> None:
        self.server = server
        self.root = self.as_token(ROOT_TOKEN)

    def as_token(self, token: str | None) -> Client:
        """A client with this token."""
        return Client(self.server.address, token=token, timeout=30)

    def robot(self, name: str, ttl: int = 0) -> Client:
        """A client of a robot user."""
        reply = self.root.auth.GetRobotToken(auth_pb2.GetRobotTokenRequest(robot=name, ttl=ttl))
        return self.as_token(reply.token)

    def bind(self, principal: str, *roles: str, repo: str = "", project: str = "") -> None:
        """Give roles on a repo (`project/name`), a project, or the cluster."""
        kind, name = ("REPO", repo) if repo else ("PROJECT", project) if project else ("CLUSTER", "")
        resource = auth_pb2.Resource(type=kind, name=name)
        self.root.auth.ModifyRoleBinding(
            auth_pb2.ModifyRoleBindingRequest(resource=resource, principal=principal, roles=roles)
        )


def activate(address: str, token: str = ROOT_TOKEN) -> None:
    """What `pachctl auth activate` does."""
    with Client(address, timeout=30) as client:
        client.auth.Activate(auth_pb2.ActivateRequest(root_token=token))
    with Client(address, token=token, timeout=30) as client:
        client.pfs.ActivateAuth(pfs_pb2.ActivateAuthRequest())
        client.pps.ActivateAuth()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server of the module's own with access control on."""
    server = Pachd(tmp_path_factory.mktemp("guarded") / "data")
    with running(server):
        activate(server.address)
        yield Guarded(server)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[object]:
    """A data folder with all tables, without a server."""
    from pachd import upkeep

    with upkeep.open_folder(tmp_path / "data") as opened:
        yield opened
