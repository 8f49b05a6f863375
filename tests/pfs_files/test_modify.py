"""Streams of modifications against a dictionary, and what finishing them says."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pachd.errors import PachError
from pachd.pfs import filesets
from pachd.pfs.modify import Modification
from pachd.store import Store
from pachd.store.contents import BLOCK, content_hash
from tests.pfs_files.bare import Repo, delete, put

Model = dict[tuple[str, str], bytes]

paths = st.sampled_from(["/a", "/b", "/a.x", "/d/a", "/d/b", "/d/e/a", "/d/e/b", "/f/a"])
tags = st.sampled_from(["default", "one", "two"])
operations = st.one_of(
    st.tuples(st.just("put"), paths, st.binary(max_size=3), tags),
    st.tuples(st.just("delete"), st.one_of(paths, st.sampled_from(["/", "/d/", "/d/e/", "/nope/", "/a/"])), tags),
    st.tuples(
        st.just("copy"),
        st.sampled_from(["/a", "/d", "/d/e", "/", "/nope"]),
        st.sampled_from(["/a", "/g"]),
        st.booleans(),
        tags,
    ),
)


def expected(model: Model, base: Model, operation: tuple[object, ...]) -> None:
    """One operation on a model. base: the commit's files before the stream, which is what a copy reads."""
    kind, path = str(operation[0]), str(operation[1])
    if kind == "put":
        tag = str(operation[3])
        model[path, tag] = model.get((path, tag), b"") + bytes(operation[2])  # type: ignore[arg-type]
    elif kind == "delete":
        tag = str(operation[2])
        for known in [
            k for k in model if k[1] == tag and (k[0] == path or (path[-1] == "/" and k[0].startswith(path)))
        ]:
            del model[known]
    else:
        target, append, tag = str(operation[2]), bool(operation[3]), str(operation[4])
        below = path if path == "/" else path + "/"
        for (source, _), data in sorted(base.items(), key=lambda i: (i[0][0], i[0][1].replace("default", ""))):
            if source == path or source.startswith(below):
                rest = source[len(below) :] if source != path else ""
                copied = f"{target}/{rest}" if rest else target
                if not append:
                    model.pop((copied, tag), None)
                model[copied, tag] = model.get((copied, tag), b"") + data


def step(repo: Repo, pk: int, operation: tuple[object, ...]) -> Callable[[Modification], object]:
    kind, path = operation[0], str(operation[1])
    if kind == "put":
        return put(path, bytes(operation[2]), str(operation[3]))  # type: ignore[arg-type]
    if kind == "delete":
        return delete(path, str(operation[2]))

    def copy(modification: Modification) -> None:
        with repo.store.read() as txn:
            row = repo.row(txn, pk)
            modification.copy_from(txn, row, path, str(operation[2]), bool(operation[3]), str(operation[4]))

    return copy


def files_of(repo: Repo) -> Model:
    with repo.store.read() as txn:
        view = repo.view(txn)
        found: Model = {}
        for key, size, digest, refs, _ in view.tree.scan():
            path, _nul, tag = key.partition("\0")
            from pachd.store.contents import read

            data = b"".join(read(txn, refs))
            assert size == len(data) and digest == content_hash(data)
            found[path, tag or "default"] = data
        return found


def error_of(model: Model) -> str:
    """What is wrong with the files of a model."""
    keys = sorted(model)
    for (path, tag), (following, other) in zip(keys, keys[1:], strict=False):
        inside = [k[0] for k in keys if k[0].startswith(path + "/")]
        first = min([following] if following == path else [], default=None)
        if first:
            return f"duplicate path output by different datums ({path} from {tag} and {path} from {other})"
        if inside:
            return f"file / directory path collision ({inside[0]})"
    return ""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commits=st.lists(st.lists(st.lists(operations, min_size=1, max_size=6), max_size=4), min_size=1, max_size=3))
def test_against_a_dictionary(store: Store, commits: list[list[list[tuple[object, ...]]]]) -> None:
    repo = Repo(store)
    valid: Model = {}
    for streams in commits:
        pk = repo.start()
        model = dict(valid)
        assert files_of(repo) == model
        for stream in streams:
            base = dict(model)
            repo.write(*(step(repo, pk, operation) for operation in stream))
            for operation in stream:
                expected(model, base, operation)
            assert files_of(repo) == model
        done = repo.finish()
        assert files_of(repo) == model
        assert done.size == sum(map(len, model.values()))
        assert bool(done.error) == bool(error_of(model)), (done.error, error_of(model))
        if not done.error:
            valid = model


def test_append_overwrite_and_delete(repo: Repo) -> None:
    repo.commit(put("/a", b"1"), put("/a", b"2"), put("/b", b"b"))
    assert repo.contents() == {"/a": b"12", "/b": b"b"}
    repo.commit(put("/a", b"3"))
    assert repo.contents() == {"/a": b"123", "/b": b"b"}
    repo.commit(delete("/a"), put("/a", b"4"))
    assert repo.contents() == {"/a": b"4", "/b": b"b"}
    repo.commit(put("/a", b"5"), delete("/a"))
    assert repo.contents() == {"/b": b"b"}


def test_only_the_given_datum_is_deleted(repo: Repo) -> None:
    repo.commit(put("/d/a", b"1", "one"), put("/d/b", b"2", "two"))
    repo.commit(delete("/d/", "one"), delete("/d/b"))
    assert repo.contents() == {"/d/b two": b"2"}


def test_the_same_path_by_two_datums(repo: Repo) -> None:
    repo.commit(put("/ok"))
    done = repo.commit(put("/d", b"x", "one"), put("/d", b"y", "two"))
    assert done.error == "duplicate path output by different datums (/d from one and /d from two)"
    repo.commit(put("/after"))
    assert repo.contents() == {"/after": b"x", "/ok": b"x"}


@pytest.mark.parametrize("between", [[], ["/one.txt"]])
def test_a_file_and_a_directory_of_one_name(repo: Repo, between: list[str]) -> None:
    repo.commit(put("/one"), *(put(path) for path in between))
    assert repo.commit(put("/one/two")).error == "file / directory path collision (/one/two)"
    assert repo.commit(put("/one/two/three/four")).error == "file / directory path collision (/one/two/three/four)"
    repo.commit(delete("/one"), put("/one/two"))
    assert repo.commit(put("/one")).error == "file / directory path collision (/one/two)"


def test_same_bytes_same_hash_however_written(repo: Repo) -> None:
    big = bytes(range(256)) * (BLOCK // 256) * 2 + b"tail"
    repo.commit(put("/once", big), *(put("/parts", big[i : i + 3_000_000]) for i in range(0, len(big), 3_000_000)))
    for i in range(0, len(big), 7_000_000):
        repo.commit(put("/appended", big[i : i + 7_000_000]))
    with repo.store.read() as txn:
        view = repo.view(txn)
        found = [view.inspect(path) for path in ("/once", "/parts", "/appended")]
        assert {(e.size, e.hash) for e in found} == {(len(big), content_hash(big))}
        for entry in found:
            assert b"".join(view.read(entry)) == big
            assert b"".join(view.read(entry, BLOCK - 5, 10)) == big[BLOCK - 5 : BLOCK + 5]
            assert b"".join(view.read(entry, len(big))) == b"".join(view.read(entry, len(big) + 1)) == b""


def test_hashes_are_pachyderms(repo: Repo) -> None:
    repo.commit(put("/x", b"x"), put("/empty", b""))
    inner = hashlib.blake2b(b"x", digest_size=32).digest()
    with repo.store.read() as txn:
        view = repo.view(txn)
        assert view.inspect("/x").hash == hashlib.blake2b(inner, digest_size=32).digest()
        assert view.inspect("/empty").hash == hashlib.blake2b(digest_size=32).digest()


def test_a_thousand_appends_do_not_leave_a_thousand_pieces(repo: Repo) -> None:
    repo.start()
    for n in range(300):
        repo.write(put("/log", b"%06d\n" % n * 100))
    repo.finish()
    repo.commit(put("/log", b"end"))
    with repo.store.read() as txn:
        entry = repo.view(txn).inspect("/log")
        assert len(entry.refs) <= 3 * 40
        assert b"".join(repo.view(txn).read(entry)) == b"".join(b"%06d\n" % n * 100 for n in range(300)) + b"end"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/ä", "path (/ä) invalid: only printable ASCII characters allowed"),
        ("", "path () invalid: only printable ASCII characters allowed"),
        ("/tab\tx", "path (/tab\tx) invalid: only printable ASCII characters allowed"),
        ("/star*", "path (/star*) invalid: globbing character (*) not allowed in path"),
        ("/{x}", "path (/{x}) invalid: globbing character ({) not allowed in path"),
        ("/a+b^c", "path (/a+b^c) invalid: globbing character (+) not allowed in path"),
        ("/a/../b", "path (/a/../b) invalid: relative file paths are not allowed"),
        ("./a", "path (./a) invalid: relative file paths are not allowed"),
        ("/a/.", "path (/a/.) invalid: relative file paths are not allowed"),
    ],
)
def test_illegal_paths(repo: Repo, path: str, error: str) -> None:
    for name in ("append", "delete"):
        with Modification(repo.store) as modification, pytest.raises(PachError) as caught:
            modification.append(path, b"") if name == "append" else modification.delete(path)
        assert str(caught.value) == error


def test_a_copy_may_have_a_path_that_nothing_can_be_put_to(repo: Repo) -> None:
    repo.commit(put("/a", b"1"), put("/d/b", b"2"))
    with repo.store.read() as txn:
        row = repo.row(txn)

    def copy(source: str, target: str) -> Callable[[Modification], None]:
        return lambda modification: modification.copy(row, source, target)

    repo.commit(copy("/a", "/star*"), copy("/d", "/../{d}"), copy("/a", "/x/./[y"))
    assert set(repo.contents()) == {"/a", "/d/b", "/star*", "/{d}/b", "/x/[y"}
    with Modification(repo.store) as modification, pytest.raises(PachError, match="only printable ASCII characters"):
        modification.copy(row, "/a", "/tab\tx")


def test_paths_are_cleaned(repo: Repo) -> None:
    repo.commit(
        *(put(p) for p in ("no/slash", "/a//b", "/dir/", "/.hidden", "/...", "/sp ace", "/back\\slash", "/~|\"'<>`"))
    )
    assert set(repo.contents()) == {
        "/no/slash",
        "/a/b",
        "/dir",
        "/.hidden",
        "/...",
        "/sp ace",
        "/back\\slash",
        "/~|\"'<>`",
    }


def test_an_open_commit_needs_a_finished_parent(repo: Repo, store: Store) -> None:
    repo.start()
    repo.start()
    with (
        store.read() as txn,
        pytest.raises(PachError, match=r"^base commit default/r@\w+ for commit default/r@\w+ unfinished$"),
    ):
        repo.view(txn)


def test_clear(repo: Repo, store: Store) -> None:
    repo.commit(put("/kept"))
    repo.start()
    repo.write(put("/gone"))
    assert set(repo.contents()) == {"/kept", "/gone"}
    with store.write() as txn:
        filesets.clear(txn, repo.row(txn))
    assert set(repo.contents()) == {"/kept"}
    repo.write(put("/new"))
    assert set(repo.contents()) == {"/kept", "/new"}
    assert set(repo.contents(repo.head)) == {"/kept", "/new"}


def test_unchanged_bytes_keep_the_page(repo: Repo) -> None:
    first = repo.commit(*(put(f"/f{n:03}", b"%d" % n) for n in range(300)))
    again = repo.commit(*(s for n in range(300) for s in (delete(f"/f{n:03}"), put(f"/f{n:03}", b"%d" % n))))
    assert first.root == again.root


def test_many_files_stay_out_of_memory(repo: Repo, store: Store) -> None:
    data = bytes(50_000)
    repo.start()
    with Modification(store) as modification:
        for n in range(400):
            modification.append(f"/f{n}", data)
        modification.append("/large", bytes(20 << 20))
        assert modification._writer._in_memory <= 4 << 20
        modification.seal()
        with store.write() as txn:
            modification.apply(txn, repo.row(txn))
    repo.finish()
    assert repo.contents() == {**{f"/f{n}": data for n in range(400)}, "/large": bytes(20 << 20)}
