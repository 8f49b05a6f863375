"""A worker's folder between datums: nothing of one datum is seen by the next, whatever the code did."""

import mmap
import os
from pathlib import Path

import pytest

from pachd.pps import staging
from pachd.pps.spare import Spare


@pytest.fixture
def pfs(tmp_path: Path) -> Path:
    (tmp_path / "pfs").mkdir()
    return tmp_path / "pfs"


def tree(pfs: Path) -> dict[str, bytes]:
    return {str(p.relative_to(pfs)): p.read_bytes() for p in sorted(pfs.rglob("*")) if p.is_file()}


def test_files_are_used_again_and_hold_only_what_is_written(pfs: Path) -> None:
    spare = Spare(pfs.parent / "spare")
    staging.prepare(str(pfs), {"in", "out"}, spare)
    spare.make_directory(f"{pfs}/in/d")
    spare.write(f"{pfs}/in/d/long", (b"x" * 1000, b"y"))
    inode = os.stat(pfs / "in/d/long").st_ino
    (pfs / "out/more").mkdir()
    (pfs / "out/more/file").write_bytes(b"output")
    os.symlink("/etc/passwd", pfs / "out/link")
    os.mkfifo(pfs / "out/pipe")
    staging.prepare(str(pfs), {"in", "out"}, spare)
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
    staging.prepare(str(pfs), {"in", "out"}, spare)
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
    staging.prepare(str(pfs), {"in", "out"}, spare)
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
    spare = Spare(pfs.parent / "spare")
    staging.prepare(str(pfs), {"out"}, spare)
    (pfs / "out/closed/inner").mkdir(parents=True)
    (pfs / "out/closed/inner/file").write_bytes(b"kept")
    (pfs / "out/closed/inner/file").chmod(0)
    (pfs / "out/closed/inner").chmod(0)
    (pfs / "out/closed").chmod(0o555)
    found = staging.collect(pfs, pfs.parent)
    assert [output.path for output in found] == ["/closed/inner/file"]
    staging.prepare(str(pfs), {"out"}, spare)
    assert os.listdir(pfs / "out") == []
    if os.geteuid() == 0:
        return  # root needs no rights: the rest would show nothing
    assert os.listdir(pfs) == ["out"]
