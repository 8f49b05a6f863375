"""Label Studio: source and target Syncs, saving a label, serving an image; the peer is its own local-files storage."""

import base64
import functools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.wrappers_pb2 import BytesValue

from benchmarks.result import Row, row
from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.label_studio.conftest import CONFIG, PNG, LabelStudio, choice, make_migrated
from tests.label_studio.conftest import copy_of as copy_folder
from tests.processes import MountServer, Pachd, running

STOCK = "stock Label Studio, local files"
SAVES = 60


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call took, and its value."""
    begin = time.perf_counter()
    value = work()
    return time.perf_counter() - begin, value


def put(client: Client, repo: str, files: dict[str, bytes]) -> None:
    """One commit of files on master; the repo is made at the first time."""
    key = pfs_pb2.Repo(project=pfs_pb2.Project(name="default"), name=repo, type="user")
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=key, update=True))
    if files:
        commit = pfs_pb2.Commit(repo=key, branch=pfs_pb2.Branch(repo=key, name="master"))
        requests = [pfs_pb2.ModifyFileRequest(set_commit=commit)]
        for path, content in files.items():
            added = pfs_pb2.AddFile(path=path, raw=BytesValue(value=content))
            requests.append(pfs_pb2.ModifyFileRequest(add_file=added))
        client.pfs.ModifyFile(requests)


def label_all(studio: LabelStudio, project: int) -> None:
    """One annotation for each task, written past Label Studio's signals: nothing stages them."""
    result = choice("cat")["result"]
    studio.shell(
        "from django.db.models import QuerySet\nfrom tasks.models import Annotation, Task\n"
        "from users.models import User\n"
        f"fields = dict(project_id={project}, completed_by=User.objects.first(), result={result!r}, result_count=1)\n"
        f"ids = Task.objects.filter(project={project}).values_list('id', flat=True)\n"
        "made = [Annotation(task_id=i, **fields, lead_time=1.5) for i in ids]\n"
        "QuerySet(Annotation).bulk_create(made, batch_size=1000)"
    )


def stage_all(studio: LabelStudio, target: int) -> float:
    """Change every annotation and stage them all, as the background sender does; labels per second."""
    seconds = studio.shell(
        "import time\n"
        "from django.db.models import F\n"
        "from django.utils import timezone\n"
        "from tasks.models import Annotation\n"
        "from label_studio_backend.models import PachydermExportStorage\n"
        "from label_studio_backend.staging import stage, staging_lock, unstaged\n"
        f"storage = PachydermExportStorage.objects.get(pk={target})\n"
        "found = Annotation.objects.filter(project=storage.project)\n"
        "found.update(updated_at=timezone.now(), lead_time=F('lead_time') + 1)\n"
        "ids = unstaged(storage); begin = time.perf_counter()\n"
        "for i in range(0, len(ids), 500):\n"
        "    with staging_lock(storage.ref):\n"
        "        stage(storage, ids[i:i + 500])\n"
        "print(len(ids) / (time.perf_counter() - begin))\n"
    )
    return float(seconds.strip().splitlines()[-1])


def saves(studio: LabelStudio, projects: list[int]) -> list[float]:
    """Median milliseconds of POST annotation per project; the projects take turns, so that noise hits them alike."""
    tasks = {
        project: studio.call("GET", f"/api/tasks?project={project}&page_size={SAVES + 5}")["tasks"]
        for project in projects
    }
    times: dict[int, list[float]] = {project: [] for project in projects}
    for n in range(SAVES + 5):
        for project in projects:
            seconds, _ = timed(functools.partial(studio.annotate, tasks[project][n]["id"]))
            if n >= 5:
                times[project].append(seconds * 1000)
            time.sleep(0.05)  # a person is not faster; the sender works in between, as it does then
    return [statistics.median(times[project]) for project in projects]


def source_rows(
    studio: LabelStudio, grow: Callable[[dict[str, bytes]], None], count: int, peer: tuple[float, float]
) -> list[Row]:
    """First Sync of many items, again with nothing new, again with ten new ones."""
    source = studio.source(studio.project("source"), "images@master")
    first, done = timed(lambda: studio.sync_source(source))
    assert done["status"] == "completed" and done["last_sync_count"] == count, done
    again = min(timed(lambda: studio.sync_source(source))[0] for _ in range(5))
    grow({f"/new/{n}.png": PNG for n in range(10)})
    diff, done = timed(lambda: studio.sync_source(source))
    assert done["last_sync_count"] == 10, done
    return [
        row(
            f"Source Sync of {count:,} items, first",
            count / first,
            "tasks/s",
            4000,
            at_least=True,
            peer=STOCK,
            peer_value=peer[0],
        ),
        row(
            f"Source Sync of {count:,} items, nothing new",
            count / again,
            "items/s",
            50000,
            at_least=True,
            peer=STOCK,
            peer_value=peer[1],
        ),
        row(f"Source Sync of {count:,} items, ten new", diff, "s", 0.5),
    ]


def target_rows(studio: LabelStudio, count: int, peer: tuple[float, float]) -> list[Row]:
    """Sync of labels that no hook staged, of staged ones, and of nothing."""
    project = studio.project("target")
    studio.sync_source(studio.source(project, "images@master"))
    label_all(studio, project)
    target = studio.target(project, "labels@master")
    fresh, done = timed(lambda: studio.sync_target(target))
    total = done["meta"]["added"]
    assert done["status"] == "completed" and total >= count, done
    staging = stage_all(studio, target)
    staged, done = timed(lambda: studio.sync_target(target))
    assert done["meta"]["changed"] == total, done
    nothing = []
    for _ in range(5):
        seconds, done = timed(lambda: studio.sync_target(target))
        assert done["meta"]["commit"] is None
        nothing.append(seconds)
    return [
        row(
            f"Sync of {count:,} staged labels into one commit",
            total / staged,
            "labels/s",
            4000,
            at_least=True,
            peer=STOCK,
            peer_value=peer[0],
        ),
        row(
            f"Sync of {count:,} labels that were not staged",
            total / fresh,
            "labels/s",
            1000,
            at_least=True,
            peer=STOCK,
            peer_value=peer[0],
        ),
        row("Staging labels in batches", staging, "labels/s", 2000, at_least=True),
        row("Sync with nothing changed", statistics.median(nothing), "s", 0.1, peer=STOCK, peer_value=peer[1]),
    ]


def stock(studio: LabelStudio, folder: Path, count: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """The peer in the same server: local-files source (tasks/s, items/s again), target (labels/s, seconds again)."""
    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for n in range(count):
        (images / f"{n:05d}.png").write_bytes(PNG)
    project = studio.project("stock")
    body = {"project": project, "title": "s", "use_blob_urls": True}
    source = studio.call("POST", "/api/storages/localfiles", {**body, "path": str(images)})["id"]
    first, done = timed(lambda: studio.call("POST", f"/api/storages/localfiles/{source}/sync"))
    assert done["status"] == "completed" and done["last_sync_count"] == count, done
    again, _ = timed(lambda: studio.call("POST", f"/api/storages/localfiles/{source}/sync"))
    label_all(studio, project)
    target = studio.call("POST", "/api/storages/export/localfiles", {**body, "path": str(labels)})["id"]
    out, done = timed(lambda: studio.call("POST", f"/api/storages/export/localfiles/{target}/sync"))
    assert done["status"] == "completed", done
    out_again, _ = timed(lambda: studio.call("POST", f"/api/storages/export/localfiles/{target}/sync"))
    return (count / first, count / again), (count / out, out_again * 10_000 / count)


def saving_rows(studio: LabelStudio) -> list[Row]:
    """What our target adds to the saving of one annotation, and an image's way to the browser."""
    projects = [studio.project(title, label_config=CONFIG) for title in ("without", "with")]
    for project in projects:
        studio.sync_source(studio.source(project, "few@master"))
    studio.target(projects[1], "labels@saving")
    without, with_target = saves(studio, projects)
    task = studio.call("GET", f"/api/tasks?project={projects[0]}&page_size=1")["tasks"][0]["id"]
    uri = studio.tasks(projects[0])[0]["data"]["image"]
    path = f"/tasks/{task}/resolve/?fileuri={base64.urlsafe_b64encode(uri.encode()).decode()}"
    times = [timed(lambda: studio.http.get(path).raise_for_status())[0] * 1000 for _ in range(50)]
    return [
        row("Saving an annotation: added by our target", with_target - without, "ms", 5,
            peer="the same without a target, whole request", peer_value=without),
        row("Small image through Label Studio", statistics.median(times), "ms", 20),
    ]  # fmt: skip


def run(tmp: Path, quick: bool = False) -> list[Row]:
    """All rows, on a pachd, a mount server and a Label Studio of their own below `tmp`."""
    count = 1_000 if quick else 10_000
    local = {"LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true", "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(tmp)}
    with running(Pachd(tmp / "pachd")) as server, running(MountServer(tmp / "mount", server.address)) as mount:
        with Client(server.address) as client:
            put(client, "images", {f"/d{n // 1000}/{n:05d}.png": PNG + b"%d" % n for n in range(count)})
            put(client, "few", {f"/{n:03d}.png": PNG + b"%d" % n for n in range(SAVES + 5)})
            put(client, "labels", {})
            data = copy_folder(make_migrated(), tmp / "studio")
            with running(LabelStudio(data, mount.url, mount.mount_dir, {**os.environ, **local})) as studio:
                source, target = stock(studio, tmp / "local", count // 10)
                rows = source_rows(studio, lambda files: put(client, "images", files), count, source)
                rows += target_rows(studio, count, target)
                return rows + saving_rows(studio)
