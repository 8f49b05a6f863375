"""Metadata is edited all or not at all, and what a caller may not edit is told edit by edit."""

import pytest
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.proto import admin_pb2, metadata_pb2, pfs_pb2, version_pb2
from tests.auth.conftest import Guarded
from tests.auth.helpers import create, put

COLOUR = {"key": "colour", "value": "red"}


def edit(client: Client, *edits: metadata_pb2.Edit) -> None:
    client.metadata.EditMetadata(metadata_pb2.EditMetadataRequest(edits=edits))


def paint(name: str, kind: str, op: str = "edit_key") -> metadata_pb2.Edit:
    """An edit of a repo, of its master branch or of the commit at its head."""
    picked = {"name": {"project": {"name": "default"}, "name": name, "type": "user"}}
    branch = {"name": {"repo": picked, "name": "master"}}
    of = {"repo": picked, "branch": branch, "commit": {"branch_head": branch}}[kind]
    return metadata_pb2.Edit(**{kind: of, op: COLOUR})


def metadata_of(client: Client, name: str) -> dict[str, str]:
    repo = pfs_pb2.Repo(name=name, type="user", project=pfs_pb2.Project(name="default"))
    return dict(client.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=repo)).metadata)


def test_all_refusals_are_told_at_once_and_nothing_is_edited(guarded: Guarded) -> None:
    create(guarded.root, "fence")
    put(guarded.root, "fence", "/a")
    edits = [paint("fence", kind) for kind in ("commit", "branch", "repo")]
    edits.append(metadata_pb2.Edit(cluster={}, edit_key=COLOUR))
    passer = guarded.robot("passer")
    with pytest.raises(RpcError) as caught:
        edit(passer, *edits)
    assert caught.value.code is Status.PERMISSION_DENIED
    told = caught.value.message.splitlines()
    assert [line.split(": robot:passer is not authorized")[0] for line in told] == [
        'apply edits: edit #1: check permissions on branch "default/fence.user@master" of repo "default/fence.user"',
        'edit #2: check permissions on repo "default/fence.user"',
        "edit #3: check cluster permissions",
    ]
    assert metadata_of(guarded.root, "fence") == {}
    guarded.bind("robot:passer", "repoWriter", repo="default/fence")
    edit(passer, *edits[:3])
    assert metadata_of(guarded.root, "fence") == {"colour": "red"}


def test_a_refusal_among_other_errors_is_a_refusal(guarded: Guarded) -> None:
    create(guarded.root, "wall")
    create(guarded.root, "own")
    guarded.bind("robot:painter", "repoWriter", repo="default/own")
    painter = guarded.robot("painter")
    edit(painter, paint("own", "repo"))
    with pytest.raises(RpcError) as caught:
        edit(painter, paint("own", "repo", "add_key"), paint("wall", "repo"), paint("nowhere", "repo"))
    assert caught.value.code is Status.PERMISSION_DENIED
    numbers = [line.split("edit #")[1][0] for line in caught.value.message.splitlines() if "edit #" in line]
    assert numbers == ["0", "1", "2"]
    with pytest.raises(RpcError) as caught:
        edit(painter, paint("own", "repo", "add_key"))
    assert caught.value.code is Status.FAILED_PRECONDITION


def test_clients_are_warned(guarded: Guarded) -> None:
    def warnings(client: Client, *version: int, project: str = "", additional: str = "") -> str:
        request = admin_pb2.InspectClusterRequest(current_project=pfs_pb2.Project(name=project))
        if version:
            major, minor, micro = version
            request.client_version.CopyFrom(
                version_pb2.Version(major=major, minor=minor, micro=micro, additional=additional)
            )
        return "\n".join(client.admin.InspectCluster(request).warnings)

    root, stranger = guarded.root, guarded.as_token(None)
    assert warnings(root, 2, 12, 0) == warnings(root, 0, 0, 0) == warnings(root, 2, 12, 9, project="default") == ""
    assert "did not send its version" in warnings(root)
    assert "much older" in warnings(root, 2, 11, 9) and "much newer" in warnings(root, 3, 0, 0)
    assert "compatible with v2.12.2." in warnings(root, 2, 12, 2, additional="-rc.1")
    assert "much older" in warnings(root, 2, 12, 2, additional="what_ever")  # no version by the rules of semver.org
    assert 'Could not inspect project "gone"' in warnings(root, 2, 12, 2, project="gone")
    assert warnings(stranger, 2, 12, 2, project="gone") == ""  # who is not signed in learns nothing of projects


def test_a_restart_that_was_asked_for_is_shown(guarded: Guarded) -> None:
    with pytest.raises(RpcError) as caught:
        guarded.robot("impatient").admin.RestartPachyderm(admin_pb2.RestartPachydermRequest())
    assert caught.value.code is Status.PERMISSION_DENIED
    assert not guarded.root.admin.InspectCluster(admin_pb2.InspectClusterRequest()).pending_restart
    guarded.root.admin.RestartPachyderm(admin_pb2.RestartPachydermRequest(reason="new certificate"))
    guarded.root.admin.RestartPachyderm(admin_pb2.RestartPachydermRequest())
    info = guarded.root.admin.InspectCluster(admin_pb2.InspectClusterRequest())
    assert info.pending_restart
    assert info.restart_info == "restart requested by pach:root; new certificate by pach:root"
