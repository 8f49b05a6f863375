"""A Docker engine for the tests of workers in containers, which they start and stop themselves."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.docker.engine import Engine, make_image


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    folder = Path(tempfile.mkdtemp(prefix="howdah-docker-"))  # a socket's path must be short
    found = Engine(folder)
    try:
        found.start()
        make_image(found)
        yield found
    finally:
        found.remove()
    end = time.monotonic() + 60
    while left := [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())]:
        assert time.monotonic() < end, left
        time.sleep(0.02)
