from collections.abc import Iterator

import pytest

from pachd.client import Client
from tests.processes import Pachd


@pytest.fixture(scope="module")
def client(pachd_process: Pachd) -> Iterator[Client]:
    with Client(pachd_process.address) as client:
        yield client
