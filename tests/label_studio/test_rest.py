"""Source and target storages over REST, end to end."""

import json

from tests.label_studio.conftest import PNG, LabelStudio, eventually
from tests.label_studio.folder_server import Folder


def test_source_sync_makes_tasks_of_the_exact_commit(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    project = studio.project()
    source = studio.source(project, f"{repos[0]}@master", regex_filter=r".*\.png")
    done = studio.sync_source(source)
    assert done["status"] == "completed" and done["last_sync_count"] == 3
    commit = folder.branches[("default", repos[0])]["master"][-1]
    uris = [task["data"]["image"] for task in studio.tasks(project)]
    wanted = ["/cats/001.png", "/cats/002.png", "/dogs/001.png"]
    assert uris == [f"pachyderm://default/{repos[0]}@{commit}{path}" for path in wanted]
    again = studio.sync_source(source)
    assert again["status"] == "completed" and again["last_sync_count"] == 0 and again["meta"]["tasks_existed"] == 3


def test_media_is_served_with_ranges_and_a_tag(studio: LabelStudio, repos: tuple[str, str]) -> None:
    project = studio.project()
    studio.sync_source(studio.source(project, repos[0]))
    tasks = {task["data"]["image"].rpartition("/")[2]: task for task in studio.tasks(project)}
    note = tasks["notes.txt"]
    uri = note["data"]["image"]
    whole = studio.media(note["id"], uri)
    assert whole.status_code == 200 and whole.content == b"0123456789" and whole.headers["content-length"] == "10"
    part = studio.media(note["id"], uri, headers={"Range": "bytes=2-5"})
    assert part.status_code == 206 and part.content == b"2345" and part.headers["content-range"] == "bytes 2-5/10"
    assert studio.media(note["id"], uri, headers={"Range": "bytes=4-"}).content == b"456789"
    assert studio.media(note["id"], uri, headers={"Range": "bytes=10-"}).status_code == 416
    tag = whole.headers["etag"]
    assert studio.media(note["id"], uri, headers={"If-None-Match": tag}).status_code == 304
    image = studio.media(tasks["002.png"]["id"], tasks["002.png"]["data"]["image"])
    assert image.headers["content-type"] == "image/png" and image.content == PNG + b"2"
    assert image.headers["etag"] != tag


def test_labels_are_staged_at_once_and_one_sync_is_one_commit(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str]
) -> None:
    project = studio.project("Pets & co")
    studio.sync_source(studio.source(project, repos[0]))
    target = studio.target(project, repos[1])
    tasks = studio.tasks(project)
    first = studio.annotate(tasks[0]["id"], "cat")
    studio.annotate(tasks[2]["id"], "dog")
    mount = f"labels.default.{repos[1]}.master"
    eventually(lambda: set(folder.staged.get(mount, {})) == {"/cats/001.png.json", "/dogs/001.png.json"})
    done = studio.sync_target(target)
    assert done["status"] == "completed" and done["last_sync_count"] == 2
    commits = folder.branches[("default", repos[1])]["master"]
    assert done["meta"]["commit"] == commits[0] and len(commits) == 1
    assert (done["meta"]["added"], done["meta"]["changed"], done["meta"]["deleted"]) == (2, 0, 0)
    info = folder.commits[commits[0]]
    assert info["message"] == "Sync by ann@example.org: +2 ~0 -0 labels (project Pets & co)"
    assert info["metadata"]["howdah.by"] == "ann@example.org" and info["metadata"]["howdah.project"] == str(project)
    assert json.loads(info["metadata"]["howdah.annotators"]) == {"ann@example.org": 2}
    text = (folder.root / commits[0] / "cats/001.png.json").read_text()
    label = json.loads(text)
    assert text == json.dumps(label, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    assert label["id"] == tasks[0]["id"] and label["data"] == tasks[0]["data"] and label["project"] == project
    annotation = label["annotations"][0]
    assert annotation["id"] == first and annotation["completed_by"]["email"] == "ann@example.org"
    assert annotation["result"][0]["value"] == {"choices": ["cat"]} and annotation["lead_time"] == 1.5
    assert "token" not in text and "resolve" not in text

    nothing = studio.sync_target(target)
    assert nothing["status"] == "completed" and nothing["meta"]["commit"] is None and len(commits) == 1

    studio.call("PATCH", f"/api/annotations/{first}/", {"result": []})
    studio.annotate(tasks[1]["id"], "cat")
    studio.call("DELETE", f"/api/tasks/{tasks[2]['id']}/")
    third = studio.sync_target(target)
    assert (third["meta"]["added"], third["meta"]["changed"], third["meta"]["deleted"]) == (1, 1, 1)
    assert sorted(folder.files(commits[-1])) == ["/cats/001.png.json", "/cats/002.png.json"] and len(commits) == 2
