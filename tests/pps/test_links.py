"""Links in the output to inputs whose bytes the code was not given: lazy ones, and those that are empty files."""

from typing import Any

import pytest

from pachd.client import Client
from pachd.proto import pps_pb2
from tests.pps.helpers import create, glob, last_job, names, new_repo, read

SCRIPT = """
ln -s /pfs/letters/a /pfs/out/one
mkdir /pfs/out/dir
ln -s /pfs/letters/more /pfs/out/dir/all
echo own > /tmp/own
ln -s /tmp/own /pfs/out/own
"""
FILES = {"/a": b"1", "/more/b": b"22", "/more/deep/c": b"333"}


@pytest.fixture(scope="module", autouse=True)
def letters(client: Client) -> None:
    new_repo(client, "letters", FILES)


@pytest.mark.parametrize("how", [{}, {"emptyFiles": True}, {"lazy": True}])
def test_what_a_link_leads_to_is_kept_whole(client: Client, how: dict[str, Any]) -> None:
    name = "".join(["links", *how])
    create(client, name, SCRIPT, glob("letters", "/", **how))
    job = last_job(client, name)
    assert (job.state, job.reason) == (pps_pb2.JOB_SUCCESS, "")
    assert names(client, name) == ["/dir/all/b", "/dir/all/deep/c", "/one", "/own"]
    assert read(client, name, "/one") == b"1" and read(client, name, "/own") == b"own\n"
    assert read(client, name, "/dir/all/b") == b"22" and read(client, name, "/dir/all/deep/c") == b"333"


def test_code_cannot_have_the_bytes_written_elsewhere(client: Client) -> None:
    """A folder of the input that the code replaces by a link is not written to: it may lead anywhere."""
    script = """
mv /pfs/letters/more /tmp/more
ln -s /tmp /pfs/letters/more
ln -s /pfs/letters/more/b /pfs/out/b
"""
    create(client, "moved", script, glob("letters", "/", emptyFiles=True))
    assert last_job(client, "moved").state == pps_pb2.JOB_SUCCESS
    assert read(client, "moved", "/b") == b"22"
