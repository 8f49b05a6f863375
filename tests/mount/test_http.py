"""The HTTP API: Pachyderm's routes and bodies, errors as JSON with the right codes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from mount_server.http_api import make_app
from mount_server.metrics import Metrics
from tests.mount.conftest import World


@pytest.fixture
def api(quiet_world: World) -> Iterator[TestClient]:
    quiet_world.source.make_repo("images", {"a.txt": b"a\n", "dir/b.txt": b"b"})
    quiet_world.source.make_repo("labels", {})
    quiet_world.source.make_repo("empty")
    yield TestClient(make_app(quiet_world.mounts, Metrics(), None), raise_server_exceptions=False)


def put(api: TestClient, path: str, body: Any = None) -> tuple[int, Any]:
    answer = api.put(path, content=body if isinstance(body, str) else json.dumps(body))
    return answer.status_code, answer.json()


def test_first_look(api: TestClient) -> None:
    assert api.get("/health").json()["status"] == "running"
    assert api.get("/config").json() == {"cluster_status": "AUTH_DISABLED", "pachd_address": "memory"}
    repos = api.get("/repos").json()
    assert repos[0] == {"project": "default", "repo": "images", "branches": ["master"], "authorization": "off"}
    assert repos[2]["branches"] is None
    assert api.get("/mounts").json() == {"mounted": [], "unmounted": repos}
    assert api.get("/datums").json() == {"num_datums": 0, "input": None, "idx": 0, "all_datums_received": False}


def test_routing(api: TestClient) -> None:
    for method, path, status in [
        ("GET", "/nope", 404),
        ("GET", "/mounts/", 404),
        ("POST", "/_mount", 405),
        ("DELETE", "/mounts", 405),
        ("PUT", "/repos/_mount", 404),
    ]:
        answer = api.request(method, path)
        assert answer.status_code == status and set(answer.json()) == {"error", "code"}, path


def test_mount_state(api: TestClient, quiet_world: World) -> None:
    status, body = put(api, "/_mount", {"mounts": [{"name": "images", "repo": "images"}]})
    head = quiet_world.source.heads["default", "images", "master"]
    state = body["mounted"][0]
    assert status == 200
    assert {k: state[k] for k in ("name", "project", "repo", "branch", "commit", "path", "mode", "state")} == {
        "name": "images", "project": "default", "repo": "images", "branch": "master",
        "commit": head, "path": "", "mode": "ro", "state": "mounted",
    }  # fmt: skip
    assert (state["latest_commit"], state["how_many_commits_behind"]) == (head, 0)
    assert put(api, "/_mount", {"mounts": [{"name": "images", "repo": "images", "mode": "ro"}]})[0] == 200
    status, body = put(api, "/_mount", {"mounts": [{"name": "images", "repo": "images", "mode": "rw"}]})
    assert (status, body["code"]) == (409, "name_in_use")
    assert put(api, "/_unmount", {"mounts": ["images"]})[1]["mounted"] == []
    assert put(api, "/_unmount", {"mounts": ["images"]})[0] == 404
    assert put(api, "/_unmount_all", "{bad")[0] == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400), ("{", 400), ("[]", 400), ("null", 200), ("{}", 200), ('{"mounts":null}', 200),
        ('{"mounts":{}}', 400),
        ('{"mounts":[null]}', 400), ('{"mounts":["x"]}', 400), ('{"mounts":[{"name":5,"repo":"images"}]}', 400),
        ({"mounts": [{"repo": "images"}]}, 400), ({"mounts": [{"name": "x"}]}, 400),
        ({"mounts": [{"name": "x", "repo": "nope"}]}, 404),
        ({"mounts": [{"name": "x", "repo": "images", "branch": "no"}]}, 404),
        ({"mounts": [{"name": "x", "repo": "images", "mode": "w"}]}, 400),
        ({"mounts": [{"name": "x", "repo": "empty"}]}, 404),
        ({"mounts": [{"name": "x", "repo": "images", "commit": "123"}]}, 400),
        ({"mounts": [{"name": "x", "repo": "labels", "branch": "bad name!", "mode": "rw"}]}, 400),
        ({"mounts": [{"name": "x", "repo": "images", "path": "/nope"}]}, 404),
        ({"mounts": [{"name": "../victim", "repo": "images"}]}, 400),
        ({"mounts": [{"name": "..", "repo": "images"}]}, 400),
        ({"mounts": [{"name": "a/b", "repo": "images"}]}, 400),
        ({"mounts": [{"name": "nul\0", "repo": "images"}]}, 400),
        ({"mounts": [{"name": "x" * 256, "repo": "images"}]}, 400),
        ({"mounts": [{"name": "ok", "repo": "images"}, {"name": "bad", "repo": "nope"}]}, 404),
    ],
)  # fmt: skip
def test_mount_requests(api: TestClient, body: Any, status: int) -> None:
    got, answer = put(api, "/_mount", body)
    assert got == status, answer
    assert status == 200 or set(answer) == {"error", "code"}
    assert api.get("/mounts").json()["mounted"] == []


def test_stage_and_commit(api: TestClient, quiet_world: World) -> None:
    put(api, "/_mount", {"mounts": [{"name": "labels", "repo": "labels", "mode": "rw"}]})
    files = [{"path": "/a.json", "text": "{}"}, {"path": "/b", "base64": "AAE="}, {"path": "/gone", "delete": True}]
    answer = api.post("/_stage", json={"mount": "labels", "files": files})
    assert (answer.status_code, answer.json()) == (200, {"staged": 2, "deleted": 1, "dirty": 3})
    quiet_world.source.down = True
    assert put(api, "/_commit", {"mount": "labels"})[0] == 503
    assert api.post("/_stage", json={"mount": "labels", "files": files[:1]}).status_code == 200
    assert api.get("/mounts").status_code == 200
    quiet_world.source.down = False
    status, body = put(api, "/_commit", {"mount": "labels", "message": "m", "metadata": {"k": "v"}})
    made = body["commit"]
    assert status == 200 and body["mounted"][0]["name"] == "labels"
    assert (made["files_added"], made["files_changed"], made["files_deleted"], made["bytes"]) == (2, 0, 0, 4)
    assert body["mounted"][0]["commit"] == made["commit"] and body["mounted"][0]["how_many_commits_behind"] == 0
    assert put(api, "/_commit", {"mount": "labels"})[1]["commit"]["commit"] is None
    assert api.get("/_status?mount=labels").json() == {
        "mount": "labels", "dirty_files": 0, "dirty_deletes": 0, "dirty_bytes": 0,
        "head": made["commit"], "last_commit": made["commit"], "last_error": None,
    }  # fmt: skip
    resolved = api.get("/_resolve?ref=labels").json()
    assert (resolved["commit"], resolved["branch"]) == (made["commit"], "master")
    assert api.get("/_resolve?ref=nope").status_code == 404
    lines = api.get(f"/_list?repo=labels&commit={made['commit']}&glob=/**").text.splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["/a.json", "/b"]
    diff = api.get(f"/_diff?repo=labels&old={made['commit']}&new={made['commit']}").text
    assert diff == ""
    assert put(api, "/_commit", {"mount": "nope"})[0] == 404
    assert put(api, "/_commit", "{")[0] == 400
    assert api.post("/_stage", json={"mount": "labels", "files": [{"path": "/x*", "text": ""}]}).status_code == 400
    assert put(api, "/_commit", {"mount": "labels", "expected_head": "0" * 32})[0] == 409


def test_token(quiet_world: World) -> None:
    api = TestClient(make_app(quiet_world.mounts, Metrics(), "secret"))
    assert api.get("/health").status_code == 200
    assert api.get("/mounts").status_code == 401
    assert api.get("/mounts", headers={"Authorization": "Bearer secret"}).status_code == 200


def test_temporary_mounts_go_when_nobody_uses_them(quiet_world: World, api: TestClient) -> None:
    mounts = quiet_world.mounts
    for name in ("one", "two", "kept", "three"):
        item = {"name": name, "repo": "images", "temporary": name != "kept"}
        assert put(api, "/_mount", {"mounts": [item]})[0] == 200
    reading = mounts.get("one").open("a.txt")
    mounts.most_temporary = 2
    mounts._drop_idle()
    assert [mount.row.name for mount in mounts.all()] == ["kept", "three", "two"]
    assert reading.read(0, 10) == b"a\n", "who has a file open goes on reading"
    reading.close()
    put(api, "/_mount", {"mounts": [{"name": "two", "repo": "images"}]})
    mounts.idle_limit = 0.0
    mounts._drop_idle()
    assert [mount.row.name for mount in mounts.all()] == ["kept", "two"], (
        "asked for without the flag, it is a lasting one"
    )
    quiet_world.restart()
    assert [mount.row.name for mount in quiet_world.mounts.all()] == ["kept", "two"]


def test_what_cannot_be_committed_is_kept_until_it_is_discarded(quiet_world: World, api: TestClient) -> None:
    put(api, "/_mount", {"mounts": [{"name": name, "repo": "labels", "mode": "rw"} for name in ("a", "b")]})
    api.post("/_stage", json={"mount": "a", "files": [{"path": "/x", "text": "x"}]})
    quiet_world.source.outputs.add(("default", "labels", "master"))
    assert put(api, "/_unmount", {"mounts": ["a", "b"]})[0] == 403
    status, answer = put(api, "/_unmount_all")
    assert status == 409 and "'a'" in answer["error"] and "discard" in answer["error"]
    assert [mount.row.name for mount in quiet_world.mounts.all()] == ["a"]
    assert put(api, "/_unmount", {"mounts": ["a"], "discard": True})[0] == 200
    assert quiet_world.mounts.all() == [] and quiet_world.source.files("labels") == {}
