"""What goes wrong with storages in stock Label Studio, or went wrong in earlier Pachyderm storages."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from tests.label_studio.conftest import CONFIG, PNG, LabelStudio, choice, eventually
from tests.label_studio.folder_server import Folder


def mount_of(labels: str) -> str:
    return f"labels.default.{labels}.master"


def history(folder: Folder, repo: str) -> list[str]:
    return folder.branches[("default", repo)]["master"]


def test_two_syncs_at_once_import_once_and_commit_once(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    folder.put("default", repos[0], "master", {f"/many/{n:04}.png": PNG for n in range(800)})
    project = studio.project()
    source, target = studio.source(project, repos[0]), studio.target(project, repos[1])
    with ThreadPoolExecutor(4) as pool:
        states = {one["status"] for one in pool.map(studio.sync_source, [source] * 4)}
    assert states <= {"completed", "in_progress", "queued"}
    tasks = studio.tasks(project)
    assert len(tasks) == 804
    studio.annotate(tasks[0]["id"])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(studio.sync_target, [target] * 4))
    assert len(history(folder, repos[1])) == 1


def test_a_dead_sync_does_not_lock_for_ever(studio: LabelStudio, repos: tuple[str, str]) -> None:
    project = studio.project()
    source = studio.source(project, repos[0])

    def seen_alive(seconds_ago: int) -> None:
        moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
        update = (
            "UPDATE io_storages_pachyderm_pachydermimportstorage SET status = 'in_progress', heartbeat = ? WHERE id = ?"
        )
        studio.sql(update, moment.strftime("%Y-%m-%d %H:%M:%S.%f"), source)

    seen_alive(3)
    assert studio.sync_source(source)["status"] == "in_progress" and not studio.tasks(project)
    seen_alive(60)
    assert studio.sync_source(source)["last_sync_count"] == 4


def test_a_mount_server_that_is_down_neither_fails_nor_delays_the_labeler_and_sync_says_why(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    project = studio.project()
    studio.sync_source(studio.source(project, repos[0]))
    target = studio.target(project, repos[1])
    tasks = studio.tasks(project)
    folder.down = True
    folder.mounts.pop(mount_of(repos[1]))
    try:
        for task in tasks:
            studio.annotate(task["id"])
        failed = studio.sync_target(target)
        assert failed["status"] == "failed" and "pachd at 127.0.0.1:30650 cannot be reached" in failed["traceback"]
        assert "Traceback" not in failed["traceback"]
        card = studio.call("GET", f"/api/storages/export/pachyderm?project={project}")[0]
        assert card["status"] == "failed" and card["traceback"] == failed["traceback"]
    finally:
        folder.down = False
    done = studio.sync_target(target)
    assert done["status"] == "completed" and done["meta"]["added"] == 4 and done["traceback"] is None


def test_sync_finds_what_no_hook_announced(studio: LabelStudio, folder: Folder, repos: tuple[str, str]) -> None:
    project = studio.project()
    target = studio.target(project, repos[1])
    body = [
        {"data": {"image": f"pachyderm://default/{repos[0]}@{'a' * 32}/x/{n}.png"}, "annotations": [choice("dog")]}
        for n in range(3)
    ]
    studio.call("POST", f"/api/projects/{project}/import", body)
    done = studio.sync_target(target)
    assert done["meta"]["added"] == 3
    ids = [task["id"] for task in studio.tasks(project)]
    studio.sql("UPDATE task_completion SET was_cancelled = 1 WHERE task_id = ?", ids[0])
    studio.sql("DELETE FROM task_completion WHERE task_id = ?", ids[1])
    done = studio.sync_target(target)
    assert (done["meta"]["added"], done["meta"]["changed"], done["meta"]["deleted"]) == (0, 1, 1)


def test_predictions_turned_into_annotations_are_committed(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    project = studio.project()
    target = studio.target(project, repos[1])
    uri = f"pachyderm://default/{repos[0]}@{'a' * 32}/p.png"
    body = [{"data": {"image": uri}, "predictions": [{"model_version": "1", "result": choice("cat")["result"]}]}]
    studio.call("POST", f"/api/projects/{project}/import", body)
    action = f"/api/dm/actions?id=predictions_to_annotations&project={project}"
    studio.call("POST", action, {"selectedItems": {"all": True, "excluded": []}})
    assert studio.sync_target(target)["meta"]["added"] == 1


def test_deletions_are_committed_with_tombstones_of_our_own(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    project = studio.project()
    studio.sync_source(studio.source(project, repos[0]))
    target = studio.target(project, repos[1])
    tasks = studio.tasks(project)
    ids = [studio.annotate(task["id"]) for task in tasks]
    assert studio.sync_target(target)["meta"]["added"] == 4
    studio.call("DELETE", f"/api/annotations/{ids[0]}/")
    studio.call("DELETE", f"/api/tasks/{tasks[1]['id']}/")
    action = f"/api/dm/actions?id=delete_tasks&project={project}"
    studio.call("POST", action, {"selectedItems": {"all": False, "included": [tasks[2]["id"]]}})
    done = studio.sync_target(target)
    assert (done["meta"]["changed"], done["meta"]["deleted"]) == (0, 3)
    assert list(folder.files(history(folder, repos[1])[-1])) == ["/notes.txt.json"]
    assert studio.sync_target(target)["meta"]["commit"] is None
    kept = studio.call("PATCH", f"/api/storages/export/pachyderm/{target}", {"can_delete_objects": False})
    assert kept["can_delete_objects"] is False
    studio.call("DELETE", f"/api/annotations/{ids[3]}/")
    assert studio.sync_target(target)["meta"]["commit"] is None
    studio.call("PATCH", f"/api/storages/export/pachyderm/{target}", {"can_delete_objects": True})
    assert studio.sync_target(target)["meta"]["deleted"] == 1


def test_deletions_switched_on_while_a_label_is_being_staged(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    project = studio.project()
    studio.sync_source(studio.source(project, repos[0]))
    target = studio.target(project, repos[1], can_delete_objects=False)
    label = studio.annotate(studio.tasks(project)[0]["id"])
    assert studio.sync_target(target)["meta"]["added"] == 1
    address = f"/api/storages/export/pachyderm/{target}"
    with ThreadPoolExecutor() as pool:
        with studio.staging_lock(f"default/{repos[1]}@master"):
            studio.call("DELETE", f"/api/annotations/{label}/")
            time.sleep(0.5)  # by now the background sender has read the storage's settings and waits for the lock
            patched = pool.submit(studio.call, "PATCH", address, {"can_delete_objects": True})
            time.sleep(0.5)
        assert patched.result()["can_delete_objects"] is True
    assert studio.sync_target(target)["meta"]["deleted"] == 1


def test_a_deleted_task_stays_deleted_a_changed_file_is_a_new_task_a_removed_file_is_reported(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    project = studio.project()
    source, target = studio.source(project, repos[0]), studio.target(project, repos[1])
    studio.sync_source(source)
    tasks = studio.tasks(project)
    studio.call("DELETE", f"/api/tasks/{tasks[0]['id']}/")
    assert studio.sync_source(source)["last_sync_count"] == 0
    studio.annotate(tasks[1]["id"], "cat")
    assert studio.sync_target(target)["meta"]["added"] == 1
    head = folder.put(
        "default", repos[0], "master", {"/cats/002.png": PNG + b"new", "/dogs/001.png": None, "/z.png": PNG}
    )
    done = studio.sync_source(source)
    assert done["last_sync_count"] == 2 and done["meta"]["removed"] == 1
    assert done["meta"]["removed_paths"] == ["/dogs/001.png"]
    new = [task for task in studio.tasks(project) if head in task["data"]["image"]]
    assert [task["data"]["image"].rpartition("/")[2] for task in new] == ["002.png", "z.png"]
    # The label of an item is that of its newest labelled version: one file, whichever task it came from.
    studio.annotate(new[0]["id"], "dog")
    assert studio.sync_target(target)["meta"]["changed"] == 1
    text = (folder.root / history(folder, repos[1])[-1] / "cats/002.png.json").read_text()
    assert json.loads(text)["id"] == new[0]["id"]
    studio.call("DELETE", f"/api/tasks/{new[0]['id']}/")
    assert studio.sync_target(target)["meta"]["changed"] == 1
    text = (folder.root / history(folder, repos[1])[-1] / "cats/002.png.json").read_text()
    assert json.loads(text)["id"] == tasks[1]["id"]


def test_validate_with_an_id_does_not_save(studio: LabelStudio, repos: tuple[str, str]) -> None:
    project = studio.project()
    source, target = studio.source(project, repos[0]), studio.target(project, repos[1])
    for path, storage in ((f"storages/pachyderm/{source}", source), (f"storages/export/pachyderm/{target}", target)):
        where = path.rpartition("/")[0]
        body = {
            "id": storage,
            "project": project,
            "title": "changed",
            "repository": f"{repos[0]}@master",
            "prefix": "new",
        }
        studio.call("POST", f"/api/{where}/validate", body)
        assert studio.call("GET", f"/api/{path}")["title"] != "changed"
    body = {"id": source, "project": project, "title": "changed", "repository": repos[0], "limit": 2}
    files = studio.call("POST", "/api/storages/pachyderm/files", body)["files"]
    assert [one["key"] for one in files] == ["/cats/001.png", "/cats/002.png", None] and files[0]["size"] == len(PNG)
    assert studio.call("GET", f"/api/storages/pachyderm/{source}")["title"] == "images"


def test_bad_input_is_refused_on_its_field(studio: LabelStudio, repos: tuple[str, str]) -> None:
    project = studio.project()
    cases = [
        ("storages/pachyderm", {"repository": "no/such/repo"}, "repository"),
        ("storages/pachyderm", {"repository": "nosuch@master"}, "repository"),
        ("storages/pachyderm", {"repository": f"{repos[0]}@nosuch"}, "repository"),
        ("storages/pachyderm", {"repository": f"{repos[0]}={'b' * 32}"}, "repository"),
        ("storages/pachyderm", {"repository": repos[0], "prefix": "../x"}, "prefix"),
        ("storages/pachyderm", {"repository": "http://127.0.0.1:1/x"}, "repository"),
        ("storages/export/pachyderm", {"repository": f"{repos[1]}={'b' * 32}"}, "repository"),
        ("storages/export/pachyderm", {"repository": repos[1], "prefix": "a*b"}, "prefix"),
        ("storages/export/pachyderm", {"repository": ""}, "repository"),
    ]
    for path, body, field in cases:
        for action in ("", "/validate"):
            answer = studio.call("POST", f"/api/{path}{action}", {"project": project, "title": "t", **body}, expect=400)
            assert field in str(answer), (body, answer)
    assert studio.call("GET", f"/api/storages/pachyderm?project={project}") == []


def test_the_forks_fields_are_accepted(studio: LabelStudio, repos: tuple[str, str]) -> None:
    project = studio.project()
    body = {"project": project, "pach_project": "default", "pach_repo": repos[0], "pach_branch": "master"}
    body.update({"pachd_address": "grpc://evil:1", "use_blob_urls": True})
    made = studio.call("POST", "/api/storages/pachyderm/", body)
    assert made["repository"] == f"default/{repos[0]}@master" and "pachd_address" not in made
    assert studio.call("POST", f"/api/storages/pachyderm/{made['id']}/sync/")["last_sync_count"] == 4


def test_media_only_of_repositories_of_the_project_and_only_for_its_members(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    project = studio.project()
    studio.sync_source(studio.source(project, repos[0], prefix="cats"))
    task = studio.tasks(project)[0]
    uri = task["data"]["image"]
    assert len(studio.tasks(project)) == 2 and studio.media(task["id"], uri).status_code == 200
    folder.create("default", "secret")
    secret = folder.put("default", "secret", "master", {"/s.txt": b"s"})
    (folder.root / "outside.txt").write_text("outside")
    for bad in (
        f"pachyderm://default/secret@{secret}/s.txt",
        uri.replace("/cats/001.png", "/notes.txt"),
        uri.replace("/cats/001.png", "/cats/../../../outside.txt"),
        uri.replace("/cats/001.png", "/cats/%2e%2e/%2e%2e/outside.txt"),
        "file:///etc/passwd",
        "http://127.0.0.1/",
    ):
        assert studio.media(task["id"], bad).status_code in (404, 424), bad
    link = folder.mount_dir / f"read.default.{repos[0]}.{uri.partition('@')[2].partition('/')[0]}" / "cats" / "link.png"
    os.symlink("/etc/hostname", link)
    assert studio.media(task["id"], uri.replace("001.png", "link.png")).status_code == 424
    assert studio.media(task["id"], uri.replace("001.png", "none.png")).status_code == 424
    link.unlink()
    anonymous = studio.http.get(f"/tasks/{task['id']}/resolve/?fileuri=x", headers={"Authorization": ""})
    assert anonymous.status_code in (401, 403)


def test_two_storages_on_one_branch_share_its_commits_and_never_overwrite_each_other(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    projects = [studio.project(title) for title in ("one", "two")]
    for project in projects:
        studio.sync_source(studio.source(project, repos[0]))
    targets = [studio.target(projects[0], repos[1]), studio.target(projects[1], repos[1])]
    studio.annotate(studio.tasks(projects[0])[0]["id"], "cat")
    assert studio.sync_target(targets[0])["status"] == "completed"
    studio.annotate(studio.tasks(projects[1])[0]["id"], "dog")
    clash = studio.sync_target(targets[1])
    assert clash["status"] == "completed_with_errors" and "another prefix" in clash["traceback"]
    assert len(history(folder, repos[1])) == 1
    studio.call("PATCH", f"/api/storages/export/pachyderm/{targets[1]}", {"prefix": "two"})
    done = studio.sync_target(targets[1])
    assert done["status"] == "completed" and done["meta"]["added"] == 1
    assert list(folder.files(history(folder, repos[1])[-1])) == ["/cats/001.png.json", "/two/cats/001.png.json"]
    same = studio.target(projects[0], repos[1])
    assert studio.sync_target(same)["meta"]["commit"] is None and len(history(folder, repos[1])) == 2


def test_labels_lost_by_the_mount_server_are_brought_again(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    project = studio.project()
    studio.sync_source(studio.source(project, repos[0]))
    target = studio.target(project, repos[1])
    studio.annotate(studio.tasks(project)[0]["id"])
    eventually(lambda: folder.staged.get(mount_of(repos[1])))
    folder.staged.pop(mount_of(repos[1]))
    assert studio.sync_target(target)["meta"]["added"] == 1
    studio.annotate(studio.tasks(project)[1]["id"])
    eventually(lambda: folder.staged.get(mount_of(repos[1])))
    folder.staged.clear()
    folder.mounts.clear()  # it was restarted on an empty state folder
    assert studio.sync_target(target)["meta"]["added"] == 1


def test_annotating_while_a_sync_runs_loses_nothing(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    folder.put("default", repos[0], "master", {f"/many/{n:03}.png": PNG for n in range(120)})
    project = studio.project()
    studio.sync_source(studio.source(project, repos[0], prefix="many"))
    target = studio.target(project, repos[1])
    tasks = [task["id"] for task in studio.tasks(project)]
    stop = threading.Event()

    def press() -> None:
        while not stop.is_set():
            assert studio.sync_target(target)["status"] in ("completed", "in_progress", "queued")

    presser = threading.Thread(target=press)
    presser.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(studio.annotate, tasks))
    stop.set()
    presser.join()
    assert studio.sync_target(target)["status"] == "completed"
    assert len(folder.files(history(folder, repos[1])[-1])) == 120


def test_label_files_come_back_into_a_fresh_project_with_their_authors(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    project = studio.project()
    studio.sync_source(studio.source(project, repos[0]))
    target = studio.target(project, repos[1])
    task = studio.tasks(project)[0]
    studio.annotate(task["id"], "dog")
    studio.sync_target(target)
    path = folder.root / history(folder, repos[1])[-1] / "cats/001.png.json"
    label = json.loads(path.read_text())
    label["annotations"][0]["completed_by"] = {
        "id": 77,
        "email": "bob@example.org",
        "first_name": "Bob",
        "last_name": "B",
    }
    label["annotations"][0]["created_at"] = "2024-05-06T07:08:09.123456Z"
    folder.put("default", repos[1], "master", {"/cats/001.png.json": json.dumps(label).encode()})
    fresh = studio.project("fresh")
    done = studio.sync_source(studio.source(fresh, repos[1], use_blob_urls=False))
    assert done["status"] == "completed" and done["last_sync_count"] == 1
    back = studio.tasks(fresh)[0]
    assert back["data"] == task["data"] and back["total_annotations"] == 1
    annotation = back["annotations"][0]
    assert annotation["result"] == label["annotations"][0]["result"]
    assert annotation["created_at"] == "2024-05-06T07:08:09.123456Z"
    author = studio.call("GET", f"/api/users/{annotation['completed_by']}")
    assert author["email"] == "bob@example.org" and author["first_name"] == "Bob"


def test_saving_is_not_slowed_by_a_mount_server_that_hangs(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    project = studio.project(label_config=CONFIG)
    studio.sync_source(studio.source(project, repos[0]))
    target = studio.target(project, repos[1])
    tasks = [task["id"] for task in studio.tasks(project)]
    with folder.lock:  # every request waits
        begin = time.monotonic()
        for task in tasks:
            studio.annotate(task)
        assert time.monotonic() - begin < 25  # a request to the mount server would wait for thirty
    assert studio.sync_target(target)["meta"]["added"] == 4
