"""Run by test_operations.py with shim.c preloaded: does one thing to a data folder with the Nth operation failing, for
every N, and prints what it found as JSON.

    python operations.py WHAT MODE TEMPLATE WORK FIRST STEP
"""

import ctypes
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from pachd import upkeep
from pachd.pfs import collect, commitsets, refs, writing
from pachd.pfs.modify import Modification, modify_file
from pachd.pfs.read import View
from pachd.proto import pfs_pb2
from pachd.store import Store, contents
from pachd.types import Branch, Repo

REPO = Repo("default", "data", "user")
MODES = {"kill": 1, "torn": 2, "eio": 3, "enospc": 4}
IN_MEMORY = 100_000  # bytes that a stream keeps in memory here; what comes after is a pack
BIG = bytes(range(256)) * 800


def master(repo: Repo = REPO) -> pfs_pb2.Commit:
    return pfs_pb2.Commit(repo=refs.repo_pb(repo), branch=refs.branch_pb(Branch(repo, "master")))


def put(store: Store, *files: tuple[str, bytes]) -> None:
    with Modification(store) as modification:
        for path, data in files:
            modification.delete(path)
            modification.append(path, data)
        modification.seal()
        with writing(store) as txn:
            modify_file(txn, master(), modification)


def commit(store: Store) -> None:
    put(store, ("/a", b"new"), ("/big", BIG[::-1]), *((f"/many/{n}", b"new%d" % n) for n in range(40)))


def squash(store: Store) -> None:
    """Takes the second of three commits out of history."""
    with writing(store) as txn:
        second = refs.resolve_commit(txn, (REPO, "master^"))
        commitsets.squash_commit_set(txn, second.id)


def gc(store: Store) -> None:
    collect.garbage(store)


def state(store: Store) -> list[dict[str, str]]:
    """The files of every commit from the head back."""
    out = []
    with store.read() as snapshot:
        row = refs.resolve_commit(snapshot, (REPO, "master"))
        while True:
            view = View.of(snapshot, row)
            files = {e.path: b"".join(view.read(e)) for e in view.walk("/") if not e.is_dir}
            out.append({path: f"{len(data)} {hash(data)}" for path, data in files.items()})
            if row.parent_pk is None:
                return out
            row = refs.commit_row(snapshot, row.parent_pk)


def main() -> None:
    what, mode, template, work, first, step = sys.argv[1:]
    act = {"commit": commit, "squash": squash, "gc": gc}[what]
    contents.MEMORY_LIMIT = IN_MEMORY
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    with upkeep.open_folder(Path(template)) as store:
        before = state(store)
    results = []
    n = int(first)
    while True:
        folder = Path(work) / f"{what}-{mode}-{n}"
        shutil.copytree(template, folder)
        inner, outer = os.pipe()
        pid = os.fork()
        if pid == 0:
            said = "done"
            try:
                with upkeep.open_folder(folder) as store:
                    state(store)
                    shim.fault_arm(n, MODES[mode])
                    try:
                        act(store)
                    except Exception as error:
                        said = f"{type(error).__name__}: {error}"
                    hit = shim.fault_count() >= n
                    shim.fault_disarm()
                    # the process goes on after an error: it must still work
                    after = state(store)
                    problems = list(upkeep.problems(store, True))
                os.write(outer, json.dumps({"said": said, "hit": hit, "state": after, "problems": problems}).encode())
            except BaseException as error:
                os.write(outer, json.dumps({"broken": f"{type(error).__name__}: {error}"}).encode())
            os._exit(0)
        os.close(outer)
        with os.fdopen(inner, "rb") as pipe:
            text = pipe.read()
        _pid, status = os.waitpid(pid, 0)
        found = json.loads(text) if text else {"said": "killed", "hit": True}
        assert text or os.WTERMSIG(status) == signal.SIGKILL, status
        with upkeep.open_folder(folder, create=False) as store:
            found["reopened"] = state(store)
            found["fsck"] = list(upkeep.problems(store, True))
            act(store)  # what failed can be done again (a squash that was done says so)
            found["finally"] = list(upkeep.problems(store, True))
            with store.read() as snapshot:
                named = {r[0] for r in snapshot.db.execute("SELECT id FROM container WHERE data IS NULL")}
            found["strays"] = len({p.name for p in (folder / "packs").iterdir()} - {f"{pack:x}.pack" for pack in named})
        shutil.rmtree(folder)
        results.append(found)
        if not found.get("hit", True):
            break
        n += int(step)
    print(json.dumps({"before": before, "results": results}))


if __name__ == "__main__":
    main()
