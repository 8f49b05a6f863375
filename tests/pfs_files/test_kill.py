"""A process that is killed while it writes: what it had acknowledged is there, and nothing is half there."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pachd.pfs import collect
from pachd.pfs.files_schema import FILES_SCHEMA
from pachd.store import Store
from tests.pfs_files.bare import BARE_COMMITS, Repo

WRITER = """
import sys
from pachd.pfs.files_schema import FILES_SCHEMA
from pachd.store import Store
from tests.pfs_files.bare import BARE_COMMITS, Repo, delete, put
with Store.open(sys.argv[1], [FILES_SCHEMA, BARE_COMMITS]) as store:
    repo = Repo(store)
    for n in range(10_000):
        big = [put("/big", b"%d" % n * 3_000_000)] if n % 4 == 0 else []
        repo.commit(delete("/"), *big, *(put(f"/d/f{i}", b"%d" % n) for i in range(200)))
        print(repo.head, n, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_killed(tmp_path: Path, seed: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline()]
        time.sleep(random.Random(seed).uniform(0.05, 0.4))
        writer.kill()
        acknowledged += writer.stdout.read().splitlines()
    last, n = map(int, next(line for line in reversed(acknowledged) if len(line.split()) == 2).split())
    with Store.open(tmp_path, [FILES_SCHEMA, BARE_COMMITS]) as store:
        with store.read() as txn:
            assert list(collect.check(txn, rehash=True)) == []
            packs = txn.db.execute("SELECT count(*) FROM container WHERE data IS NULL").fetchone()[0]
        assert len(list((tmp_path / "packs").iterdir())) == packs
        repo = Repo(store)
        found = repo.contents(last)
        assert found == {f"/d/f{i}": b"%d" % n for i in range(200)} | (
            {"/big": b"%d" % n * 3_000_000} if n % 4 == 0 else {}
        )
        collect.garbage(store)
        assert repo.contents(last) == found
