"""A spout while access control is active: its code calls pachd as the pipeline, and may do no more than that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pachd.client import Client
from pachd.proto import auth_pb2, pps_pb2
from tests.pps.helpers import create, inspect, log_lines, names, new_repo, wait_for
from tests.processes import Pachd, running

ROOT_TOKEN = "root-token-of-this-test"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running(Pachd(tmp_path_factory.mktemp("auth") / "data")) as server:
        with Client(server.address) as anybody:
            anybody.auth.Activate(auth_pb2.ActivateRequest(root_token=ROOT_TOKEN))
        with Client(server.address, token=ROOT_TOKEN) as client:
            yield client


def test_it_writes_its_output_and_nothing_else(root: Client, tmp_path: Path) -> None:
    new_repo(root, "closed", {"/secret": b"x"})
    script = (
        "echo mine | pachctl put file own@master:/f\n"
        "pachctl get file closed@master:/secret || echo refused to read\n"
        "echo theirs | pachctl put file closed@master:/f || echo refused to write\n"
        "sleep 1000"
    )
    create(root, "own", script, transform={"cmd": ["bash"]}, spout={})
    wait_for(lambda: any(x.message == "refused to write" for x in log_lines(root, "own")), "the code's attempts")
    said = [line.message for line in log_lines(root, "own") if line.user]
    assert "refused to read" in said and names(root, "own") == ["/f"]
    assert names(root, "closed") == ["/secret"]
    assert any("not authorized" in message for message in said)
    assert inspect(root, "own").state == pps_pb2.PIPELINE_RUNNING
