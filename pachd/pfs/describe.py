"""What is in a store, in numbers."""

import os
from typing import Any

from pachd.proto import pfs_pb2
from pachd.store import Snapshot, contents
from pachd.store.pages import Pages
from pachd.store.store import FORMAT_VERSION
from pachd.store.tree import Tree


def describe(txn: Snapshot) -> dict[str, Any]:
    """The format of a store, counts of its objects, and bytes.

    `repos` is a list of {name, branches, commits, files, bytes}, the last two of the newest finished commit; `files`
    and `bytes` are their sums. `database_bytes`, `database_free_bytes` and `pack_disk_bytes` are on the disk.
    """
    db = txn.db

    def one(sql: str, *values: object) -> int:
        found: int = db.execute(sql, values).fetchone()[0]
        return found

    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    repos = [_repo(txn, row) for row in db.execute("SELECT pk, project, name, type FROM repos ORDER BY pk").fetchall()]
    packs = contents.shared(txn.store).packs
    in_packs = db.execute("SELECT id, size FROM container WHERE data IS NULL").fetchall()
    page_bytes = one("PRAGMA page_size")
    return {
        "path": txn.store.path,
        "format": FORMAT_VERSION,
        "projects": one("SELECT count(*) FROM projects"),
        "branches": one("SELECT count(*) FROM branches"),
        "commits": one("SELECT count(*) FROM commits"),
        "open_commits": one("SELECT count(*) FROM commits WHERE state<>?", pfs_pb2.FINISHED),
        "pipelines": one("SELECT count(*) FROM pps_pipelines") if "pps_pipelines" in tables else 0,
        "jobs": one("SELECT count(*) FROM pps_jobs") if "pps_jobs" in tables else 0,
        "files": sum(repo["files"] for repo in repos),
        "bytes": sum(repo["bytes"] for repo in repos),
        "file_sets": one("SELECT count(*) FROM file_set"),
        "pages": one("SELECT count(*) FROM page"),
        "small_contents": one("SELECT count(*) FROM container WHERE data IS NOT NULL"),
        "small_contents_bytes": one("SELECT coalesce(sum(length(data)), 0) FROM container"),
        "database_bytes": os.stat(os.path.join(txn.store.path, "pachd.db")).st_size,
        "database_free_bytes": one("PRAGMA freelist_count") * page_bytes,
        "packs": len(in_packs),
        "pack_bytes": sum(row["size"] for row in in_packs),
        "packs_on_object_storage": sum(packs.remote(row["id"]) for row in in_packs),
        "pack_disk_bytes": sum(packs.used(row["id"]) for row in in_packs),
        "repos": repos,
    }


def _repo(txn: Snapshot, row: Any) -> dict[str, Any]:
    newest = txn.db.execute(
        "SELECT root FROM commits WHERE repo_pk=? AND state=? ORDER BY pk DESC LIMIT 1", (row["pk"], pfs_pb2.FINISHED)
    ).fetchone()
    total = Tree(Pages(txn), newest["root"] if newest else None).total()
    count = "SELECT count(*) FROM {} WHERE repo_pk=?"
    return {
        "name": f"{row['project']}/{row['name']}" + ("" if row["type"] == "user" else f".{row['type']}"),
        "branches": txn.db.execute(count.format("branches"), (row["pk"],)).fetchone()[0],
        "commits": txn.db.execute(count.format("commits"), (row["pk"],)).fetchone()[0],
        "files": total.files,
        "bytes": total.size,
    }
