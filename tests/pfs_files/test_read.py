"""Listings, ranges, pages, FileInfo bytes and differences of small commits."""

import pytest

from pachd.errors import Aborted, NotFound, PachError
from pachd.pfs import diff, encode
from pachd.pfs.read import Entry, PathRange, page
from pachd.proto import pfs_pb2
from pachd.store import Store
from tests.pfs_files.bare import Repo, delete, put

FILES = ["/A", "/Z/1", "/a b", "/a-b", "/a/0", "/a/1", "/a/x/2", "/a/x/3", "/b/y/z/4", "/c"]
COMMIT = pfs_pb2.Commit(id="0" * 32, repo=pfs_pb2.Repo(name="r", type="user", project=pfs_pb2.Project(name="default")))


@pytest.fixture
def full(repo: Repo) -> Repo:
    repo.commit(*(put(path, path.encode()) for path in FILES))
    return repo


def everything(repo: Repo) -> list[str]:
    """Every path of the files above, directories included, as a slow and obvious loop makes them."""
    found = set(FILES)
    for path in FILES:
        found |= {path[: i + 1] for i, c in enumerate(path) if c == "/"}
    return sorted(found)


def paths(entries: object) -> list[str]:
    return [entry.path for entry in entries]  # type: ignore[attr-defined]


def test_walk_and_list(full: Repo, store: Store) -> None:
    with store.read() as txn:
        view = full.view(txn)
        known = everything(full)
        assert paths(view.walk("/")) == known == paths(view.walk(""))
        assert paths(view.walk("/a")) == paths(view.walk("/a/")) == [p for p in known if p.startswith("/a/")]
        assert paths(view.walk("/a b")) == ["/a b"]
        assert paths(view.list("/")) == ["/A", "/Z/", "/a b", "/a-b", "/a/", "/b/", "/c"]
        assert paths(view.list("/a")) == ["/a/0", "/a/1", "/a/x/"]
        assert paths(view.list("/c")) == ["/c"]
        assert paths(view.list("/nope")) == []
        assert paths(view.glob("/**")) == known[1:]
        assert paths(view.glob("/*/*")) == ["/Z/1", "/a/0", "/a/1", "/a/x/", "/b/y/"]
        assert paths(view.glob("/a/x*")) == ["/a/x/"]
        assert paths(view.glob("/a*")) == ["/a b", "/a-b", "/a/"]
        assert paths(view.glob("/")) == ["/"]
        assert paths(view.glob("/a/")) == ["/a/"]
        assert paths(view.glob("/**", PathRange("/a/1", "/b/"))) == ["/a/1", "/a/x/", "/a/x/2", "/a/x/3"]
        assert paths(view.files("/[ac]")) == ["/a/", "/a/0", "/a/1", "/a/x/", "/a/x/2", "/a/x/3", "/c"]
        sizes = {e.path: e.size for e in view.walk("/")}
        assert sizes["/"] == sum(map(len, FILES)) and sizes["/a/x/"] == 12
        with pytest.raises(NotFound, match=r"does not contain item: \(/nope\)"):
            list(view.walk("/nope"))


def test_many_directories(repo: Repo, store: Store) -> None:
    """Directories that go over several pages, and pages with several directories."""
    names = [f"/d{n:03}/f{m}" for n in range(150) for m in range(1 if n % 3 else 300)]
    repo.commit(*(put(name) for name in names))
    with store.read() as txn:
        view = repo.view(txn)
        assert paths(view.list("/")) == sorted({name[:6] for name in names})
        assert paths(view.glob("/*")) == sorted({name[:6] for name in names})
        assert paths(view.glob("/*/*")) == sorted(names)
        assert {e.path: e.size for e in view.list("/")} == {f"/d{n:03}/": 1 if n % 3 else 300 for n in range(150)}
        assert len(paths(view.walk("/"))) == len(names) + 151


def test_inspect(full: Repo, store: Store) -> None:
    with store.read() as txn:
        view = full.view(txn)
        assert view.inspect("/c") == view.inspect("c/") == next(view.list("/c"))
        assert view.inspect("/a").path == view.inspect("/a/").path == "/a/"
        assert view.inspect("/").size == sum(map(len, FILES))
        with pytest.raises(NotFound, match=r"^file /nope not found in repo default/r at commit $"):
            view.inspect("/nope")


def test_an_empty_commit(repo: Repo, store: Store) -> None:
    repo.start()
    repo.finish()
    with store.read() as txn:
        view = repo.view(txn)
        assert list(view.walk("/")) == list(view.list("/")) == list(view.glob("/**")) == list(view.glob("/")) == []
        with pytest.raises(NotFound):
            view.inspect("/")


def test_get(full: Repo, store: Store) -> None:
    with store.read() as txn:
        view = full.view(txn)
        assert b"".join(view.read(view.get("/a/x/[2]"), 2, 3)) == b"/x/"
        assert view.get("/a/*", PathRange("/a/1", "/a/2")).path == "/a/1"
        for pattern, error in (
            ("/a/?", r"^matched multiple files. Use GetFileTAR instead$"),
            ("/a", r"^cannot get directory or non-regular file. Use GetFileTAR instead$"),
            ("/nope*", r"^file /nope\* not found in repo default/r at commit $"),
        ):
            with pytest.raises(PachError, match=error):
                view.get(pattern)


def test_pages(full: Repo, store: Store) -> None:
    with store.read() as txn:
        view = full.view(txn)
        known = everything(full)

        def paged(marker: str | None = None, number: int = 0, reverse: bool = False) -> list[str]:
            return paths(page(view.walk("/"), marker, number, reverse))

        assert paged() == known
        assert paged(number=3) == known[:3]
        assert paged("") == known[1:], "the marker itself is no part of a page"
        assert paged("/a/1") == known[known.index("/a/1") + 1 :]
        assert paged("/a/x/2", 2, True) == ["/a/x/", "/a/1"]
        assert paged(number=2, reverse=True) == ["/c", "/b/y/z/4"]
        with pytest.raises(PachError, match="^number must be > 0 when reverse is true$"):
            paged(reverse=True)
        with pytest.raises(Aborted):
            paged(number=-1, reverse=True)
        for marker, reverse in (("/zz", False), ("/", True)):
            with pytest.raises(PachError, match="^nothing$"):
                list(page(view.walk("/"), marker, 5, reverse, PachError("nothing")))
        assert list(page(view.walk("/"), known[-1], 5, False, PachError("nothing"))) == []
        with pytest.raises(PachError, match="^cannot return more than 100000 files at a time$"):
            paged(number=100_001)


def test_errors_of_an_invalid_commit(repo: Repo, store: Store) -> None:
    repo.commit(put("/b"), put("/d", b"x", "one"), put("/d", b"y", "two"), put("/e"), put("/e/f"))
    doubled = r"^duplicate path output by different datums \(/d from one and /d from two\)$"
    with store.read() as txn:
        view = repo.view(txn)
        seen: list[Entry] = []
        with pytest.raises(PachError, match=doubled):
            seen.extend(view.list("/"))
        for ask in (
            lambda: view.inspect("/d"),
            lambda: view.get("/d"),
            lambda: list(view.glob("/**")),
            lambda: view.inspect("/"),
        ):
            with pytest.raises(PachError, match=doubled):
                ask()
        with pytest.raises(PachError, match=r"^file / directory path collision \(/e/f\)$"):
            list(view.list("/e"))
        assert b"".join(view.read("/b")) == b"x"
        assert paths(repo.view(txn, datum="one").walk("/")) == ["/", "/d"]


def test_encoded_is_what_protobuf_says(full: Repo, store: Store) -> None:
    full.commit(put("/long/" + "x" * 300, b"y" * 20_000, "d" * 64))
    with store.read() as txn:
        view = full.view(txn)
        entries = list(view.walk("/"))
        data = view.encoded(entries, COMMIT)
        for entry in entries:
            assert data[0] == 0
            length = int.from_bytes(data[1:5], "big")
            info = pfs_pb2.FileInfo.FromString(data[5 : 5 + length])
            data = data[5 + length :]
            assert info == encode.file_info(entry, COMMIT)
            assert (info.file.path, info.size_bytes, info.hash) == (entry.path, entry.size, entry.hash)
            assert info.committed.ToNanoseconds() == view.committed_ns
        assert not data


def test_diff(repo: Repo, store: Store) -> None:
    repo.commit(put("/keep", b"same"), put("/dir/change", b"old"), put("/dir/gone", b"gone"), put("/same/x"))
    repo.commit(delete("/dir/change"), put("/dir/change", b"new"), put("/dir2/add", b"added"), delete("/dir/gone"))
    with store.read() as txn:
        new, old = repo.view(txn), repo.view(txn, repo.head - 1 if repo.head else None)

        def between(path: str, other: str | None = None) -> list[tuple[str, str]]:
            return [(a.path if a else "", b.path if b else "") for a, b in diff.diff(new, old, path, other)]

        whole = [
            ("/", "/"),
            ("/dir/", "/dir/"),
            ("/dir/change",) * 2,
            ("", "/dir/gone"),
            ("/dir2/", ""),
            ("/dir2/add", ""),
        ]
        assert between("/") == whole == between("")
        assert between("/dir") == [("/dir/", "/dir/"), ("/dir/change",) * 2, ("", "/dir/gone")]
        assert between("/dir/change") == [("/dir/change",) * 2]
        assert between("/nope") == between("/keep") == []
        assert between("/dir", "/same") == [("/dir/", ""), ("/dir/change", ""), ("", "/same/"), ("", "/same/x")]
        assert [
            p
            for p in ("/", "/dir", "/dir/change", "/dir/gone", "/dir2/add", "/keep", "/same", "/nope")
            if diff.differs(new, old, p)
        ] == ["/dir/change", "/dir/gone", "/dir2/add"]
        assert diff.differs(new, None, "/keep") and not diff.differs(new, None, "/nope")
        assert [a.path for a, _ in diff.diff(new, None, "/dir2") if a] == ["/dir2/", "/dir2/add"]


def test_diff_of_a_file_that_only_changed_its_datum(repo: Repo, store: Store) -> None:
    first = repo.start()
    repo.write(put("/a", b"1", "one"), put("/b", b"2", "one"))
    repo.finish()
    repo.commit(delete("/", "one"), put("/a", b"1", "two"), put("/b", b"3", "two"))
    with store.read() as txn:
        found = list(diff.diff(repo.view(txn), repo.view(txn, first), "/"))
        assert [(a and a.path, b and b.path) for a, b in found] == [("/", "/"), ("/b", "/b")]
        assert [(a and a.datum, b and b.datum) for a, b in found] == [("", ""), ("two", "one")]


def test_a_directory_is_invalid_with_what_is_deep_inside_it(repo: Repo, store: Store) -> None:
    """As soon as it is written, not only when the commit has finished; what is beside it can be read."""
    repo.commit(put("/d/e/f", b"1"), put("/ok/g", b"2"))
    repo.start()
    repo.write(put("/d/e/f/deeper", b"3"), put("/ok/h", b"4"))
    told = r"^file / directory path collision \(/d/e/f/deeper\)$"
    with store.read() as txn:
        view = repo.view(txn)
        for path in ("/", "/d", "/d/e/"):
            with pytest.raises(PachError, match=told):
                view.inspect(path)
        assert view.inspect("/ok").size == 2
        for listing in (view.list("/"), view.walk("/"), view.glob("/*"), view.glob("/")):
            with pytest.raises(PachError, match=told):
                next(listing)
        assert paths(view.glob("/ok/*")) == ["/ok/g", "/ok/h"]
        seen = []
        with pytest.raises(PachError, match=told):
            seen += [found.path for found in view.glob("/ok*")] + [found.path for found in view.glob("/d*")]
        assert seen == []
