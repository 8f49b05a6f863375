"""Names that are not there are answered without libfuse: never with a path that a directory had before."""

import os
import threading

import pytest

from mount_server.errors import IllegalName
from mount_server.fuse_nodes import Nodes
from mount_server.names import check_name, check_path
from tests.mount.conftest import World

FILES = 100


def test_a_renamed_directory_is_where_it_is(world: World) -> None:
    world.source.make_repo("labels", {"a/b/c": b"1"})
    labels = world.mount("labels")
    for _ in range(3):
        assert not (labels / "a/b/missing").exists()  # from the second on it is known what a/b is
    os.rename(labels / "a", labels / "z")
    (labels / "z/b/missing").write_bytes(b"2")
    (labels / "a/b").mkdir(parents=True)
    assert not (labels / "a/b/missing").exists()
    assert not (labels / "a/b/c").exists()
    assert (labels / "z/b/missing").read_bytes() == b"2"
    assert (labels / "z/b/c").read_bytes() == b"1"
    os.rename(labels / "z/b", labels / "a/b/d")
    assert sorted(os.listdir(labels / "a/b/d")) == ["c", "missing"]
    assert not (labels / "z/b").exists()
    assert not (labels / "a/b/d/other").exists()


def test_what_is_there_is_found_while_its_directory_is_renamed(world: World) -> None:
    world.source.make_repo("labels", {f"a/f{i}": b"1" for i in range(FILES)})
    labels = world.mount("labels")
    directory = os.open(labels / "a", os.O_RDONLY | os.O_DIRECTORY)
    over = threading.Event()
    renamed = 0

    def rename() -> None:
        nonlocal renamed
        names = ["a", "b"]
        while not over.is_set():
            os.rename(labels / names[0], labels / names[1])
            names.reverse()
            renamed += 1

    thread = threading.Thread(target=rename)
    thread.start()
    try:
        for i in range(FILES):
            assert os.stat(f"f{i}", dir_fd=directory).st_size == 1
            os.close(os.open(f"new{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=directory))
    finally:
        over.set()
        thread.join()
        os.close(directory)
    assert renamed
    (name,) = os.listdir(labels)
    assert len(os.listdir(labels / name)) == 2 * FILES


def test_a_file_made_elsewhere_is_seen_at_once(world: World) -> None:
    world.source.make_repo("labels", {"a": b"1"})
    labels = world.mount("labels")
    for i in range(3):
        assert not (labels / f"d/f{i}").exists()
        assert not (labels / f"f{i}").exists()
        world.mounts.get("labels").stage([(f"f{i}", b"22"), (f"d/f{i}", b"333")])
        assert (labels / f"f{i}").stat().st_size == 2
        assert (labels / f"d/f{i}").stat().st_size == 3


def test_nothing_is_learned_while_something_is_renamed() -> None:
    nodes = Nodes()
    nodes.here.asked = (7, b"name")
    nodes.learn(b"/labels/a/name")
    known = nodes.path(7)
    assert known == b"/labels/a/"
    with nodes.renaming():
        assert nodes.path(7) is None
        with nodes.renaming():
            pass
        nodes.here.asked = (7, b"name")
        nodes.learn(b"/labels/a/name")
        assert nodes.path(7) is None
    nodes.here.asked = (7, b"name")
    nodes.learn(b"/labels/a/name")
    assert nodes.path(7) == known and nodes.path(7) is not known
    nodes.forget(7)
    assert nodes.path(7) is None


def test_names_and_paths_have_the_same_rules() -> None:
    def taken(call: object, text: str) -> bool:
        try:
            call(text)  # type: ignore[operator]
        except IllegalName:
            return False
        return True

    names = [chr(i) for i in range(0x120)] + [
        "\U0010ffff",
        "\udc80",
        "..a",
        "a.",
        ".a",
        "a b",
        "a" * 255,
        "a" * 256,
        "..",
    ]
    for name in names:
        if name != "/":
            for path in (name, f"a/{name}", f"{name}/a", f"/{name}", f"a/{name}/a"):
                assert taken(check_path, path) == taken(check_name, name), path
    for path in ("", "/", "//a", "a//a", "a/", "a/.", "a/../a", "a\n"):
        with pytest.raises(IllegalName):
            check_path(path)
