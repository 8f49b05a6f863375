"""What happens at the worst moment: each moment is brought about, none is waited for."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from label_studio_backend.__main__ import _alone, _serving
from tests.label_studio.conftest import PNG, LabelStudio, eventually
from tests.label_studio.folder_server import Folder

TARGETS = "io_storages_pachyderm_pachydermexportstorage"
SOURCES = "io_storages_pachyderm_pachydermimportstorage"


@pytest.fixture
def once(folder: Folder) -> Iterator[Callable[[str, Callable[[], Any]], None]]:
    """Call something when the next `stage`, `status`, `commit` or `list` has come and is not answered yet."""
    yield lambda kind, action: folder.before[kind].append(action)
    left = {kind: waiting[:] for kind, waiting in folder.before.items() if waiting}
    for waiting in folder.before.values():
        waiting.clear()
    assert not left, "the moment never came"


class Bench:
    """A project with a source of four files and a target, and what a test asks of them."""

    def __init__(self, studio: LabelStudio, folder: Folder, images: str, labels: str, **target: Any) -> None:
        self.studio, self.folder, self.labels = studio, folder, labels
        self.project = studio.project(labels)
        studio.sync_source(studio.source(self.project, images))
        self.tasks = studio.tasks(self.project)
        self.target = studio.target(self.project, labels, **target)

    def label(self, number: int, value: str = "cat") -> int:
        return self.studio.annotate(self.tasks[number]["id"], value)

    def sync(self) -> dict[str, Any]:
        return self.studio.sync_target(self.target)

    @property
    def history(self) -> list[str]:
        return self.folder.branches[("default", self.labels)]["master"]

    @property
    def head(self) -> list[str]:
        return sorted(self.folder.files(self.history[-1])) if self.history else []

    def text(self, path: str) -> str:
        return (self.folder.root / self.history[-1] / path.lstrip("/")).read_text()

    @property
    def staged(self) -> dict[str, str | None]:
        return self.folder.staged.get(f"labels.default.{self.labels}.master", {})

    def wait_staged(self, *paths: str) -> None:
        eventually(lambda: self.staged.keys() >= set(paths), 60)


@pytest.fixture
def bench(studio: LabelStudio, folder: Folder, repos: tuple[str, str]) -> Bench:
    return Bench(studio, folder, *repos)


ALL = ["/cats/001.png.json", "/cats/002.png.json", "/dogs/001.png.json", "/notes.txt.json"]


def test_a_branch_made_anew_gets_all_labels_again(bench: Bench) -> None:
    for number in range(3):
        bench.label(number)
    assert bench.sync()["meta"]["added"] == 3
    bench.folder.branches[("default", bench.labels)]["master"] = []  # the old commits are still there
    done = bench.sync()
    assert done["status"] == "completed" and done["meta"]["added"] == 3 and bench.head == ALL[:3]
    bench.folder.branches[("default", bench.labels)]["master"] = []
    bench.folder.put("default", bench.labels, "master", {"/readme": b"another beginning"})
    bench.label(3)
    assert bench.sync()["meta"]["added"] == 4 and bench.head == [*ALL, "/readme"]
    assert len(bench.history) == 2 and bench.sync()["meta"]["commit"] is None


def test_a_branch_that_was_rolled_back_stays_there_and_the_card_says_so(bench: Bench) -> None:
    bench.label(0)
    bench.sync()
    bench.label(1)
    bench.sync()
    bench.history.pop()
    done = bench.sync()
    assert done["meta"]["commit"] is None and "was moved back" in done["meta"]["note"]
    bench.label(2)
    done = bench.sync()
    assert done["meta"]["added"] == 1 and "was moved back" in done["meta"]["note"]
    assert bench.head == [ALL[0], ALL[2]] and len(bench.history) == 2
    again = bench.sync()
    assert again["meta"]["commit"] is None and "note" not in again["meta"]


def test_others_may_commit_to_the_branch(bench: Bench, once: Callable[..., None]) -> None:
    bench.label(0)
    bench.sync()
    bench.folder.put("default", bench.labels, "master", {"/readme": b"1"})
    bench.label(1)
    once("commit", lambda: bench.folder.put("default", bench.labels, "master", {"/readme": b"2"}))
    done = bench.sync()
    assert done["status"] == "completed" and done["meta"]["added"] == 1 and "note" not in done["meta"]
    assert bench.head == [*ALL[:2], "/readme"] and bench.text("/readme") == "2" and len(bench.history) == 4


def test_a_branch_made_anew_just_before_the_commit(bench: Bench, once: Callable[..., None]) -> None:
    bench.label(0)
    bench.sync()
    bench.label(1)
    once("commit", bench.history.clear)
    assert bench.sync()["meta"]["added"] == 2 and bench.head == ALL[:2] and len(bench.history) == 1


def test_a_branch_made_anew_under_two_storages(studio: LabelStudio, folder: Folder, repos: tuple[str, str]) -> None:
    one, two = (Bench(studio, folder, *repos, prefix=prefix) for prefix in ("one", "two"))
    for bench in (one, two):
        bench.label(0)
        assert bench.sync()["meta"]["added"] == 1
    one.history.clear()
    one.sync()
    two.sync()
    assert one.head == ["/one/cats/001.png.json", "/two/cats/001.png.json"]


def test_a_mount_server_that_loses_everything_just_before_the_commit(bench: Bench, once: Callable[..., None]) -> None:
    bench.label(0)
    bench.sync()
    bench.label(1)
    bench.label(2)
    once("commit", bench.folder.staged.clear)
    done = bench.sync()
    assert done["status"] == "completed" and done["meta"]["added"] == 2
    assert bench.head == ALL[:3] and len(bench.history) == 2


def test_a_mount_server_that_loses_one_label_just_before_the_commit(bench: Bench, once: Callable[..., None]) -> None:
    bench.label(0)
    bench.label(1)
    once("commit", lambda: bench.staged.pop(ALL[0]))
    done = bench.sync()
    assert done["status"] == "completed_with_errors" and "1 labels got lost" in done["traceback"]
    assert done["meta"]["added"] == 1 and bench.head == [ALL[1]]
    assert bench.sync()["meta"]["added"] == 1 and bench.head == ALL[:2] and len(bench.history) == 2


def test_an_answer_that_got_lost(bench: Bench, once: Callable[..., None]) -> None:
    bench.label(0)
    bench.wait_staged(ALL[0])

    def commit_and_fail() -> None:
        staged = {path: text.encode() for path, text in bench.staged.items() if text}
        bench.folder.staged.clear()
        bench.folder.put("default", bench.labels, "master", staged)
        raise ConnectionError("the connection breaks")

    once("commit", commit_and_fail)
    assert bench.sync()["status"] == "failed"
    done = bench.sync()
    assert done["status"] == "completed" and done["meta"]["commit"] is None and len(bench.history) == 1
    assert done["last_commit"] == bench.history[0] and bench.head == ALL[:1]


def test_a_target_that_moves_or_goes_takes_back_what_no_sync_committed(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    one, two = (Bench(studio, folder, *repos, prefix=prefix) for prefix in ("one", "two"))
    first = one.label(0)
    one.sync()
    committed = one.text("/one/cats/001.png.json")
    studio.call("PATCH", f"/api/annotations/{first}/", {"result": []})
    one.label(1)
    one.wait_staged("/one/cats/001.png.json", "/one/cats/002.png.json")
    address = f"/api/storages/export/pachyderm/{one.target}"
    studio.call("PATCH", address, {"prefix": "moved"})
    two.label(2)
    two.sync()
    assert {"/one/cats/001.png.json", "/two/dogs/001.png.json"} <= set(two.head)
    assert two.text("/one/cats/001.png.json") == committed and "/one/cats/002.png.json" not in two.head
    one.sync()
    assert {"/moved/cats/001.png.json", "/moved/cats/002.png.json"} <= set(one.head)  # nothing was lost
    one.label(3)
    one.wait_staged("/moved/notes.txt.json")
    studio.call("DELETE", address)
    assert two.sync()["meta"]["commit"] is None
    two.label(0)
    assert two.sync()["meta"]["added"] == 1 and "/moved/notes.txt.json" not in two.head


def test_a_target_deleted_while_it_syncs(bench: Bench, once: Callable[..., None]) -> None:
    with bench.studio.staging_lock(f"default/{bench.labels}@master"):
        bench.label(0)  # the background sender has to wait
        once("stage", lambda: bench.studio.sql(f"DELETE FROM {TARGETS} WHERE id = ?", bench.target))
    # whoever comes first, sender or Sync, finds the storage gone after the label was brought
    answer = bench.studio.http.post(f"/api/storages/export/pachyderm/{bench.target}/sync")
    assert answer.status_code == 404, answer.text
    eventually(lambda: bench.staged.get(ALL[0], "") is None, 60)
    assert not bench.history


def test_a_sync_that_was_given_up_makes_nothing(bench: Bench, once: Callable[..., None]) -> None:
    def taken_over(table: str, storage: int) -> Callable[[], None]:
        update = f"UPDATE {table} SET ticket = 'another', status = 'failed', heartbeat = NULL WHERE id = ?"
        return lambda: bench.studio.sql(update, storage)

    bench.label(0)
    once("status", taken_over(TARGETS, bench.target))  # what a Sync asks just before it commits
    bench.sync()
    assert not bench.history
    assert bench.sync()["meta"]["added"] == 1 and len(bench.history) == 1

    fresh = bench.studio.project("fresh")
    images = f"i-{bench.labels[2:]}"
    bench.folder.put("default", images, "master", {"/more.png": PNG})
    source = bench.studio.source(fresh, images)
    once("list", taken_over(SOURCES, source))
    bench.studio.sync_source(source)
    assert not bench.studio.tasks(fresh)
    assert bench.studio.sync_source(source)["last_sync_count"] == 5


def test_a_task_that_changes_while_its_labels_are_staged_is_staged_again(bench: Bench) -> None:
    bench.label(0)
    bench.wait_staged(ALL[0])
    ids = [task["id"] for task in bench.tasks]
    out = bench.studio.shell(
        "import json, os\n"
        "from django.contrib.auth import get_user_model\n"
        "from label_studio_backend.models import PachydermExportStorage\n"
        "from label_studio_backend.staging import _Batch, staging, unstaged\n"
        "from tasks.models import Annotation, Task\n"
        f"storage, ids = PachydermExportStorage.objects.get(pk={bench.target}), {ids}\n"
        "result = Annotation.objects.get(task_id=ids[0]).result\n"
        "def change(task_id):\n"
        "    task = Task.objects.get(pk=task_id); task.meta = {'seen': task.meta.get('seen', 0) + 1}; task.save()\n"
        "found = []\n"
        "with staging(storage):\n"
        "    # known, marked already, and never staged before\n"
        "    change(ids[1])\n"
        "    user = get_user_model().objects.first()\n"
        "    for n in (1, 2):\n"
        "        Annotation.objects.create(task_id=ids[n], project_id=storage.project_id, result=result,\n"
        "                                  completed_by=user)\n"
        "    for _ in range(2):\n"
        "        batch = _Batch(storage, set(ids[:3]))\n"
        "        for task_id in ids[:3]:\n"
        "            change(task_id)\n"
        "        batch.run(60, False)\n"
        "        found.append(unstaged(storage))\n"
        "    batch = _Batch(storage, set(ids[:3])); batch.run(60, False); found.append(unstaged(storage))\n"
        "    print(json.dumps(found), flush=True)\n"
        "    os._exit(0)  # before this process's own sender can do it\n"
    )
    assert json.loads(out.strip().splitlines()[-1]) == [ids[:3], ids[:3], []]
    assert bench.sync()["meta"]["added"] == 3
    assert json.loads(bench.text(ALL[0]))["meta"] == {"seen": 2}


def test_a_live_sync_is_not_taken_for_a_dead_one(bench: Bench, tmp_path: Path) -> None:
    address = f"/api/storages/export/pachyderm?project={bench.project}"

    def shows(heartbeat: str) -> dict[str, Any]:
        bench.studio.sql(
            f"UPDATE {TARGETS} SET status = 'in_progress', traceback = NULL, heartbeat = {heartbeat},"
            """ meta = '{"time_last_ping": "2020-01-01 00:00:00+00:00"}' WHERE id = ?""",
            bench.target,
        )
        return bench.studio.call("GET", address)[0]

    assert shows("'2100-01-01 00:00:00'")["status"] == "in_progress"
    dead = shows("'2020-01-01 00:00:00'")
    assert dead["status"] == "failed" and "press Sync again" in dead["traceback"]

    shows("'2100-01-01 00:00:00'")
    release = "from label_studio_backend.models import PachydermExportStorage as S\nprint(S.release_interrupted({}))"
    assert bench.studio.shell(release.format(False)).strip() == "0"
    # one process serves the folder, then a second; when both are gone, the next is alone again
    assert _alone(tmp_path) and not _alone(tmp_path) and not _alone(tmp_path)
    for _ in range(3):
        _serving.pop().close()
    assert _alone(tmp_path)
    _serving.pop().close()
