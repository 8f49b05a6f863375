"""The storage dialog in a real browser: add both storages, label an image, press Sync, see the commit on the card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.label_studio.browser import (
    add_button,
    add_source,
    add_target,
    check_connection,
    choose_pachyderm,
    label_first,
    log_in,
    open_storages,
    press_sync,
)
from tests.label_studio.conftest import LabelStudio, copy_of
from tests.label_studio.folder_server import Folder
from tests.processes import running

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_the_whole_way_through_the_wizard(
    studio: LabelStudio, folder: Folder, repos: tuple[str, str], page: Page
) -> None:
    project = studio.project()
    log_in(page, studio)
    open_storages(page, studio, project)
    choose_pachyderm(page, "Source")
    check_connection(page, "Images", "nosuch@master")
    page.get_by_text("There is no repository default/nosuch.").first.wait_for()
    add_source(page, "Images", f"{repos[0]}@master", "/cats/001.png")
    page.get_by_text("4 (4 new)").wait_for()
    assert len(studio.tasks(project)) == 4

    add_target(page, "Labels", f"{repos[1]}@master")
    target = studio.call("GET", f"/api/storages/export/pachyderm?project={project}")[0]
    assert target["repository"] == f"{repos[1]}@master" and target["can_delete_objects"] is True

    label_first(page, studio, project)
    press_sync(page, studio, project)
    page.get_by_text("+1 ~0 -0 labels by ann@example.org").wait_for()
    commit = folder.branches[("default", repos[1])]["master"][-1]
    page.get_by_text(commit).wait_for()
    assert list(folder.files(commit)) == ["/cats/001.png.json"]

    folder.down = True
    try:
        studio.annotate(studio.tasks(project)[1]["id"])
        press_sync(page, studio, project)
        page.get_by_text("Failed (View Logs)").wait_for()
        page.get_by_text("pachd at 127.0.0.1:30650 cannot be reached").first.wait_for()
    finally:
        folder.down = False


def test_without_a_network(studio: LabelStudio, folder: Folder, repos: tuple[str, str], page: Page) -> None:
    page.add_init_script("Object.defineProperty(Navigator.prototype, 'onLine', { get: () => false })")
    log_in(page, studio)
    open_storages(page, studio, studio.project())
    choose_pachyderm(page, "Source")
    check_connection(page, "Images", f"{repos[0]}@master")
    page.get_by_text("Connection Verified").wait_for()


def test_an_unknown_bundle_gets_the_classic_dialog(
    migrated: Path, folder: Folder, repos: tuple[str, str], page: Page, tmp_path: Path
) -> None:
    data = copy_of(migrated, tmp_path / "classic")
    env = {"HOWDAH_LS_DIALOG": "classic"}
    with running(LabelStudio(data, folder.url, folder.mount_dir, env)) as studio:  # type: ignore[attr-defined]
        project = studio.project()
        log_in(page, studio)
        open_storages(page, studio, project)
        add_button(page, "Source").click()
        page.get_by_text("Storage Type").first.wait_for()
        page.get_by_text("AWS S3", exact=True).locator("visible=true").first.click()
        page.get_by_text("Pachyderm", exact=True).locator("visible=true").first.click()
        page.locator("input[name=repository]").wait_for()
        page.screenshot(path=tmp_path / "classic.png")
        forms = studio.call("GET", "/api/storages/pachyderm/form")
        names = {field["name"] for group in forms for field in group["fields"]}
        assert names >= {"repository", "prefix", "glob", "title"}
        types = studio.call("GET", "/api/storages/types")
        assert {"name": "pachyderm", "title": "Pachyderm"} in types
