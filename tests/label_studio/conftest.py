"""A real Label Studio with our storages. Its first migration takes half a minute: all tests copy one database."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import sharing
from tests.label_studio.folder_server import Folder, serve
from tests.processes import ROOT, Server, free_port, running

EMAIL, PASSWORD, TOKEN = "ann@example.org", "correct-horse-7", "0123456789abcdef0123456789abcdef01234567"
CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="digit" toName="image">'
    '<Choice value="cat"/><Choice value="dog"/></Choices></View>'
)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def choice(value: str, lead_time: float = 1.5) -> dict[str, Any]:
    """The body of an annotation as the editor posts it."""
    result = {"from_name": "digit", "to_name": "image", "type": "choices", "value": {"choices": [value]}}
    return {"result": [result], "lead_time": lead_time}


class LabelStudio(Server):
    """`python -m label_studio_backend` on a copy of the migrated database, and a REST client for it."""

    def __init__(self, data: Path, mount_url: str, mount_dir: Path, env: dict[str, str] | None = None) -> None:
        self.data, self.port = data, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        options = ["--data-dir", str(data), "--port", str(self.port)]
        credentials = {
            "LABEL_STUDIO_USERNAME": EMAIL,
            "LABEL_STUDIO_PASSWORD": PASSWORD,
            "LABEL_STUDIO_USER_TOKEN": TOKEN,
        }
        credentials.update({"HOWDAH_MOUNT_URL": mount_url, "HOWDAH_MOUNT_DIR": str(mount_dir)})
        super().__init__(
            [sys.executable, "-m", "label_studio_backend", *options],
            data.with_name(data.name + ".log"),
            "listening on",
            {**credentials, **(env or {})},
        )
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Token {TOKEN}"}, timeout=120)

    def call(self, method: str, path: str, body: Any = None, expect: int | None = None, **kwargs: Any) -> Any:
        """One REST call; the parsed answer. Fails unless the status is `expect` (default: any 2xx)."""
        answer = self.http.request(method, path, json=body, **kwargs)
        good = answer.is_success if expect is None else answer.status_code == expect
        assert good, f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
        return answer.json() if answer.content else None

    def project(self, title: str = "Pets", **extra: Any) -> int:
        return self.call("POST", "/api/projects", {"title": title, "label_config": CONFIG, **extra})["id"]

    def source(self, project: int, repository: str = "images@master", **extra: Any) -> int:
        body = {"project": project, "title": "images", "repository": repository, **extra}
        return self.call("POST", "/api/storages/pachyderm", body)["id"]

    def target(self, project: int, repository: str = "labels@master", **extra: Any) -> int:
        body = {"project": project, "title": "labels", "repository": repository, **extra}
        return self.call("POST", "/api/storages/export/pachyderm", body)["id"]

    def sync_source(self, storage: int) -> dict[str, Any]:
        return self.call("POST", f"/api/storages/pachyderm/{storage}/sync")

    def sync_target(self, storage: int) -> dict[str, Any]:
        return self.call("POST", f"/api/storages/export/pachyderm/{storage}/sync")

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """All tasks of a project with their raw data, by id."""
        found = self.call("GET", f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true")
        return sorted(found, key=lambda task: task["id"])

    def annotate(self, task: int, value: str = "cat") -> int:
        return self.call("POST", f"/api/tasks/{task}/annotations/", choice(value))["id"]

    def media(self, task: int, uri: str, **kwargs: Any) -> httpx.Response:
        encoded = base64.urlsafe_b64encode(uri.encode()).decode()
        return self.http.get(f"/tasks/{task}/resolve/?fileuri={encoded}", **kwargs)

    def sql(self, statement: str, *values: Any) -> None:
        """Write to the database past Label Studio, as something that no hook of it sees."""
        with contextlib.closing(sqlite3.connect(self.data / "label_studio.sqlite3", timeout=30)) as db:
            db.execute("PRAGMA foreign_keys = ON")
            with db:
                assert db.execute(statement, values).rowcount == 1, statement

    @contextlib.contextmanager
    def staging_lock(self, branch: str) -> Iterator[None]:
        """Hold the lock that everybody takes who stages labels of a branch (`project/repo@branch`)."""
        name = hashlib.blake2b(branch.encode(), digest_size=8).hexdigest()
        with open(self.data / f"pachyderm-{name}.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def shell(self, code: str) -> str:
        """Run Python in the environment of this Label Studio (for what REST does not offer)."""
        env = {**os.environ, **self.env, "LABEL_STUDIO_BASE_DATA_DIR": str(self.data)}
        env["DJANGO_SETTINGS_MODULE"] = "label_studio_backend.settings"
        done = subprocess.run(
            [sys.executable, "-c", f"import django; django.setup()\n{code}"],
            capture_output=True, text=True, timeout=900, cwd=ROOT, env=env,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


def _version() -> str:
    """What the migrated database depends on: our migrations and Label Studio's version."""
    seen = hashlib.sha256()
    for path in sorted((ROOT / "label_studio_backend" / "migrations").glob("*.py")):
        seen.update(path.read_bytes())
    seen.update((ROOT / "pyproject.toml").read_bytes().partition(b"label-studio==")[2][:20])
    return seen.hexdigest()[:12]


def make_migrated() -> Path:
    """A data folder with a migrated database and the first user; made once, kept for the next runs."""
    keep = sharing.folder() / f"label-studio-{_version()}"
    with sharing.locked(keep.name):
        if not (keep / "label_studio.sqlite3").exists():
            making = keep.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            env = {
                **os.environ,
                "LABEL_STUDIO_BASE_DATA_DIR": str(making),
                "DJANGO_SETTINGS_MODULE": "label_studio_backend.settings",
                "LABEL_STUDIO_USERNAME": EMAIL,
                "LABEL_STUDIO_PASSWORD": PASSWORD,
                "LABEL_STUDIO_USER_TOKEN": TOKEN,
            }
            code = "from label_studio_backend.__main__ import prepare; prepare()"
            subprocess.run(
                [sys.executable, "-c", code], check=True, env=env, cwd=ROOT, timeout=300, capture_output=True
            )
            making.rename(keep)
    return keep


@pytest.fixture(scope="session")
def migrated() -> Path:
    """The migrated data folder to copy."""
    return make_migrated()


def copy_of(migrated: Path, data: Path) -> Path:
    """A data folder of one's own with the migrated database."""
    shutil.copytree(migrated, data)
    return data


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A mount server over plain folders, with the repos `images` (four files) and `labels` (empty)."""
    base = tmp_path_factory.mktemp("folder")
    (base / "pfs").mkdir()
    made = Folder(base / "commits", base / "pfs")
    server = serve(made)
    made.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def studio(migrated: Path, folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    """Label Studio on the folder server, one for all tests: each has projects and repos of its own."""
    data = copy_of(migrated, tmp_path_factory.mktemp("studio") / "data")
    with running(LabelStudio(data, folder.url, folder.mount_dir)) as server:  # type: ignore[attr-defined]
        yield server


@pytest.fixture
def repos(folder: Folder, request: pytest.FixtureRequest) -> tuple[str, str]:
    """Names of a pair of repos of the test's own: images with four files, labels with an empty branch."""
    name = request.node.name.replace("[", "-").replace("]", "").replace("/", "-")[-40:]
    images, labels = f"i-{name}", f"l-{name}"
    folder.create("default", images)
    folder.create("default", labels)
    files = {
        "/cats/001.png": PNG,
        "/cats/002.png": PNG + b"2",
        "/dogs/001.png": PNG + b"3",
        "/notes.txt": b"0123456789",
    }
    folder.put("default", images, "master", dict(files))
    folder.branches[("default", labels)]["master"] = []
    return images, labels


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of a headless Chromium; the test is skipped without one."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = next((path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(path).exists()), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        made = browser.new_page(viewport={"width": 1400, "height": 1000})
        made.set_default_timeout(30_000)
        yield made
        browser.close()


def eventually(check: Any, seconds: float = 120.0) -> Any:
    """Call until it is true; its value."""
    end = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < end, f"not true within {seconds} s"
        time.sleep(0.02)
    return value
