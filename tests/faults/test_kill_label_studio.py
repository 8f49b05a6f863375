"""kill -9 of Label Studio while people label: every acknowledged save is in the next Sync, which is one commit."""

import json
import shutil
import threading
import time
from pathlib import Path

import httpx
import pytest

from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.faults import helpers
from tests.label_studio.conftest import PNG, LabelStudio, choice, make_migrated
from tests.processes import MountServer, Pachd, running

COUNT = 60


class Annotator(threading.Thread):
    """Labels one task after another until the server is gone; remembers what was acknowledged."""

    def __init__(self, studio: LabelStudio, tasks: list[int]) -> None:
        super().__init__(daemon=True)
        self.studio, self.tasks = studio, tasks
        self.acknowledged: list[int] = []
        self.refused: list[str] = []

    def run(self) -> None:
        for task in self.tasks:
            try:
                answer = self.studio.http.post(f"/api/tasks/{task}/annotations/", json=choice("dog"))
            except httpx.HTTPError:
                return
            if answer.is_success:
                self.acknowledged.append(task)
            else:
                self.refused.append(answer.text[:500])


@pytest.mark.timeout(1800)
def test_labelling(tmp_path: Path) -> None:
    chance = helpers.chance()
    pachd = Pachd(tmp_path / "data")
    mount = MountServer(tmp_path / "mount", pachd.address)
    with running(pachd), running(mount):
        with Client(pachd.address, timeout=60) as client:
            for repo in ("images", "labels"):
                client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of(repo)))
            helpers.put(client, "images", [(f"/{n:03d}.png", PNG + b"%d" % n) for n in range(COUNT)])
            helpers.put(client, "labels", [])
        data = tmp_path / "studio"
        shutil.copytree(make_migrated(), data)
        with running(LabelStudio(data, mount.url, mount.mount_dir)) as studio:
            project = studio.project()
            studio.sync_source(studio.source(project))
            target = studio.target(project)
            left = [task["id"] for task in studio.tasks(project)]
            assert len(left) == COUNT
            acknowledged: list[int] = []
            for last in (False, True):
                annotator = Annotator(studio, left)
                annotator.start()
                time.sleep(chance.uniform(0.1, 1.5))
                while last and not acknowledged and not annotator.acknowledged and annotator.is_alive():
                    time.sleep(0.01)
                studio.kill()
                annotator.join(120)
                assert not annotator.refused, annotator.refused
                acknowledged += annotator.acknowledged
                studio.start()
                # (a save may be there although its answer was cut off)
                labelled = {t["id"] for t in studio.tasks(project) if t["annotations"]}
                assert set(acknowledged) <= labelled
                left = [t for t in left if t not in labelled]
            with Client(pachd.address, timeout=60) as client:
                before = {i.commit.id for i in helpers.commits(client, "labels")}
            answer = studio.sync_target(target)
            assert answer["status"] == "completed", answer
            with Client(pachd.address, timeout=60) as client:
                new = [i for i in helpers.commits(client, "labels") if i.commit.id not in before]
                assert len(new) == 1 and new[0].HasField("finished")
                there = helpers.paths(client, "labels")
                assert len(there) == len(labelled) and len(acknowledged) > 0
                label = json.loads(helpers.get(client, "labels", there[0]))
                assert label["annotations"][0]["result"][0]["value"] == {"choices": ["dog"]}
