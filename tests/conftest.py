"""What every test may use: real servers, started when a test asks for them and gone after it."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import dealing
from tests.processes import MountServer, Pachd, running
from tests.sharing import RUN, clean_up

LEFT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Mark what this run starts; being told to end is as good as Ctrl-C: what was started is stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config.pluginmanager.has_plugin("xdist"):
        from xdist.workermanage import NodeManager

        NodeManager.EXIT_TIMEOUT = 60  # seconds after Ctrl-C in which workers may stop their servers
    if RUN not in os.environ:
        os.environ[RUN] = uuid.uuid4().hex
        config.stash[LEFT] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: dealing.place(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return dealing.scheduler(config, log)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nothing outlives the run, even when a worker was killed."""
    if LEFT in session.config.stash:
        factory: Any = getattr(session.config, "_tmp_path_factory", None)
        session.config.stash[LEFT] = clean_up(os.environ[RUN], getattr(factory, "_basetemp", None))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if left := config.stash.get(LEFT, []):
        terminalreporter.section("left by the tests, and ended now")
        for line in left:
            terminalreporter.line(line)


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
