"""What pachd does not have is told in one sentence that names it."""

import pytest

from mount_server import errors
from mount_server.pachd_source import PachdSource
from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.processes import Pachd


def test_one_sentence_names_what_is_not_there(pachd_process: Pachd) -> None:
    repo = pfs_pb2.Repo(name="asked", type="user", project=pfs_pb2.Project(name="default"))
    with Client(pachd_process.address) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
        client.pfs.CreateBranch(pfs_pb2.CreateBranchRequest(branch=pfs_pb2.Branch(repo=repo, name="master")))
    source = PachdSource(pachd_process.address)
    try:
        found = source.branch("default", "asked", "master")
        for ask, words in (
            (lambda: source.has_repo("default", "nope"), "repo default/nope not found"),
            (lambda: source.branch("default", "asked", "nope"), "branch default/asked@nope not found"),
            (lambda: source.commit("default", "asked", "0" * 32), f"commit default/asked@{'0' * 32} not found"),
            (lambda: source.branch("default", "nope", "master"), "repo default/nope not found"),
            (lambda: source.commit("default", "nope", found.head), "repo default/nope not found"),
        ):
            with pytest.raises(errors.NotFound) as error:
                ask()
            assert str(error.value) == words
    finally:
        source.close()
