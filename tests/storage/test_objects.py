"""Packs as files and on S3-compatible storage: the same tests for both."""

import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pachd.client import Client
from pachd.pfs import collect
from pachd.pfs.files_schema import FILES_SCHEMA
from pachd.pfs.modify import Modification
from pachd.proto import pfs_pb2
from pachd.store import Store, StoreError, contents, objects
from pachd.store.backup import backup, restore
from pachd.store.objects import ObjectsError
from tests.faults import helpers
from tests.pfs_files.bare import BARE_COMMITS, Repo, delete, put
from tests.processes import Pachd, running
from tests.storage.bucket import ENVIRONMENT, Bucket
from tests.storage.bucket import running as running_bucket

MIB = 1 << 20
SCHEMA = [FILES_SCHEMA, BARE_COMMITS]


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with running_bucket() as bucket:
        yield bucket


@pytest.fixture
def bucket(server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "SEGMENT", MIB)
    for key in server.objects():
        server.client().delete_object(Bucket="data", Key=key)
    return server


class Place:
    """Opens the same data folder again and again."""

    def __init__(self, folder: Path, bucket: Bucket | None) -> None:
        self.folder, self.bucket = folder, bucket

    def open(self) -> Store:
        store = Store.open(self.folder, SCHEMA)
        if self.bucket is not None:
            contents.shared(store).packs.use(store, self.bucket.url, self.bucket.endpoint)
        return store

    def packs(self) -> int:
        """Packs that there are, as another program sees them."""
        if self.bucket is None:
            return len(list((self.folder / "packs").iterdir()))
        return len({key.rpartition("/")[0] for key in self.bucket.objects()})

    def bytes(self) -> int:
        if self.bucket is None:
            return sum(path.stat().st_blocks * 512 for path in (self.folder / "packs").iterdir())
        return sum(self.bucket.objects().values())


@pytest.fixture(params=["files", "objects"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path / "data", request.getfixturevalue("bucket") if request.param == "objects" else None)


def check(store: Store) -> list[str]:
    with store.read() as txn:
        return list(collect.check(txn, rehash=True))


def test_written_read_and_reopened(place: Place) -> None:
    data = {"/a": os.urandom(9 * MIB + 17), "/b": os.urandom(100), "/c": os.urandom(5 * MIB)}
    with place.open() as store:
        repo = Repo(store)
        repo.commit(*(put(path, raw) for path, raw in data.items()))
        assert repo.contents() == data and place.packs() == 1
        with store.read() as txn:
            view = repo.view(txn)
            entry = view.inspect("/a")
            assert b"".join(view.read(entry, MIB - 5, 10)) == data["/a"][MIB - 5 : MIB + 5]
            assert b"".join(view.read(entry, 9 * MIB)) == data["/a"][9 * MIB :]
        assert check(store) == []
    with place.open() as store:
        again = Repo(store)
        again.head = repo.head
        assert again.contents() == data and check(store) == []
    with Store.open(place.folder, SCHEMA) as store:  # where it is need not be said again
        again = Repo(store)
        again.head = repo.head
        assert again.contents() == data
        again.commit(put("/d", data["/a"]))
        assert len(list((place.folder / "packs").iterdir())) == (2 if place.bucket is None else 1)
        assert check(store) == []


def test_what_was_not_committed_is_removed(place: Place) -> None:
    with place.open() as store:
        repo = Repo(store)
        repo.start()
        with Modification(store) as modification:
            modification.append("/big", os.urandom(6 * MIB))
            modification.seal()
            assert place.packs() == 1
        assert place.packs() == 0
        with pytest.raises(ValueError, match="no"), Modification(store) as modification:
            modification.append("/big", os.urandom(6 * MIB))
            with store.write() as txn:
                modification.apply(txn, repo.row(txn))
                raise ValueError("no")
        assert place.packs() == 0
        left = Modification(store)  # as if the process ended now
        left.append("/big", os.urandom(6 * MIB))
        left.seal()
    with place.open() as store:
        collect.garbage(store)
        assert place.packs() == 0


def test_collected(place: Place) -> None:
    with place.open() as store:
        repo = Repo(store)
        repo.commit(*(put(f"/{n}", os.urandom(2 * MIB)) for n in range(8)))
        first = repo.head
        repo.commit(*(delete(f"/{n}") for n in range(7)))
        kept, full = repo.contents(), place.bytes()
        with store.write() as txn:
            txn.db.execute("UPDATE commits SET parent_pk=NULL")
            txn.db.execute("DELETE FROM commits WHERE pk=?", (first,))
        done = collect.garbage(store)
        assert done.punched >= 9 * MIB and place.bytes() <= full - 9 * MIB
        assert repo.contents() == kept and check(store) == []
        assert not collect.garbage(store)
        with store.write() as txn:
            txn.db.execute("DELETE FROM commits")
        assert collect.garbage(store)
        assert place.packs() == 0 and check(store) == []
        with store.read() as txn:
            assert txn.db.execute("SELECT count(*) FROM object").fetchone()[0] == 0


def test_damage_is_found(place: Place) -> None:
    with place.open() as store:
        repo = Repo(store)
        repo.commit(put("/big", os.urandom(6 * MIB)))
    if place.bucket is None:
        (pack,) = (place.folder / "packs").iterdir()
        raw = pack.read_bytes()
        write, remove = pack.write_bytes, pack.unlink
    else:
        key = sorted(place.bucket.objects())[1]
        client = place.bucket.client()
        raw = client.get_object(Bucket="data", Key=key)["Body"].read()

        def write(data: bytes) -> None:
            client.put_object(Bucket="data", Key=key, Body=data)

        def remove() -> None:
            for each in place.bucket.objects():  # type: ignore[union-attr]
                client.delete_object(Bucket="data", Key=each)

    for damage, found in (
        (lambda: write(b"x" + raw[1:]), "bytes have another hash"),
        (lambda: write(raw[:-1]), "instead of"),
        (remove, "is missing"),
    ):
        damage()
        with place.open() as store:
            told = check(store)
            assert any(found in problem for problem in told), told


def test_backed_up_as_files(place: Place, tmp_path: Path) -> None:
    data = {"/a": os.urandom(9 * MIB), "/b": b"small"}
    with place.open() as store:
        repo = Repo(store)
        repo.commit(*(put(path, raw) for path, raw in data.items()))
    with Store.view(place.folder) as store:
        seen: list[tuple[int, int]] = []
        backup(store, str(tmp_path / "copy"), lambda done, total: seen.append((done, total)))
    assert seen and seen == sorted(seen) and seen[-1][0] <= seen[-1][1]
    restore(str(tmp_path / "copy"), str(tmp_path / "again"))
    if place.bucket is not None:
        for key in place.bucket.objects():
            place.bucket.client().delete_object(Bucket="data", Key=key)
    with Store.open(tmp_path / "again", SCHEMA) as store:
        again = Repo(store)
        again.head = repo.head
        assert again.contents() == data and check(store) == []


def test_bad_places(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path / "data", SCHEMA) as store:
        packs = contents.shared(store).packs
        for url, said in (
            ("gs://bucket/x", "s3://BUCKET/PREFIX only"),
            ("data/x", "s3://BUCKET/PREFIX only"),
            ("s3://me:hidden@data/x", "belong into the environment"),
            ("s3://no-such-bucket/x", "no-such-bucket"),
        ):
            with pytest.raises(StoreError, match=said) as caught:
                packs.use(store, url, bucket.endpoint)
            assert "hidden" not in str(caught.value) and ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
        Repo(store).commit(put("/a", os.urandom(5 * MIB)))  # it stays with files


@pytest.mark.timeout(900)
def test_storage_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "_TRIES", {"max_retries": 1, "retry_timeout": timedelta(seconds=3)})
    with running_bucket() as bucket, Place(tmp_path / "data", bucket).open() as store:
        repo = Repo(store)
        repo.commit(put("/small", b"1"))
        repo.commit(put("/big", os.urandom(5 * MIB)))
        bucket.kill()
        repo.start()
        with pytest.raises(ObjectsError, match="does not take what is written"):
            repo.write(put("/other", os.urandom(9 * MIB)))
        repo.write(put("/small", b"2"))  # small contents need no object storage
        repo.finish()
        with store.read() as txn:
            view = repo.view(txn)
            assert b"".join(view.read(view.inspect("/small"))) == b"12"
            with pytest.raises(ObjectsError, match="does not give what was written"):
                b"".join(view.read(view.inspect("/big")))
        assert any("cannot be checked" in problem for problem in check(store))
        bucket.start()  # empty now
        repo.commit(put("/third", os.urandom(9 * MIB)))
        assert bucket.objects()


@pytest.mark.timeout(900)
def test_pachd(bucket: Bucket, tmp_path: Path) -> None:
    """The whole server: large files go there, are read back after a restart, and go when their repo goes."""
    log = tmp_path / "pachd.log"
    pachd = Pachd(tmp_path / "data", log=log)
    pachd.env.update(ENVIRONMENT)
    pachd.command += ["--objects", bucket.url, "--objects-endpoint", bucket.endpoint, "--gc-interval", "0.3", "-v"]
    big = os.urandom(20 * MIB)
    with running(pachd):
        with Client(pachd.address, timeout=60) as client:
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of("labels")))
            helpers.put(client, "labels", [("/big", big), ("/small", b"1")])
            assert sum(bucket.objects().values()) >= len(big) - 4 * MIB and not list((pachd.data / "packs").iterdir())
        pachd.kill()
        pachd.start()
        with Client(pachd.address, timeout=60) as client:
            assert helpers.get(client, "labels", "/big") == big
            assert list(client.pfs.Fsck(pfs_pb2.FsckRequest())) == []
            client.pfs.DeleteRepo(pfs_pb2.DeleteRepoRequest(repo=helpers.repo_of("labels")))
            end = time.monotonic() + 60
            while bucket.objects():
                assert time.monotonic() < end, "the objects of a deleted repo are still there"
                time.sleep(0.1)
    for secret in ENVIRONMENT.values():
        assert secret not in log.read_text()
        with sqlite3.connect(pachd.data / "pachd.db") as db:
            assert not any(secret in line for line in db.iterdump())
        db.close()


def test_every_call_of_the_storage_fails_once(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit, its removal and the collection, with the Nth request refused, for every N."""
    calls, fail_at = 0, 0
    for name in ("put", "get_range", "list", "delete"):
        original = getattr(objects.obstore, name)

        def counted(*args: object, original: object = original, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == fail_at:
                raise OSError(5, "the storage refused")
            return original(*args, **options)  # type: ignore[operator]

        monkeypatch.setattr(objects.obstore, name, counted)
    before, after = {"/a": b"1"}, {"/a": b"1", "/big": os.urandom(5 * MIB), "/other": os.urandom(MIB)}
    seen = set()
    for n in range(1, 60):
        place = Place(tmp_path / str(n), bucket)
        with place.open() as store:
            repo = Repo(store)
            repo.commit(put("/a", b"1"))
            first = repo.head
            calls, fail_at = 0, n
            failed = None
            try:
                repo.start()
                repo.write(put("/big", after["/big"]), put("/other", after["/other"]))
                repo.finish()
            except ObjectsError as error:
                failed = error
            done, fail_at = calls, 0
            if failed is None:
                assert repo.contents() == after
                fail_at = n
                with store.write() as txn:
                    txn.db.execute("DELETE FROM commits WHERE pk=?", (repo.head,))
                try:
                    collect.garbage(store)
                except ObjectsError as error:
                    failed = error
                done, fail_at = calls, 0
            else:
                with store.write() as txn:
                    txn.db.execute("DELETE FROM commits WHERE pk<>?", (first,))
            assert check(store) == []
        with place.open() as store:
            repo = Repo(store)
            repo.head = first
            collect.garbage(store)
            assert repo.contents() == before and check(store) == [] and bucket.objects() == {}
        seen.add(failed is None)
        if failed is None:
            break
    assert seen == {True, False} and done >= 8, done
