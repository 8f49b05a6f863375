"""A store with the tables of files and bare commits: files are tested here without branches and propagation."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pachd.pfs.files_schema import FILES_SCHEMA
from pachd.store import Store
from tests.pfs_files.bare import BARE_COMMITS, Repo


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data", [FILES_SCHEMA, BARE_COMMITS]) as opened:
        yield opened


@pytest.fixture
def repo(store: Store) -> Repo:
    return Repo(store)
