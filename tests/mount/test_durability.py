"""What was acknowledged is kept over restarts, failed commits and cuts at each step; and it is committed once."""

import errno
import os
import time
from pathlib import Path

import pytest

from mount_server import errors
from mount_server.journal import Journal
from tests.mount.conftest import World


@pytest.fixture
def labels(quiet_world: World) -> World:
    quiet_world.source.make_repo("labels", {"a.json": b"a"})
    quiet_world.mount("labels")
    return quiet_world


def stage(world: World, **files: str | None) -> None:
    world.mounts.get("labels").stage([(name, None if text is None else text.encode()) for name, text in files.items()])


def test_survives_a_restart_with_the_store_down(labels: World) -> None:
    stage(labels, b="b", a=None)
    labels.source.down = True
    labels.restart()
    assert labels.mounts.get("labels").dirty()[:2] == (1, 1)
    stage(labels, c="c")
    with pytest.raises(errors.Unreachable):
        labels.commit("labels")
    labels.source.down = False
    labels.commit("labels")
    assert labels.source.files("labels") == {"a.json": b"a", "b": b"b", "c": b"c"}


@pytest.mark.parametrize("step", ["start", "fill", "finish"])
@pytest.mark.parametrize("restart", [True, False])
def test_cut_off_at_each_step_commits_once(labels: World, step: str, restart: bool) -> None:
    stage(labels, b="b")
    labels.source.fail_after = step
    with pytest.raises(errors.Unreachable):
        labels.commit("labels", message="m", key="k1")
    labels.source.fail_after = ""
    if restart:
        labels.restart()
    stage(labels, later="l")
    made = labels.commit("labels", message="m", key="k1")
    if step == "finish":  # it had happened: the same answer again, and what came later is still to be committed
        assert made["files_added"] == 1
        labels.commit("labels")
    history = labels.source.history_of("labels")
    assert all(commit.info.finished for commit in history)
    assert len(history) == (3 if step == "finish" else 2)
    assert labels.source.files("labels") == {"a.json": b"a", "b": b"b", "later": b"l"}
    assert labels.commit("labels")["commit"] is None


def test_asked_again_with_the_same_key(labels: World) -> None:
    stage(labels, b="b")
    first = labels.commit("labels", key="k")
    assert labels.commit("labels", key="k") == first
    assert len(labels.source.history_of("labels")) == 2


def test_expected_head(labels: World) -> None:
    head = labels.source.heads["default", "labels", "master"]
    stage(labels, b="b")
    labels.source.put("labels", {"x": b"x"})
    with pytest.raises(errors.HeadMoved):
        labels.commit("labels", expected=head)
    assert labels.mounts.get("labels").dirty().files == 1
    labels.commit("labels", expected=labels.source.heads["default", "labels", "master"])
    assert labels.source.files("labels")["b"] == b"b"


def test_illegal_path_stages_nothing(labels: World) -> None:
    for path in ("/a*", "/../x", "", "/", "/a//b", "/ü", "/x\n"):
        with pytest.raises(errors.IllegalName):
            labels.mounts.get("labels").stage([("good", b"1"), (path, b"2")])
    assert labels.mounts.get("labels").dirty() == (0, 0, 0)


def test_collision_is_refused_and_kept(labels: World) -> None:
    labels.mounts.get("labels").stage([("a.json/x", b"1")])
    with pytest.raises(errors.Conflict):
        labels.commit("labels")
    assert labels.mounts.get("labels").dirty().files == 1
    stage(labels, **{"a.json": None})  # the way out: the file goes, the directory stays
    labels.commit("labels")
    assert labels.source.files("labels") == {"a.json/x": b"1"}


def test_prefix_names_are_different_mounts(labels: World) -> None:
    labels.source.make_repo("d", {})
    labels.source.make_repo("data", {})
    labels.mount("d")
    labels.mount("data")
    labels.mounts.get("data").stage([("f", b"1")])
    assert labels.commit("d")["commit"] is None
    assert labels.mounts.get("data").dirty().files == 1


def test_unmount_commits_and_remount_restores(labels: World) -> None:
    stage(labels, b="b")
    labels.mounts.unmount(["labels"])
    assert labels.source.files("labels")["b"] == b"b"
    labels.restart()
    assert labels.mounts.all() == []


def test_second_server_is_refused(labels: World) -> None:
    with pytest.raises(errors.Conflict, match="used by another"):
        Journal(labels.folder / "state")


def test_new_branch_of_an_empty_repo(labels: World) -> None:
    labels.source.make_repo("fresh")
    labels.mount("fresh")
    labels.mounts.get("fresh").stage([("f", b"1")])
    assert labels.commit("fresh")["files_added"] == 1
    assert labels.source.files("fresh") == {"f": b"1"}


def test_open_commit_of_another_client(labels: World) -> None:
    labels.source.start("default", "labels", "master", "theirs")
    stage(labels, b="b")
    with pytest.raises(errors.Conflict, match="still open"):
        labels.commit("labels")


def _no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, data: object, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)


def test_full_disk_under_a_large_file_is_told_and_leaves_the_mount_alone(
    labels: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = labels.mounts.get("labels")
    handle = mount.create("big")
    with monkeypatch.context() as full:
        _no_space(full)
        with pytest.raises(errors.NoSpace):
            handle.write(0, bytes(300_000))
    handle.write(0, b"x" * 300_000)
    handle.close()
    assert mount.stat("big").size == 300_000
    labels.commit("labels")
    assert labels.source.files("labels")["big"] == b"x" * 300_000


def test_full_disk_when_a_file_is_closed_leaves_no_phantom(labels: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = labels.mounts.get("labels")
    mount.unlink("a.json")
    handle = mount.create("a.json")
    handle.write(0, b"new")

    def refuse(*_: object) -> None:
        raise errors.NoSpace("the disk is full")

    with monkeypatch.context() as full:
        full.setattr(mount.journal, "put", refuse)
        with pytest.raises(errors.NoSpace):
            handle.close()
    assert mount.lookup("a.json") is None, "it was deleted before, and is again"
    stage(labels, b="b")
    labels.commit("labels")
    assert labels.source.files("labels") == {"b": b"b"}


def test_full_disk_while_staging_stages_nothing(labels: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = labels.mounts.get("labels")

    def refuse(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", refuse)
        with pytest.raises(errors.NoSpace):
            mount.stage([("small", b"1"), ("large", bytes(300_000))])
    assert mount.dirty() == (0, 0, 0)
    assert mount.stage([("large", bytes(300_000))]) == (1, 0)


def test_staged_content_files_are_synced_before_the_answer(labels: World, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fdatasync

    def note(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", note)
    mount = labels.mounts.get("labels")
    mount.stage([("large", bytes(300_000))])
    assert any(path.endswith(mount.staged["large"].blob) for path in synced)
    assert any(path.endswith(".log") for path in synced)


def test_full_disk_under_the_read_cache_fails_one_read_only(
    quiet_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(700_000)
    quiet_world.source.make_repo("images", {"f": content})
    quiet_world.mount("images", mode="ro")
    handle = quiet_world.mounts.get("images").open("f")
    with monkeypatch.context() as full:
        _no_space(full)
        with pytest.raises(errors.NoSpace):
            handle.read(0, 1000)
    assert handle.read(0, 700_000) == content
    handle.close()


def test_much_that_is_staged_does_not_stay_in_memory(labels: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mount_server.overlay.INLINE_BUDGET", 300_000)
    synced: list[Path] = []
    monkeypatch.setattr("mount_server.journal.sync_disk_of", synced.append)
    mount = labels.mounts.get("labels")
    expected = {f"f{i:02}": os.urandom(100_000) for i in range(60)} | {"a.json": b"a"}
    for path, content in list(expected.items())[:30]:
        handle = mount.create(path)
        handle.write(0, content[:50_000])
        handle.write(50_000, content[50_000:])
        handle.close()
    mount.stage(list(expected.items())[30:60])
    held = sum(len(staged.data or b"") for staged in mount.staged.values())
    assert held == mount._in_memory < 500_000
    labels.mounts.journal.sync()
    labels.restart()
    labels.commit("labels")
    assert labels.source.files("labels") == expected
    assert labels.mounts.get("labels")._in_memory == 0 and not list(labels.mounts.journal.blobs.iterdir())


def test_a_deleted_branch_leaves_the_mount_as_it_was(labels: World) -> None:
    stage(labels, b="b")
    del labels.source.heads["default", "labels", "master"]
    with pytest.raises(errors.NotFound, match="was deleted"):
        labels.commit("labels")
    mount = labels.mounts.get("labels")
    assert mount.names("") == ["a.json", "b"] and mount.dirty().files == 1
    end = time.monotonic() + 120
    while "was deleted" not in mount.last_error:
        assert time.monotonic() < end, mount.last_error
        time.sleep(0.05)
    assert mount.names("") == ["a.json", "b"], "following the branch changes nothing either"
