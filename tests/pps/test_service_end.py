"""What a service's run does when its job, or the whole store, goes away under it.

The run is in a thread of its own, and tells the store's subscribers there that its job runs: what they do is done
before the run takes its next step.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pachd import upkeep
from pachd.pfs import commits, projects, repos, writing
from pachd.pps import jobs, pipelines, removal
from pachd.pps.executor import Executor
from pachd.pps.service import ServiceRun
from pachd.proto import pps_pb2
from pachd.store import Store, Txn
from pachd.types import Branch, Repo
from tests.pps.helpers import pipeline

PAGES = Repo("default", "pages", "user")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with upkeep.open_folder(tmp_path / "data") as opened:
        with writing(opened) as txn:
            projects.ensure_default(txn)
            repos.create_repo(txn, PAGES)
            commits.finish_commit(txn, commits.start_commit(txn, Branch(PAGES, "master")))
        with writing(opened) as txn:
            spec = pps_pb2.CreatePipelineRequest(pipeline=pipeline("web"), transform=pps_pb2.Transform(cmd=["true"]))
            spec.service.internal_port = 1
            spec.input.pfs.repo, spec.input.pfs.glob = "pages", "/"
            pipelines.create(txn, pps_pb2.CreatePipelineTransaction(create_pipeline_request=spec))
        yield opened


def delete_job(txn: Txn) -> None:
    (row,) = jobs.of_pipeline(txn, pipeline("web"), after=0)
    jobs.delete(txn, jobs.message(row))


def stop_job(txn: Txn) -> None:
    (row,) = jobs.of_pipeline(txn, pipeline("web"), after=0)
    jobs.stop(txn, jobs.message(row))


def delete_everything(txn: Txn) -> None:
    removal.delete_all(txn)
    repos.delete_repo(txn, PAGES)


def run_until(store: Store, once_running: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Run the service's job, do something when it is RUNNING; returns the exceptions that ended threads."""
    lost: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: lost.append(args.exc_value))
    with store.read() as snapshot:
        (row,) = jobs.of_pipeline(snapshot, pipeline("web"), after=0)
    ended = threading.Event()
    work = Path(store.path) / "work"
    run = ServiceRun(store, row["pk"], work, Executor(store.path, "127.0.0.1:1", "process"), ended.set)

    def now() -> None:
        if threading.current_thread().name == f"service-{row['pk']}":
            unsubscribe()
            once_running()

    unsubscribe = store.subscribe(now)
    run.start()
    run.join(120)
    assert not run.alive()
    assert ended.is_set()
    return lost


@pytest.mark.parametrize("change", [delete_job, stop_job, delete_everything])
def test_a_service_whose_job_goes_away_ends_quietly(
    store: Store, change: Callable[[Txn], None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_away() -> None:
        with writing(store) as txn:
            change(txn)

    with caplog.at_level(logging.INFO):
        assert run_until(store, go_away, monkeypatch) == []
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []


def test_a_service_that_cannot_record_its_end_says_so(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_until(store, store.close, monkeypatch) == []
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "cannot record the failure of job" in record.getMessage()
    assert "closed" in record.getMessage()
