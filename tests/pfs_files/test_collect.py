"""Garbage collection takes what nothing uses and only that; the check finds every kind of damage."""

import os
import random
import sqlite3
from pathlib import Path

import pytest

from pachd.pfs import collect, temporary
from pachd.pfs.modify import Modification
from pachd.store import Store
from tests.pfs_files.bare import Repo, delete, put

BIG = bytes(range(256)) * 20_000


def check(store: Store, rehash: bool = True) -> list[str]:
    with store.read() as txn:
        return list(collect.check(txn, rehash))


def test_everything_in_use_survives(repo: Repo, store: Store) -> None:
    rng = random.Random(3)
    states: dict[int, dict[str, bytes]] = {}
    model: dict[str, bytes] = {}
    for _ in range(12):
        steps = []
        for name in rng.sample(range(400), 60):
            data = rng.randbytes(30)
            model[f"/d{name % 5}/f{name}"] = data
            steps += [delete(f"/d{name % 5}/f{name}"), put(f"/d{name % 5}/f{name}", data)]
        repo.commit(*steps)
        assert repo.head is not None
        states[repo.head] = dict(model)
    assert not collect.garbage(store).containers
    gone = [pk for pk in states if pk % 3 == 0]
    with store.write() as txn:
        txn.db.executemany("UPDATE commits SET root=NULL WHERE pk=?", [(pk,) for pk in gone])
    done = collect.garbage(store)
    assert done.pages > 0
    assert not collect.garbage(store)
    for pk, state in states.items():
        if pk not in gone:
            assert repo.contents(pk) == state
    assert check(store) == []


def test_dropped_contents_are_freed(repo: Repo, store: Store) -> None:
    repo.commit(put("/big", BIG), put("/small", b"1"))
    with store.write() as txn:
        txn.db.execute("DELETE FROM commits")
    done = collect.garbage(store)
    assert done.containers >= 1 and done.bytes >= len(BIG)
    collect.garbage(store)
    with store.read() as txn:
        assert txn.db.execute("SELECT count(*) FROM container").fetchone()[0] == 0
        assert txn.db.execute("SELECT count(*) FROM page").fetchone()[0] == 0
    assert list(Path(store.path, "packs").iterdir()) == []


def test_what_is_being_written_or_not_finished_is_kept(repo: Repo, store: Store) -> None:
    repo.start()
    repo.write(put("/open", b"open"))
    with Modification(store) as modification, Modification(store) as kept:
        modification.append("/big", BIG)
        modification.append("/small", b"small")
        kept.append("/kept", b"kept")
        with store.write() as txn:
            file_set = temporary.create(txn, kept)
        assert not collect.garbage(store)
        modification.seal()
        assert not collect.garbage(store)
        with store.write() as txn:
            modification.apply(txn, repo.row(txn))
            temporary.add_to(txn, repo.row(txn), file_set)
    assert not collect.garbage(store)
    repo.finish()
    collect.garbage(store)
    assert repo.contents() == {"/big": BIG, "/kept": b"kept", "/open": b"open", "/small": b"small"}
    assert check(store) == []


def test_copied_contents_survive_their_source(repo: Repo, store: Store) -> None:
    repo.commit(put("/a", b"copied"))
    with Modification(store) as modification:
        with store.read() as txn:
            modification.copy_from(txn, repo.row(txn), "/a", "/b")
        with store.write() as txn:
            txn.db.execute("DELETE FROM commits")
        collect.garbage(store)
        repo.head = None
        repo.start()
        with store.write() as txn:
            modification.apply(txn, repo.row(txn))
    repo.finish()
    assert repo.contents() == {"/b": b"copied"}


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE container SET data=zeroblob(length(data)) WHERE data IS NOT NULL", "bytes have another hash"),
        ("DELETE FROM container WHERE data IS NOT NULL", "missing or damaged"),
        ("UPDATE container SET data=substr(data, 2) WHERE data IS NOT NULL", "missing or damaged"),
        ("DELETE FROM page WHERE id IN (SELECT id FROM page LIMIT 1)", "is missing"),
        ("UPDATE page SET data=CAST(substr(data, 1, length(data) - 1) || x'07' AS BLOB)", "is damaged"),
    ],
)
def test_damage_is_found(repo: Repo, store: Store, damage: str, found: str) -> None:
    repo.commit(*(put(f"/f{n}", b"%d" % n) for n in range(300)))
    assert check(store) == []
    database = os.path.join(store.path, "pachd.db")
    store.close()
    with sqlite3.connect(database) as db:
        db.execute(damage)
    db.close()
    with Store.open(store.path) as damaged:
        errors = check(damaged)
    assert errors and all(error.startswith("commit ") for error in errors) and any(found in e for e in errors)


def test_damaged_packs_are_found(repo: Repo, store: Store) -> None:
    repo.commit(put("/big", BIG))
    (pack,) = Path(store.path, "packs").iterdir()
    data = pack.read_bytes()
    pack.write_bytes(b"x" + data[1:])
    assert check(store, rehash=False) == []
    assert any("another hash" in error for error in check(store))
    pack.write_bytes(data[:-1])
    assert any("instead of" in error for error in check(store, rehash=False))
    pack.unlink()
    assert any("is missing" in error for error in check(store, rehash=False))


def test_file_sets(repo: Repo, store: Store) -> None:
    def make(*files: tuple[str, bytes]) -> str:
        with Modification(store) as modification, store.write() as txn:
            for path, data in files:
                modification.append(path, data)
            return temporary.create(txn, modification)

    one, two = make(("/a", b"1"), ("/b", b"2")), make(("/b", b"3"), ("/c", b"4"))
    assert make().partition(".")[2] == make().partition(".")[2]
    with store.write() as txn:
        both = temporary.compose(txn, [one, two], 60)
        assert [(e.path, e.size) for e in temporary.view(txn, both).list("/")] == [("/a", 1), ("/b", 2), ("/c", 1)]
        assert temporary.shard(txn, both) == [("", "")]
        assert temporary.shard(txn, both, num_files=2) == [("", "/c"), ("/c", "")]
    repo.start()
    with store.write() as txn:
        temporary.add_to(txn, repo.row(txn), both)
    repo.finish()
    repo.commit(delete("/a"), put("/z", b"9"))
    with store.write() as txn:
        whole = temporary.of_commit(txn, repo.row(txn))
        changed = temporary.of_commit(txn, repo.row(txn), diff=True)
        assert [e.path for e in temporary.view(txn, whole).list("/")] == ["/b", "/c", "/z"]
        assert [e.path for e in temporary.view(txn, changed).list("/")] == ["/z"]
        temporary.renew(txn, whole, 60)
        for call, error in (
            (lambda: temporary.renew(txn, "0" * 32, 60), r"^tracker does not contain item: \(fileset/0{32}\)$"),
            (lambda: temporary.renew(txn, "junk", 60), r"^parsing fileset.Token: too short to be Token len=4$"),
            (lambda: temporary.renew(txn, whole, 99999999), r"^ttl \(99999999000000000\) exceeds max ttl \(18000"),
            (lambda: temporary.compose(txn, [one, "0" * 32], 60), "^the operation would create a dangling reference$"),
            (lambda: temporary.add_to(txn, repo.row(txn), "0" * 32), "^add file set: path does not exist$"),
        ):
            with pytest.raises(Exception, match=error):
                call()
        txn.db.execute("UPDATE file_set SET expires=0 WHERE id=?", (one,))
        assert temporary.expire(txn) == 1
