"""An error, a kill, or a kill in the middle of a write at every file operation of a commit, a squash and a collection:
reopened, fsck finds nothing, and the head is the old one or the new one.

The operations are those of the whole process, SQLite's included: a small library counts them.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pachd import upkeep
from pachd.pfs import projects, repos, writing
from pachd.pfs.modify import Modification, modify_file
from pachd.store import Store, contents
from pachd.types import Repo
from tests.faults import operations
from tests.processes import ROOT


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def filled(folder: Path, drop: bool) -> None:
    """Three commits, the second with a pack; with `drop` it is gone from history, as is a whole repo, and all that
    waits to be collected."""
    with upkeep.open_folder(folder) as store:
        with writing(store) as txn:
            projects.ensure_default(txn)
            repos.create_repo(txn, operations.REPO)
        operations.put(store, ("/a", b"1"), *((f"/many/{n}", b"%d" % n) for n in range(60)))
        operations.put(store, ("/big", operations.BIG), ("/gone", operations.BIG[1:]))
        with_big(store)
        if drop:
            operations.squash(store)
            other = Repo("default", "other", "user")
            with writing(store) as txn:
                repos.create_repo(txn, other)
            with Modification(store) as modification:
                modification.append("/big", operations.BIG[2:])
                with writing(store) as txn:
                    modify_file(txn, operations.master(other), modification)
            with writing(store) as txn:
                repos.delete_repo(txn, other, force=True)


def with_big(store: Store) -> None:
    """The third commit keeps half of the pack of the second."""
    with Modification(store) as modification:
        modification.delete("/gone")
        modification.delete("/many/")
        modification.append("/a", b"3")
        with writing(store) as txn:
            modify_file(txn, operations.master(), modification)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["kill", "torn", "eio", "enospc"])
@pytest.mark.parametrize("what", ["commit", "squash", "gc"])
def test_every_operation(shim: Path, tmp_path: Path, what: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MEMORY_LIMIT", operations.IN_MEMORY)
    template = tmp_path / "template"
    filled(template, drop=what == "gc")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.operations", what, mode, str(template), str(tmp_path), "1", "1"],
        capture_output=True,
        text=True,
        timeout=380,
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(shim), "PYTHONHASHSEED": "0"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout)
    before, results = found["before"], found["results"]
    *failed, last = results
    assert last["said"] == "done" and not last["hit"] and len(failed) >= 3, len(failed)
    new = last["reopened"]
    assert (new == before) == (what == "gc")
    for n, result in enumerate(results, 1):
        where = f"operation {n} of {len(failed)}: {result.get('said')}"
        assert "broken" not in result, f"{where}: {result}"
        assert result["fsck"] == result["finally"] == [] and result.get("problems", []) == [], f"{where}: {result}"
        assert result["reopened"] in (before, new), f"{where}: half of it is there"
        assert result["strays"] == 0, where
        if result["said"] == "done":
            assert result["reopened"] == new, f"{where}: acknowledged, but lost"
        if "state" in result:  # what the process itself saw after the error is what the next one sees
            assert result["state"] in (before, new), where
    print(f"{what}: {len(failed)} operations")
    outcomes = {result["reopened"] == new for result in results}
    assert outcomes == ({True} if what == "gc" else {True, False})
    if mode in ("eio", "enospc"):
        assert any(result["said"] != "done" for result in failed)
