"""A worker's folder between datums: nothing of one datum is seen by the next, whatever the code did."""

import mmap
import os
from pathlib import Path

import pytest

from pachd.pps import staging
from pachd.pps.layout import Layout, prepare
from pachd.pps.sandbox import Failed
from pachd.pps.spare import Spare


@pytest.fixture
def pfs(tmp_path: Path) -> Path:
    (tmp_path / "pfs").mkdir()
    return tmp_path / "pfs"


def tree(pfs: Path) -> dict[str, bytes]:
    return {str(p.relative_to(pfs)): p.read_bytes() for p in sorted(pfs.rglob("*")) if p.is_file()}


def test_files_are_used_again_and_hold_only_what_is_written(pfs: Path) -> None:
    spare = Spare(pfs.parent / "spare")
    prepare(str(pfs), {"in", "out"}, spare)
    spare.make_directory(f"{pfs}/in/d")
    spare.write(f"{pfs}/in/d/long", (b"x" * 1000, b"y"))
    inode = os.stat(pfs / "in/d/long").st_ino
    (pfs / "out/more").mkdir()
    (pfs / "out/more/file").write_bytes(b"output")
    os.symlink("/etc/passwd", pfs / "out/link")
    os.mkfifo(pfs / "out/pipe")
    prepare(str(pfs), {"in", "out"}, spare)
    assert sorted(os.listdir(pfs)) == ["in", "out"] and tree(pfs) == {}
    assert not os.listdir(pfs / "in") and not os.listdir(pfs / "out")
    spare.write(f"{pfs}/in/a", (b"1",))
    spare.write(f"{pfs}/in/b", ())
    spare.write(f"{pfs}/in/c", (b"3" * 100_000,))
    spare.make_directory(f"{pfs}/in/e")
    assert tree(pfs) == {"in/a": b"1", "in/b": b"", "in/c": b"3" * 100_000}
    assert os.listdir(pfs / "in/e") == []
    assert inode in {os.stat(pfs / "in" / name).st_ino for name in "ab"}


@pytest.mark.parametrize("how", ["open", "mapped", "linked", "mode", "large"])
def test_a_file_that_the_code_holds_on_to_is_not_used_again(pfs: Path, how: str) -> None:
    spare = Spare(pfs.parent / "spare")
    prepare(str(pfs), {"in", "out"}, spare)
    first = pfs / "in/first"
    spare.write(str(first), (b"before" * (20_000 if how == "large" else 1),))
    held = open(first, "rb")
    if how == "mapped":
        mapped = mmap.mmap(held.fileno(), 0, access=mmap.ACCESS_READ)
        held.close()
    elif how == "linked":
        held.close()
        os.link(first, pfs.parent / "other")
    elif how in ("mode", "large"):
        held.close()
        if how == "mode":
            first.chmod(0o4755)
    prepare(str(pfs), {"in", "out"}, spare)
    spare.write(f"{pfs}/in/second", (b"after!",))
    assert tree(pfs) == {"in/second": b"after!"}
    assert os.stat(pfs / "in/second").st_mode & 0o7111 == 0
    if how == "open":
        assert held.read() == b"before"
        held.close()
    elif how == "mapped":
        assert mapped[:] == b"before"
        mapped.close()
    elif how == "linked":
        assert (pfs.parent / "other").read_bytes() == b"before"


def test_rights_that_the_code_took_away(pfs: Path) -> None:
    layout = Layout(pfs)
    out = Path(layout.open("d1", set())) / "out"
    (out / "closed/inner").mkdir(parents=True)
    (out / "closed/inner/file").write_bytes(b"kept")
    (out / "closed/inner/file").chmod(0)
    (out / "closed/inner").chmod(0)
    (out / "closed").chmod(0o555)
    (pfs / ".scratch").chmod(0)
    found = staging.collect(layout, pfs.parent)
    assert [output.path for output in found] == ["/closed/inner/file"]
    (pfs / ".scratch").chmod(0)
    assert layout.open("d2", set()) == str(out.parent)
    assert os.listdir(out) == []
    assert sorted(os.listdir(pfs)) == [".env", ".scratch", "out"]


def test_what_lies_in_pfs_are_links_into_the_scratch_folder(pfs: Path) -> None:
    layout = Layout(pfs)
    folder = layout.open("d1", {"a", "b"})
    below = folder.removeprefix(str(pfs))
    assert (
        below.startswith("/.scratch/")
        and below.endswith("/d1/pfs/d1")
        and len(below) == len("/.scratch//d1/pfs/d1") + 32
    )
    links = {name: f"/pfs{below}/{name}" for name in (".env", "a", "b", "out")}
    assert {name: os.readlink(pfs / name) for name in os.listdir(pfs) if name != ".scratch"} == links
    assert sorted(os.listdir(folder)) == ["a", "b", "out"]
    inode = os.lstat(pfs / "a").st_ino
    os.unlink(pfs / "b")
    (pfs / "b").mkdir()
    (pfs / "b/x").touch()
    (pfs / "stray").touch()
    os.symlink("/etc", pfs / "etc")
    (pfs / ".scratch/stray").mkdir()
    layout.open("d2", {"a", "b", "c"}, out=False)
    assert sorted(os.listdir(pfs)) == [".env", ".scratch", "a", "b", "c"]
    assert os.listdir(pfs / ".scratch") == [below.split("/")[2]]
    assert os.readlink(pfs / "b") == links["b"] and os.lstat(pfs / "a").st_ino == inode
    assert sorted(os.listdir(folder)) == ["a", "b", "c", "out"]


@pytest.mark.parametrize("part", [".scratch", "set", "datum", "out"])
def test_the_output_is_not_looked_for_behind_links_of_the_code(pfs: Path, part: str) -> None:
    layout = Layout(pfs)
    folder = Path(layout.open("d1", set()))
    moved = {".scratch": pfs / ".scratch", "set": folder.parents[2], "datum": folder, "out": folder / "out"}[part]
    elsewhere = pfs.parent / "elsewhere"
    os.rename(moved, elsewhere)
    with pytest.raises(Failed, match="is no directory any more"):
        staging.collect(layout, pfs.parent)
    os.symlink(elsewhere, moved)
    with pytest.raises(Failed, match="is no directory any more"):
        staging.collect(layout, pfs.parent)
    assert layout.open("d2", set()) == str(folder)
    assert staging.collect(layout, pfs.parent) == [] and elsewhere.exists()


def test_links_in_the_output_lead_where_the_code_saw_them_lead(pfs: Path) -> None:
    layout = Layout(pfs)
    folder = Path(layout.open("d1", {"in"}))
    (folder / "in/d").mkdir()
    (folder / "in/d/f").write_bytes(b"input")
    tmp = pfs.parent / "tmp"
    tmp.mkdir()
    (tmp / "t").write_bytes(b"tmp")
    seen = str(folder).removeprefix(str(pfs))
    targets = {
        "absolute": "/pfs/in/d/f",
        "relative": "../in/d/f",
        "real": f"/pfs{seen}/in/d/f",
        "folder": "/pfs/in/d",
        "tmp": "/tmp/t",
        "far": "../../../../../../../tmp/t",
    }
    for name, target in targets.items():
        os.symlink(target, folder / "out" / name)
    found = {output.path: Path(output.source).read_bytes() for output in staging.collect(layout, tmp)}
    assert found == {
        **{f"/{name}": b"input" for name in ("absolute", "relative", "real", "folder/f")},
        **{f"/{name}": b"tmp" for name in ("tmp", "far")},
    }
