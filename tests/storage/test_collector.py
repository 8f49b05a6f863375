"""Collecting beside everything else: what is needed stays, what is not goes, and nobody waits."""

import contextlib
import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pachd.pfs import collect, filesets, temporary
from pachd.pfs.collect import Collector
from pachd.pfs.modify import Modification
from pachd.store import Store, StoreError, Txn, system
from pachd.store.gc import Pace, Stopped
from pachd.store.pages import Pages
from pachd.store.tree import Tree
from tests.pfs_files.bare import Repo, delete, put

MIB = 1 << 20


def sound(store: Store) -> None:
    with store.read() as txn:
        assert list(collect.check(txn, rehash=True)) == []


def count(store: Store, table: str) -> int:
    with store.read() as txn:
        found: int = txn.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return found


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def drop(store: Store, pk: int | None) -> None:
    with store.write() as txn:
        txn.db.execute("DELETE FROM commits WHERE pk=?", (pk,))


def test_a_reader_from_before_keeps_its_pack(repo: Repo, store: Store) -> None:
    data = os.urandom(8 * MIB)
    repo.commit(put("/big", data))
    with store.read() as snapshot:
        view = repo.view(snapshot)
        pieces = view.read(view.inspect("/big"))
        read = [next(pieces)]
        drop(store, repo.head)
        done: list[object] = []
        thread = threading.Thread(target=lambda: done.append(collect.garbage(store)))
        thread.start()
        time.sleep(0.3)
        assert not done  # it waits for this reader
        read += pieces
    thread.join(120)
    assert b"".join(read) == data
    assert done and done[0] and list(Path(store.path, "packs").iterdir()) == []


def test_a_reader_that_never_ends_stops_nobody(repo: Repo, store: Store) -> None:
    repo.commit(put("/a", b"1"))
    with store.read():
        drop(store, repo.head)
        assert not collect.garbage(store, Pace(patience=0.2))
        repo.head = None
        repo.commit(put("/b", b"2"))
    assert collect.garbage(store)
    assert repo.contents() == {"/b": b"2"}


def test_a_copy_of_what_is_being_dropped(repo: Repo, store: Store) -> None:
    """The stream saw the source, the source is dropped, the collection begins, and only then the stream pins."""
    repo.commit(put("/a", b"copied"))
    with Modification(store) as modification:
        with store.read() as snapshot:
            row = repo.row(snapshot)
            drop(store, repo.head)
            thread = threading.Thread(target=collect.garbage, args=(store,))
            thread.start()
            time.sleep(0.2)
            modification.copy_from(snapshot, row, "/a", "/b")
        thread.join(120)
        repo.head = None
        repo.start()
        with store.write() as txn:
            modification.apply(txn, repo.row(txn))
    repo.finish()
    assert repo.contents() == {"/b": b"copied"}
    assert not collect.garbage(store).containers
    sound(store)


def test_a_page_written_again_while_it_is_collected(repo: Repo, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree with the very pages that are dead is committed between the search and the deletion."""
    repo.commit(*(put(f"/f{n:04}", b"%d" % n) for n in range(1000)))
    first = repo.head
    with store.read() as txn:
        root = repo.row(txn).root
        entries = list(Tree(Pages(txn), root).scan())
    repo.commit(delete("/f0007"))  # keeps the containers alive
    drop(store, first)
    with store.write() as txn:
        txn.db.execute("UPDATE commits SET parent_pk=NULL")
    original = Store.open_snapshots
    again: list[int] = []

    def between(self: Store) -> frozenset[int]:
        if not again:
            again.append(1)
            with store.write() as txn:
                pages = Pages(txn)
                tree = Tree(pages, None).apply([(e[0], e) for e in entries], lambda _old, new: new)
                assert tree.root == root
                pages.flush(tree.root)
                txn.db.execute(
                    "INSERT INTO commits (id, state, error, root) SELECT 'again', state, '', ? FROM commits", (root,)
                )
        return original(self)

    monkeypatch.setattr(Store, "open_snapshots", between)
    collect.garbage(store)
    assert again
    monkeypatch.undo()
    sound(store)
    with store.read() as txn:
        assert list(Tree(Pages(txn), root).scan()) == entries


def test_uploads_while_it_runs_all_the_time(repo: Repo, store: Store) -> None:
    """Streams, file sets, copies and drops on several threads against collections without a pause."""
    stop, failures = threading.Event(), []
    lock = threading.Lock()
    states: dict[int, dict[str, bytes]] = {}

    def collecting() -> None:
        while not stop.is_set():
            try:
                collect.garbage(store)
            except Exception as error:
                failures.append(error)
                return

    def writing(seed: int) -> None:
        rng = random.Random(seed)
        line = Repo(store)
        kept: list[int] = []
        model: dict[str, bytes] = {}
        try:
            while not stop.is_set():
                path, data = f"/{rng.randrange(30)}", rng.randbytes(rng.choice([0, 50, 70_000, 5 * MIB]))
                line.start()
                with Modification(store) as modification:
                    modification.delete(path)
                    modification.append(path, data)
                    time.sleep(rng.random() * 0.01)
                    if rng.random() < 0.4:
                        with store.write() as txn:
                            file_set = temporary.create(txn, modification)
                        time.sleep(rng.random() * 0.01)
                        with store.write() as txn:
                            temporary.add_to(txn, line.row(txn), file_set)
                            txn.db.execute("DELETE FROM file_set WHERE id=?", (file_set,))
                    else:
                        modification.seal()
                        with store.write() as txn:
                            modification.apply(txn, line.row(txn))
                line.finish()
                model = {**model, path: data}
                assert line.head is not None
                kept.append(line.head)
                with lock:
                    states[line.head] = model
                while len(kept) > 4:
                    pk = kept.pop(rng.randrange(len(kept) - 1))
                    with lock, store.write() as txn:
                        del states[pk]
                        txn.db.execute(
                            "UPDATE commits SET parent_pk=(SELECT parent_pk FROM commits WHERE pk=?) WHERE parent_pk=?",
                            (pk, pk),
                        )
                        txn.db.execute("DELETE FROM commits WHERE pk=?", (pk,))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=writing, args=(n,)) for n in range(3)] + [threading.Thread(target=collecting)]
    for thread in threads:
        thread.start()
    time.sleep(6)
    until(lambda: len(states) > 10 or failures)
    stop.set()
    for thread in threads:
        thread.join(120)
    assert not failures, failures
    sound(store)
    for pk, state in states.items():
        assert repo.contents(pk) == state
    collect.garbage(store)
    sound(store)


def test_packs_give_back_what_is_dead(repo: Repo, store: Store) -> None:
    parts = {f"/f{n:02}": os.urandom(MIB) for n in range(20)}
    repo.commit(*(put(path, data) for path, data in parts.items()))
    first = repo.head
    repo.commit(*(delete(path) for path in parts if path not in ("/f07", "/f19")))
    (pack,) = Path(store.path, "packs").iterdir()
    size, full = pack.stat().st_size, pack.stat().st_blocks * 512
    assert not collect.garbage(store)
    with store.write() as txn:
        txn.db.execute("UPDATE commits SET parent_pk=NULL")
        txn.db.execute("DELETE FROM commits WHERE pk=?", (first,))
    done = collect.garbage(store)
    assert done.punched > 13 * MIB
    assert pack.stat().st_size == size and pack.stat().st_blocks * 512 < full - 13 * MIB
    assert repo.contents() == {path: parts[path] for path in ("/f07", "/f19")}
    assert not collect.garbage(store)
    sound(store)


def test_packs_give_back_without_holes(repo: Repo, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot punch holes gets a copy with what is alive."""

    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(system, "punch_hole", refuse)
    test_packs_give_back_what_is_dead(repo, store)


def test_the_thread_collects_after_deletes_and_expiry(repo: Repo, store: Store) -> None:
    with Modification(store) as modification, store.write() as txn:
        modification.append("/kept for a while", bytes(100_000))
        temporary.create(txn, modification)
    repo.commit(put("/a", b"1"))
    with Collector(store, 0.05) as collector:
        until(lambda: collector.runs)
        assert count(store, "container") == 2
        with store.write() as txn:
            txn.db.execute("UPDATE file_set SET expires=1")
        until(lambda: count(store, "container") == 1)
        assert count(store, "file_set") == 0
        with store.write() as txn:
            txn.db.execute("DELETE FROM commits")
        until(lambda: count(store, "container") == 0 and count(store, "page") == 0)


def test_it_stops_at_once(repo: Repo, store: Store) -> None:
    repo.commit(put("/a", b"1"))
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        collect.garbage(store, Pace(0.5, stop))
    with store.read():  # also while it waits for a reader
        with store.write() as txn:
            txn.db.execute("DELETE FROM commits")
        with Collector(store, 0.05):
            time.sleep(0.3)
        assert count(store, "page") == 1
    assert collect.garbage(store)


def test_writers_never_wait_long(repo: Repo, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand files are dropped; commits of one file go on beside the collection.

    How long the collection works while others wait for it is counted in seconds of its processor time: those of the
    clock also pass while the machine does other things.
    """
    repo.commit(*(put(f"/d{n % 100}/f{n}", b"%d" % n * 20) for n in range(100_000)))
    big = repo.head
    pages = count(store, "page")
    repo.commit(delete("/"), put("/a", b"a"))
    with store.write() as txn:
        txn.db.execute("UPDATE commits SET parent_pk=NULL")
        txn.db.execute("DELETE FROM commits WHERE pk=?", (big,))
    thread = threading.Thread(target=collect.garbage, args=(store, Pace(0.25)))
    worked: list[float] = []
    write = store.write

    @contextlib.contextmanager
    def timed(quiet: bool = False) -> Iterator[Txn]:
        began = time.thread_time()
        with write(quiet) as txn:
            yield txn
        if threading.current_thread() is thread:
            worked.append(time.thread_time() - began)

    monkeypatch.setattr(store, "write", timed)
    thread.start()
    between = 0
    while thread.is_alive():
        with store.write():
            between += len(worked) > 0
        time.sleep(0.002)
    assert count(store, "page") == 1 and pages > 700
    assert between > 5 and len(worked) > 5, (between, len(worked))
    assert sorted(worked)[len(worked) * 95 // 100] < 0.1 and max(worked) < 0.5, (len(worked), max(worked))
    print(f"{between} writes beside {len(worked)}, the longest of {max(worked) * 1000:.1f} ms")


def test_finishing_after_a_collection(repo: Repo, store: Store) -> None:
    """What an open commit has, and its parent's tree, outlive every collection."""
    repo.commit(put("/old", b"old"))
    repo.start()
    repo.write(put("/new", os.urandom(5 * MIB)), put("/old", b"er"))
    collect.garbage(store)
    with store.write() as txn:
        done = filesets.finish(txn, repo.row(txn))
        assert done.error == "" and done.size == 5 * MIB + 5


def test_the_pack_of_what_was_undone(repo: Repo, store: Store) -> None:
    """Several writes share a transaction; one of them is undone, the others are not: its pack has no row."""
    repo.start()
    modification = Modification(store)
    modification.append("/big", os.urandom(5 * MIB))
    modification.seal()
    folder = Path(store.path, "packs")
    with store.write() as txn, txn.savepoint() as point:
        modification.apply(txn, repo.row(txn))
        point.discard()
    collect.garbage(store)
    assert len(list(folder.iterdir())) == 1  # still held by its stream
    modification.close()
    collect.garbage(store)
    assert list(folder.iterdir()) == []
    with Modification(store) as under_way:
        under_way.append("/big", os.urandom(5 * MIB))
        collect.garbage(store)
        assert len(list(folder.iterdir())) == 1
        with store.write() as txn:
            under_way.apply(txn, repo.row(txn))
    collect.garbage(store)
    repo.finish()
    sound(store)


def test_rows_of_which_little_is_alive_are_written_anew(repo: Repo, store: Store) -> None:
    """Ninety-nine of a hundred small files are deleted here and there: their space is not kept by the others."""
    data = {f"/{n}": random.Random(n).randbytes(1200) for n in range(6000)}
    repo.commit(*(put(path, raw) for path, raw in data.items()))
    first = repo.head
    repo.commit(*(delete(path) for path in list(data)[1:] if random.Random(path).random() > 0.01))
    kept = repo.contents()
    assert 20 < len(kept) < 120 and all(data[path] == raw for path, raw in kept.items())

    def stored() -> int:
        with store.read() as txn:
            found: int = txn.db.execute("SELECT sum(length(data)) FROM container").fetchone()[0]
            return found

    assert not collect.garbage(store) and stored() > 4_000_000
    drop(store, first)
    done = collect.garbage(store)
    assert stored() < len(kept) * 1300
    assert done.bytes + done.punched > 3 * MIB
    assert repo.contents() == kept
    sound(store)
    assert not collect.garbage(store)
    repo.commit(put("/0", b"appended"))  # reads the old bytes, writes them elsewhere
    assert repo.contents() == {**kept, "/0": data["/0"] + b"appended"}
    with store.write() as txn:
        txn.db.execute("UPDATE container SET data=substr(data, 1, length(data)-1) WHERE length(data)<size")
    with store.read() as txn:
        assert any("missing or damaged" in problem for problem in collect.check(txn))


def test_nothing_is_deleted_while_another_process_looks(repo: Repo, store: Store) -> None:
    repo.commit(put("/big", os.urandom(6 * MIB)), put("/small", b"1"))
    with Store.view(store.path) as view:
        with view.read() as snapshot:
            seen = repo.row(snapshot)
        drop(store, repo.head)
        assert not collect.garbage(store)
        assert len(list(Path(store.path, "packs").iterdir())) == 1
        with view.read() as snapshot:  # the packs of what it saw are there for as long as it looks
            assert len(list(Tree(Pages(snapshot), seen.root).scan())) == 2
        with pytest.raises(StoreError, match="only looked at"), view.write():
            pass
    assert collect.garbage(store).containers == 1
    assert list(Path(store.path, "packs").iterdir()) == []
