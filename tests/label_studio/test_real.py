"""Label Studio on a real mount server and a real pachd: what the other tests show, once more without a stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.label_studio.browser import (
    add_source,
    add_target,
    choose_pachyderm,
    label_first,
    log_in,
    open_storages,
    press_sync,
)
from tests.label_studio.conftest import PNG, LabelStudio, copy_of, eventually
from tests.processes import MountServer, Pachd, running

if TYPE_CHECKING:
    from playwright.sync_api import Page


def repo(name: str) -> pfs_pb2.Repo:
    return pfs_pb2.Repo(project=pfs_pb2.Project(name="default"), name=name, type="user")


def head(name: str) -> pfs_pb2.Commit:
    return pfs_pb2.Commit(repo=repo(name), branch=pfs_pb2.Branch(repo=repo(name), name="master"))


def put(client: Client, name: str, files: dict[str, bytes]) -> None:
    requests = [pfs_pb2.ModifyFileRequest(set_commit=head(name))]
    for path, content in files.items():
        added = pfs_pb2.AddFile(path=path, raw=BytesValue(value=content))
        requests.append(pfs_pb2.ModifyFileRequest(add_file=added))
    client.pfs.ModifyFile(requests)


def commits(client: Client, name: str) -> list[Any]:
    return list(client.pfs.ListCommit(pfs_pb2.ListCommitRequest(repo=repo(name), to=head(name))))


def read(client: Client, name: str, path: str) -> bytes:
    file = pfs_pb2.File(commit=head(name), path=path, datum="default")
    return b"".join(part.value for part in client.pfs.GetFile(pfs_pb2.GetFileRequest(file=file)))


@pytest.fixture(scope="module")
def client(pachd_process: Pachd) -> Iterator[Client]:
    with Client(pachd_process.address) as made:
        for name in ("images", "labels"):
            made.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo(name)))
        put(made, "images", {f"/cats/{n:03}.png": PNG + b"%d" % n for n in range(6)})
        yield made


@pytest.fixture(scope="module")
def real(
    migrated: Path, client: Client, mount_process: MountServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabelStudio]:
    data = copy_of(migrated, tmp_path_factory.mktemp("real") / "data")
    with running(LabelStudio(data, mount_process.url, mount_process.mount_dir)) as server:
        yield server


def test_in_the_browser_from_the_dialog_to_a_commit_in_pachd(
    real: LabelStudio, client: Client, page: Page, tmp_path: Path
) -> None:
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo("pets")))
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo("pet-labels")))
    put(client, "pets", {f"/cats/{n:03}.png": PNG + b"%d" % n for n in range(3)})
    project = real.project("Browser")
    log_in(page, real)
    open_storages(page, real, project)
    choose_pachyderm(page, "Source")
    add_source(page, "Pets", "pets@master", "/cats/000.png")
    page.get_by_text("3 (3 new)").wait_for()
    add_target(page, "Pet labels", "pet-labels@master")
    page.screenshot(path=tmp_path / "1-storages.png")
    task = label_first(page, real, project)
    page.screenshot(path=tmp_path / "2-labelled.png")
    press_sync(page, real, project)
    page.get_by_text("+1 ~0 -0 labels by ann@example.org").wait_for()
    page.screenshot(path=tmp_path / "3-synced.png", full_page=True)
    (made,) = commits(client, "pet-labels")
    page.get_by_text(made.commit.id).wait_for()
    assert made.description == "Sync by ann@example.org: +1 ~0 -0 labels (project Browser)"
    label = json.loads(read(client, "pet-labels", "/cats/000.png.json"))
    assert label["id"] == task and label["annotations"][0]["result"][0]["value"] == {"choices": ["cat"]}
    assert label["annotations"][0]["completed_by"]["email"] == "ann@example.org"


def test_from_images_to_one_commit_of_labels_with_pachd_down_in_between(
    real: LabelStudio, client: Client, pachd_process: Pachd, mount_process: MountServer
) -> None:
    project = real.project("Cats")
    source = real.source(project, "images@master")
    assert real.sync_source(source)["last_sync_count"] == 6
    tasks = real.tasks(project)
    got = real.media(tasks[0]["id"], tasks[0]["data"]["image"])
    assert got.status_code == 200 and got.content == PNG + b"0"
    part = real.media(tasks[0]["id"], tasks[0]["data"]["image"], headers={"Range": "bytes=1-3"})
    assert part.status_code == 206 and part.content == PNG[1:4]
    target = real.target(project, "labels@master")

    first = real.annotate(tasks[0]["id"], "cat")
    real.annotate(tasks[1]["id"], "dog")
    done = real.sync_target(target)
    assert done["status"] == "completed" and done["meta"]["added"] == 2, done
    assert [one.commit.id for one in commits(client, "labels")] == [done["meta"]["commit"]]
    info = commits(client, "labels")[0]
    assert info.description == "Sync by ann@example.org: +2 ~0 -0 labels (project Cats)"
    assert json.loads(info.metadata["howdah.annotators"]) == {"ann@example.org": 2}
    label = json.loads(read(client, "labels", "/cats/000.png.json"))
    assert label["annotations"][0]["id"] == first and label["annotations"][0]["completed_by"]["email"]
    assert real.sync_target(target)["meta"]["commit"] is None and len(commits(client, "labels")) == 1

    pachd_process.kill()
    real.annotate(tasks[2]["id"], "cat")
    real.call("DELETE", f"/api/annotations/{first}/")
    failed = real.sync_target(target)
    assert failed["status"] == "failed" and failed["traceback"] and "Traceback" not in failed["traceback"]
    pachd_process.start()
    done = eventually(lambda: (one := real.sync_target(target))["status"] == "completed" and one, 60)
    assert (done["meta"]["added"], done["meta"]["deleted"]) == (1, 1), done
    assert len(commits(client, "labels")) == 2

    put(client, "images", {"/cats/000.png": PNG + b"changed", "/cats/new.png": PNG})
    again = real.sync_source(source)
    assert again["status"] == "completed" and again["last_sync_count"] == 2
    fresh = real.project("fresh")
    done = real.sync_source(real.source(fresh, "labels@master", use_blob_urls=False))
    assert done["status"] == "completed" and done["last_sync_count"] == 2


def test_a_branch_that_is_moved_back_and_one_that_is_made_anew(real: LabelStudio, client: Client) -> None:
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo("moved")))
    project = real.project("Moved")
    real.sync_source(real.source(project, "images@master"))
    target = real.target(project, "moved@master")
    tasks = real.tasks(project)
    made = []
    for task in tasks[:2]:
        real.annotate(task["id"])
        made.append(real.sync_target(target)["meta"]["commit"])
    branch = pfs_pb2.Branch(repo=repo("moved"), name="master")
    client.pfs.CreateBranch(
        pfs_pb2.CreateBranchRequest(branch=branch, head=pfs_pb2.Commit(repo=repo("moved"), id=made[0]))
    )
    done = real.sync_target(target)
    assert done["meta"]["commit"] is None and "was moved back" in done["meta"]["note"], done
    real.annotate(tasks[2]["id"])
    done = real.sync_target(target)
    assert done["meta"]["added"] == 1, done
    assert [one.commit.id for one in commits(client, "moved")] == [done["meta"]["commit"], made[0]]

    client.pfs.DeleteBranch(pfs_pb2.DeleteBranchRequest(branch=branch))
    gone = real.sync_target(target)
    assert gone["status"] == "failed" and "was deleted" in gone["traceback"], gone
    client.pfs.CreateBranch(pfs_pb2.CreateBranchRequest(branch=branch))
    done = real.sync_target(target)
    assert done["status"] == "completed" and done["meta"]["added"] == 3, done
    assert real.sync_target(target)["meta"]["commit"] is None
