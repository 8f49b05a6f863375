"""Group commits: writes that wait are carried out together, each on its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pachd import pfs, pps
from pachd.api.writer import Writer
from pachd.errors import NotFound
from pachd.pfs import commits, projects, refs, repos
from pachd.store import Store, Txn
from pachd.types import Branch, Repo

REPO = Repo("default", "r", "user")


def run(tmp_path: Path, use: Callable[[Store, Writer], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        with Store.open(tmp_path / "data", [*pfs.SCHEMA, *pps.SCHEMA]) as store:
            writer = Writer(store)
            try:
                await writer.submit(prepare)
                await use(store, writer)
            finally:
                writer.close()

    asyncio.run(main())


def prepare(txn: Txn) -> None:
    if not txn.db.execute("SELECT 1 FROM projects WHERE name='default'").fetchone():
        projects.create_project(txn, "default")
    repos.create_repo(txn, REPO)


def start(name: str) -> Callable[[Txn], tuple[str, int, int]]:
    def work(txn: Txn) -> tuple[str, int, int]:
        return commits.start_commit(txn, Branch(REPO, name)).id, txn.now, id(txn)

    return work


async def busy(writer: Writer) -> tuple[threading.Event, "asyncio.Future[None]"]:
    """Keep the writer at work, alone and silently, until the event is set."""
    started, gate = threading.Event(), threading.Event()

    def work(txn: Txn) -> None:
        txn.quiet = True
        started.set()
        assert gate.wait(30)

    future = writer.submit(work)
    assert await asyncio.to_thread(started.wait, 30)
    return gate, future


def heads(store: Store) -> set[str]:
    with store.read() as snapshot:
        return {row["name"] for row in snapshot.db.execute("SELECT name FROM branches")}


def test_waiting_writes_share_a_transaction_and_nothing_else(tmp_path: Path) -> None:
    async def use(store: Store, writer: Writer) -> None:
        gate, first = await busy(writer)
        waiting = [writer.submit(start(f"b{i}")) for i in range(8)]
        before = store.version
        gate.set()
        await first
        results = await asyncio.gather(*waiting)
        assert store.version == before + 1  # one for all; the first was quiet
        assert len({commit for commit, _, _ in results}) == 8  # each has a commit set of its own
        times = [now for _, now, _ in results]
        assert times == sorted(set(times))
        assert len({txn for _, _, txn in results}) == 1
        assert heads(store) == {f"b{i}" for i in range(8)}

    run(tmp_path, use)


def test_one_that_fails_leaves_nothing_and_hinders_none(tmp_path: Path) -> None:
    called: list[str] = []

    def fails(txn: Txn) -> None:
        commits.start_commit(txn, Branch(REPO, "half"))
        txn.after_commit(lambda: called.append("half"))
        refs.repo_row(txn, Repo("default", "missing", "user"))

    def works(txn: Txn) -> None:
        commits.start_commit(txn, Branch(REPO, "whole"))
        txn.after_commit(lambda: called.append("whole"))

    async def use(store: Store, writer: Writer) -> None:
        gate, first = await busy(writer)
        bad, good, same = writer.submit(fails), writer.submit(works), writer.submit(works)
        gate.set()
        await first
        with pytest.raises(NotFound):
            await bad
        await good
        with pytest.raises(Exception, match="has not been finished"):
            await same  # it sees what the one before it did
        assert heads(store) == {"whole"}
        assert called == ["whole"]

    run(tmp_path, use)


def test_a_lost_transaction_fails_for_all_in_it(tmp_path: Path) -> None:
    def loses(txn: Txn) -> None:
        txn.db.execute("ROLLBACK")  # as the database does by itself when the disk is full
        raise OSError("disk")

    async def use(store: Store, writer: Writer) -> None:
        gate, first = await busy(writer)
        jobs = [writer.submit(start("a")), writer.submit(loses), writer.submit(start("b"))]
        gate.set()
        await first
        found = await asyncio.gather(*jobs, return_exceptions=True)
        assert all(isinstance(error, OSError) for error in found)
        assert heads(store) == set()
        await writer.submit(start("c"))
        assert heads(store) == {"c"}

    run(tmp_path, use)


def test_a_cancelled_write_is_passed_over(tmp_path: Path) -> None:
    async def use(store: Store, writer: Writer) -> None:
        gate, first = await busy(writer)
        gone, stays = writer.submit(start("gone")), writer.submit(start("stays"))
        gone.cancel()
        gate.set()
        await asyncio.gather(first, stays)
        assert heads(store) == {"stays"}

    run(tmp_path, use)


def test_writes_of_nothing_new_wake_nobody(tmp_path: Path) -> None:
    def quiet(txn: Txn) -> None:
        txn.quiet = True

    async def use(store: Store, writer: Writer) -> None:
        told: list[int] = []
        store.subscribe(lambda: told.append(1))
        await writer.submit(quiet)
        assert not told
        for jobs, wakes in (([quiet, quiet], 0), ([quiet, start("x"), quiet], 1)):
            gate, first = await busy(writer)
            waiting = [writer.submit(job) for job in jobs]
            gate.set()
            await asyncio.gather(first, *waiting)
            assert len(told) == wakes

    run(tmp_path, use)


def test_a_lone_write_is_carried_out_at_once(tmp_path: Path) -> None:
    async def use(store: Store, writer: Writer) -> None:
        future = writer.submit(lambda txn: (start("a")(txn), threading.get_ident())[1], alone=True)
        assert future.done() and future.result() == threading.get_ident()
        assert heads(store) == {"a"}

        def fail(txn: Txn) -> None:
            start("b")(txn)
            raise NotFound("its own words")

        failed = writer.submit(fail, alone=True)
        with pytest.raises(NotFound, match="its own words"):
            await failed
        assert heads(store) == {"a"}

    run(tmp_path, use)


def test_a_lone_write_waits_for_no_other(tmp_path: Path) -> None:
    async def use(store: Store, writer: Writer) -> None:
        gate, first = await busy(writer)
        second = writer.submit(start("b"), alone=True)
        assert not second.done()
        gate.set()
        await asyncio.gather(first, second)

        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with store.write(quiet=True):
                held.set()
                assert release.wait(30)

        holder = asyncio.ensure_future(asyncio.to_thread(hold))
        assert await asyncio.to_thread(held.wait, 30)
        third = writer.submit(start("c"), alone=True)
        assert not third.done()
        release.set()
        await asyncio.gather(holder, third)
        assert heads(store) == {"b", "c"}

    run(tmp_path, use)


def test_the_loop_does_not_wait_for_a_slow_disk_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(store: Store, writer: Writer) -> None:
        monkeypatch.setattr("pachd.api.writer.SLOW", -1.0)
        assert writer.submit(start("a"), alone=True).done()
        other = writer.submit(lambda txn: threading.get_ident(), alone=True)
        assert not other.done()
        assert await other != threading.get_ident()

    run(tmp_path, use)
