"""Every kind of damage to the graph is found and told in a sentence that names the object."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from pachd import upkeep
from pachd.pfs import branches, commits, projects, refs, repos, writing
from pachd.pfs.modify import Modification, modify_file
from pachd.proto import pfs_pb2, pps_pb2
from pachd.store import Store
from pachd.types import Branch, Repo

IMAGES, OUT = Repo("default", "images", "user"), Repo("default", "out", "user")
HEX = "0123456789ab4123456789abcdef0123"


def put(store: Store, repo: Repo, path: str, data: bytes) -> None:
    with Modification(store) as modification:
        modification.append(path, data)
        with writing(store) as txn:
            commit = pfs_pb2.Commit(repo=refs.repo_pb(repo), branch=refs.branch_pb(Branch(repo, "master")))
            modify_file(txn, commit, modification)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Two repos, the second made from the first; finished and open commits; a pipeline and a job."""
    folder = tmp_path / "data"
    with upkeep.open_folder(folder) as store:
        with writing(store) as txn:
            projects.ensure_default(txn)
            repos.create_repo(txn, IMAGES)
            repos.create_repo(txn, OUT)
            repos.create_repo(txn, Repo("default", "out", "spec"))
            branches.create_branch(txn, Branch(IMAGES, "master"))
            branches.create_branch(txn, Branch(OUT, "master"), provenance=[Branch(IMAGES, "master")])
            branches.create_branch(txn, Branch(Repo("default", "out", "spec"), "master"))
        for n in range(3):
            put(store, IMAGES, f"/{n}", b"%d" % n)
        with writing(store) as txn:
            head = refs.resolve_commit(txn, (OUT, "master"))
            spec = refs.resolve_commit(txn, (Repo("default", "out", "spec"), "master"))
            txn.db.execute(
                "INSERT INTO pps_pipelines (pk, project, name, version, state, created) "
                "VALUES (1, 'default', 'out', 1, ?, 1)",
                (pps_pb2.PIPELINE_RUNNING,),
            )
            txn.db.execute("INSERT INTO pps_versions VALUES (1, 1, ?, 1, ?)", (spec.id, b""))
            txn.db.execute(
                "INSERT INTO pps_jobs (pipeline, id, version, state, created) VALUES (1,?,1,?,1)",
                (head.id, pps_pb2.JOB_RUNNING),
            )
            commits.start_commit(txn, Branch(IMAGES, "master"))
        put(store, IMAGES, "/open", b"open")
    yield folder


def problems(folder: Path) -> list[str]:
    with upkeep.open_folder(folder, create=False) as store:
        return list(upkeep.problems(store, True))


FINISHED = "(SELECT max(c.pk) FROM commits c JOIN repos r ON r.pk=c.repo_pk WHERE r.name='images' AND c.state=4)"
PARENT = f"(SELECT parent_pk FROM commits WHERE pk={FINISHED})"
OUT_HEAD = "(SELECT b.head_pk FROM branches b JOIN repos r ON r.pk=b.repo_pk WHERE r.name='out' AND r.type='user')"


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE commits SET repo_pk=99 WHERE pk=2", "table commits refers to a row of table repos"),
        (
            f"UPDATE branches SET head_pk=777 WHERE head_pk={OUT_HEAD}",
            "table branches refers to a row of table commits",
        ),
        (f"UPDATE branches SET head_pk={OUT_HEAD} WHERE head_pk<{OUT_HEAD}", "is a commit of another repo"),
        ("UPDATE repos SET name='no/good' WHERE name='images'", "'no/good' is not a legal name"),
        ("UPDATE repos SET metadata='{' WHERE name='images'", "the metadata of 'images' is damaged"),
        (f"UPDATE commits SET id='not-an-id' WHERE pk={FINISHED}", "its ID is not an ID"),
        (f"UPDATE commits SET state=9 WHERE pk={FINISHED}", "9 is not a state"),
        (f"UPDATE commits SET finished=NULL WHERE pk={FINISHED}", "finished without a time"),
        (f"UPDATE commits SET state=1 WHERE pk={FINISHED}", "is not finished but has"),
        (f"UPDATE commits SET metadata='[]' WHERE pk={FINISHED}", "its metadata is damaged"),
        (f"UPDATE commits SET size=size+1 WHERE pk={FINISHED}", "its files have 3 bytes, it says 4"),
        (f"UPDATE commits SET root=NULL WHERE pk={FINISHED}", "its files have 0 bytes, it says 3"),
        (f"UPDATE commits SET parent_pk={OUT_HEAD} WHERE pk={FINISHED}", "is in another repo"),
        (f"UPDATE commits SET parent_pk=pk WHERE pk={FINISHED}", "is not older than itself"),
        (f"UPDATE commits SET state=1,finished=NULL,root=NULL WHERE pk={PARENT}", "is not finished, though it is"),
        (f"UPDATE change SET commit_pk={FINISHED}", "has changes that are not in its files"),
        ("UPDATE change SET ops=x'c1'", "its list of changes is damaged"),
        ("UPDATE branches SET trigger=x'ff'", "its trigger is damaged"),
        (
            "INSERT INTO branch_provenance SELECT source_pk, branch_pk, 0, 0 FROM branch_provenance",
            "branch default/images@master: is in its own provenance",
        ),
        ("UPDATE branch_provenance SET source_pk=branch_pk", "in its provenance is of the same repo"),
        (
            "UPDATE commit_provenance SET commit_pk=source_pk, source_pk=commit_pk WHERE source_pk="
            "(SELECT max(source_pk) FROM commit_provenance)",
            "in its provenance is not older than itself",
        ),
        (f"INSERT INTO transactions VALUES ('{HEX}', x'ff')", "its list of requests is damaged"),
        ("UPDATE pps_pipelines SET version=2", "pipeline default/out: its version 2 is missing"),
        ("UPDATE pps_pipelines SET state=99", "pipeline default/out: 99 is not a state"),
        ("UPDATE pps_pipelines SET name='other'", "pipeline default/other: its output repo is missing"),
        ("UPDATE pps_versions SET info=x'ff'", "its spec of version 1 is damaged"),
        ("UPDATE pps_versions SET spec_commit='nowhere'", "the commit nowhere of its spec is missing"),
        ("UPDATE pps_jobs SET state=77", "77 is not a state"),
        ("UPDATE pps_jobs SET version=5", "version 5 of its pipeline is missing"),
        ("UPDATE pps_jobs SET finished=1", "has not ended but has a time at which it ended"),
        (f"UPDATE pps_jobs SET state={pps_pb2.JOB_SUCCESS}, finished=1", "its output commit is still open"),
        ("DELETE FROM page", "is missing"),
        ("UPDATE container SET data=CAST(replace(data, '2', 'X') AS BLOB)", "its bytes have another hash"),
    ],
)
def test_rows(folder: Path, damage: str, found: str) -> None:
    assert problems(folder) == []
    with sqlite3.connect(folder / "pachd.db") as db:
        cursor = db.execute(damage)
        assert cursor.rowcount > 0
    db.close()
    told = problems(folder)
    assert any(found in problem for problem in told), told
    assert all(problem.isprintable() and "Traceback" not in problem for problem in told)


def files(db: sqlite3.Connection) -> list[object]:
    return [db.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in ("page", "container")]


def test_bytes_of_the_database(folder: Path) -> None:
    """Bytes flipped anywhere: never a crash, and never unnoticed in the trees and contents of files."""
    database = folder / "pachd.db"
    with sqlite3.connect(database) as db:
        db.execute("PRAGMA journal_mode=DELETE")
        before = files(db)
    db.close()
    sound = database.read_bytes()
    found = 0
    for at in range(4096 - 24, len(sound), 4096):  # the ends of pages are what is used first
        damaged = bytearray(sound)
        damaged[at : at + 16] = bytes(b ^ 0xFF for b in damaged[at : at + 16])
        database.write_bytes(damaged)
        try:
            told = problems(folder)
        except Exception as error:
            told = [str(error)]
            assert type(error).__name__ == "StoreError", error
        if told:
            found += 1
        else:
            with sqlite3.connect(database) as db:
                assert files(db) == before, f"damage at byte {at} was not found"
            db.close()
        for leftover in ("pachd.db-wal", "pachd.db-shm"):
            (folder / leftover).unlink(missing_ok=True)
    assert found > 10
