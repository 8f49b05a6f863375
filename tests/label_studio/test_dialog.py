"""The storage dialog in a real browser: add both storages, label an image, press Sync, see the commit on the card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.label_studio.conftest import EMAIL, PASSWORD, LabelStudio, copy_of, eventually
from tests.label_studio.folder_server import Folder
from tests.processes import running

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next((path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(path).exists()), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
WAIT = 20_000  # milliseconds


@pytest.fixture
def page() -> Iterator[sync_api.Page]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        made = browser.new_page(viewport={"width": 1400, "height": 1000})
        made.set_default_timeout(WAIT)
        yield made
        browser.close()


def log_in(page: sync_api.Page, studio: LabelStudio) -> None:
    page.goto(f"{studio.url}/user/login")
    page.fill("input[name=email]", EMAIL)
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_function("!window.location.pathname.includes('login')")


def open_storages(page: sync_api.Page, studio: LabelStudio, project: int) -> None:
    page.goto(f"{studio.url}/projects/{project}/settings/storage")
    page.get_by_role("button", name="Add Source Storage").first.wait_for()


def test_the_whole_way_through_the_wizard(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str], page: sync_api.Page
) -> None:
    project = studio.project()
    log_in(page, studio)
    open_storages(page, studio, project)
    page.get_by_role("button", name="Add Source Storage").first.click()
    page.locator(".lsf-modal-ls").get_by_text("Pachyderm", exact=True).click()
    page.get_by_role("button", name="Next").click()
    page.fill("input[name=title]", "Images")
    page.fill("input[name=repository]", "nosuch@master")
    page.get_by_role("button", name="Test Connection").click()
    page.get_by_text("repo default/nosuch not found").first.wait_for()
    page.fill("input[name=repository]", f"{repos[0]}@master")
    page.get_by_role("button", name="Test Connection").click()
    page.get_by_text("Connection Verified").wait_for()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Load Preview").click()
    page.get_by_text("/cats/001.png").wait_for()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Save & Sync").click()
    page.get_by_text("4 (4 new)").wait_for()
    assert len(studio.tasks(project)) == 4

    page.get_by_role("button", name="Add Target Storage").first.click()
    page.locator(".lsf-modal-ls").get_by_text("Pachyderm", exact=True).click()
    page.get_by_role("button", name="Next").click()
    page.fill("input[name=title]", "Labels")
    page.fill("input[name=repository]", f"{repos[1]}@master")
    page.get_by_role("button", name="Test Connection").click()
    page.get_by_text("Connection Verified").wait_for()
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Not synced yet").wait_for()
    target = studio.call("GET", f"/api/storages/export/pachyderm?project={project}")[0]
    assert target["repository"] == f"{repos[1]}@master" and target["can_delete_objects"] is True

    task = studio.tasks(project)[0]["id"]
    page.goto(f"{studio.url}/projects/{project}/data?task={task}")
    page.get_by_role("button", name="Submit").wait_for()
    image = page.wait_for_selector("img[src*='/resolve/']", state="attached")
    eventually(lambda: image.evaluate("image => image.naturalWidth") == 1)
    page.keyboard.press("1")
    page.get_by_role("button", name="Submit").click()
    eventually(lambda: studio.tasks(project)[0]["total_annotations"] == 1)

    open_storages(page, studio, project)
    page.get_by_role("button", name="Sync Storage").last.click()
    page.get_by_text("+1 ~0 -0 labels by ann@example.org").wait_for()
    commit = folder.branches[("default", repos[1])]["master"][-1]
    page.get_by_text(commit).wait_for()
    assert list(folder.files(commit)) == ["/cats/001.png.json"]

    folder.down = True
    try:
        open_storages(page, studio, project)
        studio.annotate(studio.tasks(project)[1]["id"])
        page.get_by_role("button", name="Sync Storage").last.click()
        page.get_by_text("Failed (View Logs)").wait_for()
        page.get_by_text("pachd at 127.0.0.1:30650 cannot be reached").first.wait_for()
    finally:
        folder.down = False


def test_an_unknown_bundle_gets_the_classic_dialog(
    migrated: Path, folder: Folder, repos: tuple[str, str], page: sync_api.Page, tmp_path: Path
) -> None:
    data = copy_of(migrated, tmp_path / "classic")
    env = {"HOWDAH_LS_DIALOG": "classic"}
    with running(LabelStudio(data, folder.url, folder.mount_dir, env)) as studio:  # type: ignore[attr-defined]
        project = studio.project()
        log_in(page, studio)
        open_storages(page, studio, project)
        page.get_by_role("button", name="Add Source Storage").locator("visible=true").first.click()
        page.wait_for_timeout(1500)
        page.screenshot(path=str(tmp_path / "classic.png"))
        assert page.get_by_text("Storage Type").first.is_visible()
        forms = studio.call("GET", "/api/storages/pachyderm/form")
        names = {field["name"] for group in forms for field in group["fields"]}
        assert names >= {"repository", "prefix", "glob", "title"}
        types = studio.call("GET", "/api/storages/types")
        assert {"name": "pachyderm", "title": "Pachyderm"} in types
