"""A server that cannot start: one sentence says why, exit code 1, and what others have mounted stays."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import World
from tests.processes import ROOT, free_port


def start(mount_dir: Path, state_dir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Start a mount server on a pachd that is not there; it is expected to end by itself."""
    command = [sys.executable, "-m", "mount_server", "--mount-dir", str(mount_dir), "--state-dir", str(state_dir)]
    command += ["--port", str(free_port()), "--pachd-address", f"127.0.0.1:{free_port()}", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


def test_the_directory_of_another_server_stays_mounted(world: World, tmp_path: Path) -> None:
    done = start(world.dir, tmp_path / "second")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: something is mounted on {world.dir} already: stop it, or choose another")
    world.source.make_repo("labels", {"a.json": b"{}"})
    assert (world.mount("labels") / "a.json").read_bytes() == b"{}"  # the first still serves it


def files_in_it(folder: Path) -> tuple[Path, Path, list[str], str]:
    (folder / "pfs").mkdir()
    (folder / "pfs" / "mine.txt").write_text("mine")
    return folder / "pfs", folder / "state", [], "is not empty: choose another, or move its files away"


def a_file(folder: Path) -> tuple[Path, Path, list[str], str]:
    (folder / "file").write_text("")
    return folder / "file" / "pfs", folder / "state", [], "Not a directory"


def no_folder_for_the_state(folder: Path) -> tuple[Path, Path, list[str], str]:
    (folder / "file").write_text("")
    return folder / "pfs", folder / "file" / "state", [], "Not a directory"


def an_empty_token(folder: Path) -> tuple[Path, Path, list[str], str]:
    (folder / "token").write_text("\n")
    return folder / "pfs", folder / "state", ["--token-file", str(folder / "token")], "is empty: write a token into it"


def no_journal(folder: Path) -> tuple[Path, Path, list[str], str]:
    (folder / "state" / "journal.db").mkdir(parents=True)
    return folder / "pfs", folder / "state", [], "unable to open database file"


def no_mount(folder: Path) -> tuple[Path, Path, list[str], str]:
    return folder / "pfs", folder / "state", ["-r", "@"], "write [project/]repo[@branch][=commit][:path][+w]"


@pytest.mark.parametrize("case", [files_in_it, a_file, no_folder_for_the_state, an_empty_token, no_journal, no_mount])
def test_one_sentence(tmp_path: Path, case: Callable[[Path], tuple[Path, Path, list[str], str]]) -> None:
    mount_dir, state_dir, more, reason = case(tmp_path)
    done = start(mount_dir, state_dir, *more)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("Error: ") and done.stderr.rstrip().endswith(reason)
    assert len(done.stderr.splitlines()) == 1
