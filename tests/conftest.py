"""What every test may use: real servers, started when a test asks for them and gone after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import MountServer, Pachd, running


@pytest.fixture(scope="module")
def pachd_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pachd]:
    """A pachd of the module's own, on an empty data folder."""
    server = Pachd(tmp_path_factory.mktemp("pachd") / "data")
    with running(server):
        yield server


@pytest.fixture(scope="module")
def mount_process(pachd_process: Pachd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountServer]:
    """A mount server of the module's own, on the module's pachd."""
    server = MountServer(tmp_path_factory.mktemp("mount"), pachd_process.address)
    with running(server):
        yield server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where a data folder may be made."""
    return tmp_path / "data"
