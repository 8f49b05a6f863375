"""A store with the tables of pfs and the project `default`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pachd.pfs import SCHEMA, projects, propagate, writing
from pachd.store import Store


@pytest.fixture(autouse=True)
def without_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may have connected pipelines, whose tables are not here."""
    monkeypatch.setattr(propagate, "on_new_commits", [])


def open_store(folder: Path) -> Store:
    store = Store.open(folder, SCHEMA)
    with writing(store) as txn:
        projects.ensure_default(txn)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "data") as opened:
        yield opened
