"""Label Studio's pages as a person uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.label_studio.conftest import EMAIL, PASSWORD, LabelStudio, eventually

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def log_in(page: Page, studio: LabelStudio) -> None:
    page.goto(f"{studio.url}/user/login")
    page.fill("input[name=email]", EMAIL)
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_function("!window.location.pathname.includes('login')")


def add_button(page: Page, kind: str) -> Locator:
    """The button of a new storage (`kind`: Source or Target) that can be pressed: the page has it twice, one hidden."""
    return page.locator(f"button[aria-label='Add {kind} Storage']:visible:enabled").first


def open_storages(page: Page, studio: LabelStudio, project: int) -> None:
    page.goto(f"{studio.url}/projects/{project}/settings/storage")
    add_button(page, "Source").wait_for()


def choose_pachyderm(page: Page, kind: str) -> None:
    """Open the dialog of a new storage (`kind`: Source or Target) up to its form."""
    add_button(page, kind).click()
    page.locator(".lsf-modal-ls").get_by_text("Pachyderm", exact=True).click()
    page.get_by_role("button", name="Next").click()


def check_connection(page: Page, title: str, repository: str) -> None:
    """Fill in title and repository and press Test Connection."""
    page.fill("input[name=title]", title)
    page.fill("input[name=repository]", repository)
    page.get_by_role("button", name="Test Connection").click()


def add_source(page: Page, title: str, repository: str, shown: str) -> None:
    """From the form to Save & Sync; the preview must show the file `shown`."""
    check_connection(page, title, repository)
    page.get_by_text("Connection Verified").wait_for()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Load Preview").click()
    page.get_by_text(shown).wait_for()
    page.get_by_role("button", name="Next").click()
    page.get_by_text(repository, exact=True).wait_for()  # the review names it
    page.get_by_role("button", name="Save & Sync").click()


def add_target(page: Page, title: str, repository: str) -> None:
    """Add a target storage with the dialog."""
    choose_pachyderm(page, "Target")
    check_connection(page, title, repository)
    page.get_by_text("Connection Verified").wait_for()
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Not synced yet").wait_for()


def label_first(page: Page, studio: LabelStudio, project: int) -> int:
    """Open the project's first task, wait for its image, choose the first label by key, submit. Returns: the task."""
    task = int(studio.tasks(project)[0]["id"])
    page.goto(f"{studio.url}/projects/{project}/data?task={task}")
    page.get_by_role("button", name="Submit").wait_for()
    image = page.wait_for_selector("img[src*='/resolve/']", state="attached")
    eventually(lambda: image.evaluate("image => image.naturalWidth") > 0)
    page.keyboard.press("1")
    page.get_by_role("button", name="Submit").click()
    eventually(lambda: studio.tasks(project)[0]["total_annotations"] == 1)
    return task


def press_sync(page: Page, studio: LabelStudio, project: int) -> None:
    """Press Sync on the last card of the storages page: the target's, which is drawn after the source's."""
    cards = len(studio.call("GET", f"/api/storages?project={project}"))
    cards += len(studio.call("GET", f"/api/storages/export?project={project}"))
    open_storages(page, studio, project)
    buttons = page.get_by_role("button", name="Sync Storage")
    eventually(lambda: buttons.count() == cards)
    buttons.last.click()
