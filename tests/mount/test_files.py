"""What programs do in a mount, through the kernel: each of these lost or hid data in the original mount server."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mount.conftest import World


def fails(number: int, call: object, *args: object) -> None:
    with pytest.raises(OSError) as caught:
        call(*args)  # type: ignore[operator]
    assert caught.value.errno == number, caught.value


@pytest.fixture
def labels(world: World) -> Path:
    world.source.make_repo("labels", {"a.json": b"a\n", "dir/b.json": b"bb\n", "dir/sub/c.json": b"ccc\n"})
    return world.mount("labels")


def test_look(world: World, labels: Path) -> None:
    assert sorted(os.listdir(labels)) == ["a.json", "dir"]
    assert (labels / "dir/sub/c.json").read_bytes() == b"ccc\n"
    stat = (labels / "a.json").stat()
    commit = world.source.history_of("labels")[0].info
    assert (stat.st_size, stat.st_mtime_ns) == (2, commit.finished)
    inode = stat.st_ino
    time.sleep(1.1)
    assert (labels / "a.json").stat().st_ino == inode
    assert next(e for e in os.scandir(labels) if e.name == "a.json").stat().st_ino == inode
    fails(errno.ENOENT, os.stat, labels / "nope")
    fails(errno.ENOTDIR, os.stat, labels / "a.json/x")
    fails(errno.EISDIR, open, labels / "dir", "r+b")
    with open(labels / "a.json", "rb") as f:
        assert os.pread(f.fileno(), 10, 5) == b""


def test_writes_are_committed_once(world: World, labels: Path) -> None:
    (labels / "new.json").write_text("new")
    (labels / "a.json").write_text("changed")
    (labels / "dir/b.json").unlink()
    (labels / "made/deep").mkdir(parents=True)
    (labels / "made/deep/d").write_bytes(b"")
    with open(labels / "dir/sub/c.json", "ab") as f:
        f.write(b"more\n")
    made = world.commit("labels", message="m", metadata={"k": "v"})
    assert (made["files_added"], made["files_changed"], made["files_deleted"]) == (2, 2, 1)
    assert world.source.files("labels") == {
        "a.json": b"changed",
        "new.json": b"new",
        "dir/sub/c.json": b"ccc\nmore\n",
        "made/deep/d": b"",
    }
    head = world.source.history_of("labels")[0]
    assert (head.info.id, head.info.description, head.metadata) == (made["commit"], "m", {"k": "v"})
    # nothing is dirty any more: no commit, no upload of what was committed before
    assert world.commit("labels")["commit"] is None
    world.source.put("labels", {"new.json": b"theirs"})
    (labels / "other").write_text("x")
    world.commit("labels")
    assert world.source.files("labels")["new.json"] == b"theirs"


def test_same_content_is_no_change(world: World, labels: Path) -> None:
    (labels / "a.json").write_bytes(b"a\n")
    before = len(world.source.history_of("labels"))
    assert world.commit("labels")["commit"] is None
    assert len(world.source.history_of("labels")) == before


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_same_large_content_is_no_change(world: World, labels: Path, size: int) -> None:
    content = os.urandom(size)
    (labels / "large").write_bytes(content)
    assert world.commit("labels")["files_added"] == 1
    (labels / "large").write_bytes(content)
    assert world.commit("labels")["commit"] is None
    (labels / "large").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert world.commit("labels")["files_changed"] == 1
    (labels / "large").write_bytes(content[:-1])
    assert world.commit("labels")["files_changed"] == 1


def test_rename_is_committed(world: World, labels: Path) -> None:
    (labels / "tmp").write_text("via temp")
    os.replace(labels / "tmp", labels / "a.json")
    os.rename(labels / "dir", labels / "moved")
    assert (labels / "moved/sub/c.json").read_bytes() == b"ccc\n"
    assert sorted(os.listdir(labels)) == ["a.json", "moved"]
    subprocess.run(["sed", "-i", "s/bb/BB/", str(labels / "moved/b.json")], check=True)
    world.commit("labels")
    assert world.source.files("labels") == {
        "a.json": b"via temp",
        "moved/b.json": b"BB\n",
        "moved/sub/c.json": b"ccc\n",
    }
    assert (labels / "moved/sub/c.json").read_bytes() == b"ccc\n"


def test_odd_writes(world: World, labels: Path) -> None:
    os.truncate(labels / "dir/sub/c.json", 2)
    with open(labels / "a.json", "r+b") as f:
        f.seek(4)
        f.write(b"gap")
        f.flush()
        os.fsync(f.fileno())
        assert os.fstat(f.fileno()).st_size == 7
        os.ftruncate(f.fileno(), 6)
    big = os.urandom(3_000_000)
    (labels / "big").write_bytes(big)
    # in a process of its own: a page fault holds this one's interpreter lock, and the mount lives here too
    write = "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); m[10:13] = b'map'; m.flush()"
    subprocess.run([sys.executable, "-c", write, str(labels / "big")], check=True, timeout=30)
    big = big[:10] + b"map" + big[13:]
    os.link(labels / "dir/b.json", labels / "linked")
    (labels / ("n" * 255)).write_bytes(b"long")
    shutil.copytree(labels / "dir", labels / "copy")
    world.commit("labels")
    files = world.source.files("labels")
    assert files["dir/sub/c.json"] == b"cc" and files["a.json"] == b"a\n\0\0ga"
    assert files["big"] == big and files["linked"] == b"bb\n" and files["n" * 255] == b"long"
    assert files["copy/b.json"] == b"bb\n"
    assert (labels / "big").read_bytes() == big


def test_refused(world: World, labels: Path) -> None:
    for name in ("star*", "q?", "[x]", "new\nline", "\xfcml", "a@b", b"\xff\xfe"):
        path = os.path.join(os.fsencode(labels), os.fsencode(name))
        fails(errno.EINVAL, open, path, "wb")
        fails(errno.EINVAL, os.mkdir, path)
        fails(errno.EINVAL, os.rename, labels / "a.json", path.decode(errors="surrogateescape"))
    fails(errno.EOPNOTSUPP, os.symlink, "a.json", labels / "link")
    fails(errno.ENOTEMPTY, os.rmdir, labels / "dir")
    fails(errno.ENOENT, open, labels / "no/where", "wb")
    fails(errno.ENOTDIR, open, labels / "a.json/x", "wb")
    fails(errno.EEXIST, os.mkdir, labels / "dir")
    assert world.commit("labels")["commit"] is None


def test_read_only(world: World, labels: Path) -> None:
    ro = world.mount("ro", "labels", mode="ro")
    for call in (
        lambda: open(ro / "a.json", "r+b"),
        lambda: open(ro / "x", "wb"),
        lambda: os.truncate(ro / "a.json", 0),
        lambda: os.open(ro / "a.json", os.O_RDONLY | os.O_TRUNC),
        lambda: os.chmod(ro / "a.json", 0o600),
        lambda: os.chown(ro / "a.json", 0, 0),
        lambda: os.utime(ro / "a.json"),
        lambda: os.unlink(ro / "a.json"),
        lambda: os.mkdir(ro / "d"),
        lambda: os.rename(ro / "a.json", ro / "b"),
        lambda: os.symlink("a", ro / "s"),
        lambda: os.link(ro / "a.json", ro / "l"),
    ):
        fails(errno.EROFS, call)
    assert (ro / "a.json").read_bytes() == b"a\n"
    fails(errno.EROFS, os.mkdir, world.dir / "newmount")
    fails(errno.EROFS, os.rmdir, world.dir / "ro")
    fails(errno.EXDEV, os.rename, labels / "a.json", ro / "a2")


def test_file_becomes_directory_and_back(world: World, labels: Path) -> None:
    os.unlink(labels / "a.json")
    os.mkdir(labels / "a.json")
    assert os.listdir(labels / "a.json") == []
    (labels / "a.json/x").write_text("x")
    shutil.rmtree(labels / "dir")
    assert not (labels / "dir").exists()
    (labels / "dir").write_text("now a file")
    world.commit("labels")
    assert world.source.files("labels") == {"a.json/x": b"x", "dir": b"now a file"}
    assert (labels / "a.json/x").read_text() == "x" and (labels / "dir").read_text() == "now a file"
    assert world.commit("labels")["commit"] is None


def test_empty_directories_stay_local(world: World, labels: Path) -> None:
    os.mkdir(labels / "empty")
    assert world.commit("labels")["commit"] is None
    assert (labels / "empty").is_dir()
    os.unlink(labels / "dir/b.json")
    shutil.rmtree(labels / "dir/sub")
    assert os.listdir(labels / "dir") == []
    os.rmdir(labels / "dir")
    os.rmdir(labels / "empty")
    assert os.listdir(labels) == ["a.json"]


def test_follows_its_branch(world: World, labels: Path) -> None:
    held = open(labels / "a.json", "rb")
    world.source.put("labels", {"a.json": b"newer\n", "in/coming": b"x"})
    deadline = time.monotonic() + 120
    while not (labels / "in/coming").exists() or (labels / "a.json").read_bytes() != b"newer\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert held.read() == b"a\n"  # an open file stays what it was
    held.close()
    assert (labels / "a.json").read_bytes() == b"newer\n"


def test_local_changes_win_and_conflicts_are_named(world: World, labels: Path) -> None:
    (labels / "a.json").write_text("mine")
    world.source.put("labels", {"a.json": b"theirs", "dir/b.json": b"theirs"})
    deadline = time.monotonic() + 120
    while not world.mounts.get("labels").conflicts:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(world.mounts.get("labels").conflicts) == ["a.json"]
    world.commit("labels")
    assert world.source.files("labels")["a.json"] == b"mine"
    assert world.source.files("labels")["dir/b.json"] == b"theirs"
    assert not world.mounts.get("labels").conflicts


def test_mount_of_a_commit_and_of_a_path(world: World, labels: Path) -> None:
    first = world.source.heads["default", "labels", "master"]
    world.source.put("labels", {"a.json": b"second"})
    old = world.mount("old", "labels", mode="ro", commit=first)
    assert (old / "a.json").read_bytes() == b"a\n"
    part = world.mount("part", "labels", path="/dir/sub")
    assert os.listdir(part) == ["dir"] and os.listdir(part / "dir") == ["sub"]
    (part / "dir/sub/ok").write_text("ok")
    fails(errno.EROFS, open, part / "outside", "wb")
    fails(errno.EROFS, open, part / "dir/outside", "wb")
    world.commit("part")
    assert world.source.files("labels")["dir/sub/ok"] == b"ok"


def test_large_files(world: World) -> None:
    data = os.urandom(20_000_003)
    world.source.make_repo("big", {"f": data})
    big = world.mount("big", mode="ro")
    with open(big / "f", "rb") as f:
        assert f.read(10) == data[:10]
        assert os.pread(f.fileno(), 1000, 15_000_000) == data[15_000_000:15_001_000]
    assert (big / "f").read_bytes() == data
    reads = world.source.calls.count("read")
    assert (big / "f").read_bytes() == data
    assert world.source.calls.count("read") == reads  # the second time from the cache


def test_small_files_are_read_ahead(world: World) -> None:
    files = {f"d/{i:04}": str(i).encode() * 20 for i in range(500)}
    world.source.make_repo("many", files)
    many = world.mount("many", mode="ro")
    for path, data in files.items():
        assert (many / path).read_bytes() == data
    assert world.source.calls.count("read") + world.source.calls.count("read_directory") < 20


def test_a_failed_read_breaks_nothing_else(world: World, labels: Path) -> None:
    world.source.fail_before = "read"
    fails(errno.EIO, (labels / "a.json").read_bytes)
    world.source.fail_before = ""
    assert (labels / "a.json").read_bytes() == b"a\n"


def test_writes_while_committing(world: World, labels: Path) -> None:
    f = open(labels / "open", "wb")
    f.write(b"1" * 300_000)
    f.flush()
    os.fsync(f.fileno())
    world.commit("labels")
    assert world.source.files("labels")["open"] == b"1" * 300_000
    f.write(b"2" * 300_000)
    f.close()
    assert (labels / "open").read_bytes() == b"1" * 300_000 + b"2" * 300_000
    world.commit("labels")
    assert world.source.files("labels")["open"] == b"1" * 300_000 + b"2" * 300_000


def test_many_slow_readers_and_a_writer(world: World, labels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers that wait for the store hold up others only when they are more than the threads; none is lost."""
    monkeypatch.setattr("mount_server.fuse_loop.MOST_THREADS", 12)
    content = {f"f{i}": os.urandom(200_000) for i in range(30)}
    world.source.make_repo("slow", content)
    folder = world.mount("slow", mode="ro")
    assert len(os.listdir(folder)) == 30
    read = world.source.read

    def slowly(*arguments: object) -> Iterator[bytes]:
        time.sleep(0.3)
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.source, "read", slowly)
    with ThreadPoolExecutor(40) as pool:
        # one process each: threads of this one would need Python's lock while they wait in the kernel
        reads = [pool.submit(subprocess.run, ["cat", folder / name], capture_output=True) for name in content]
        time.sleep(0.2)
        (labels / "written").write_bytes(b"meanwhile")
        assert [done.result().stdout for done in reads] == list(content.values())
    assert (labels / "written").read_bytes() == b"meanwhile"
    assert sum(thread.name.startswith("fuse") for thread in threading.enumerate()) <= 13


@pytest.mark.parametrize("size", [10, 300_000])  # one waits without saying so, of the other somebody is told
def test_others_are_served_while_one_waits(
    world: World, labels: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    world.source.make_repo("slow", {"f": b"x" * size})
    folder = world.mount("slow", mode="ro")
    assert os.listdir(folder) == ["f"]
    read, asked, go_on = world.source.read, threading.Event(), threading.Event()

    def held(*arguments: object) -> Iterator[bytes]:
        asked.set()
        assert go_on.wait(120)
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.source, "read", held)
    with subprocess.Popen(["cat", folder / "f"], stdout=subprocess.PIPE) as reader:
        try:
            assert asked.wait(120)
            for i in range(20):
                (labels / f"written{i}").write_text(str(i))
                assert (labels / f"written{i}").read_text() == str(i)
        finally:
            go_on.set()
        assert reader.communicate(timeout=120)[0] == b"x" * size


def test_many_writers_at_once(world: World, labels: Path) -> None:
    code = "import sys\nfor i in range(200):\n open(f'{sys.argv[1]}/{sys.argv[2]}-{i}', 'w').write(sys.argv[2] * i)"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(labels), str(n)]) for n in range(6)]
    assert [writer.wait(240) for writer in writers] == [0] * 6
    made = world.commit("labels")
    assert made["files_added"] == 1200
    files = world.source.files("labels")
    assert all(files[f"{n}-{i}"] == str(n).encode() * i for n in range(6) for i in range(200))


def test_the_process_outlives_broken_pipes_after_unmounting(world: World) -> None:
    world.stop()  # libfuse sets SIGPIPE to its default, which ends a process
    ignored = re.search(r"^SigIgn:\s+(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert ignored and int(ignored[1], 16) >> (signal.SIGPIPE - 1) & 1
