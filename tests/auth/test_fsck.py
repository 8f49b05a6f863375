"""Fsck names files where it is asked about zombies: only who may read them may ask."""

from pachd.proto import pfs_pb2
from tests.auth.conftest import Guarded
from tests.auth.helpers import create, head, pipeline, put, refused


def test_who_asks_about_zombies_may_read_the_outputs(guarded: Guarded) -> None:
    create(guarded.root, "grain")
    put(guarded.root, "grain", "/a")
    guarded.root.pps.CreatePipeline(pipeline("mill", "grain"))
    user = guarded.robot("gleaner")
    one, every = pfs_pb2.FsckRequest(zombie_target=head("mill")), pfs_pb2.FsckRequest(zombie_all=True)
    for request in (one, every):
        refused(lambda r=request: user.pfs.Fsck(r), "REPO_READ", on="REPO default/mill")  # type: ignore[misc]
    assert not list(user.pfs.Fsck(pfs_pb2.FsckRequest()))  # the structure of the store is nobody's secret
    guarded.bind("robot:gleaner", "repoReader", repo="default/mill")
    guarded.root.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=head("mill"), wait=pfs_pb2.FINISHED))
    for request in (one, every):
        assert not list(user.pfs.Fsck(request))
