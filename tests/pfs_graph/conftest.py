"""A store with the tables of pfs and the project `default`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pachd.pfs import SCHEMA, projects, writing
from pachd.store import Store


def open_store(folder: Path) -> Store:
    store = Store.open(folder, SCHEMA)
    with writing(store) as txn:
        projects.ensure_default(txn)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "data") as opened:
        yield opened
