"""What the journal's index keeps in its tables: what is staged, mounts, commits that were begun, answers to repeat."""

from typing import NamedTuple

FORMAT = 2

SCHEMA = """
CREATE TABLE IF NOT EXISTS mounts (name TEXT PRIMARY KEY, project TEXT NOT NULL, repo TEXT NOT NULL,
  branch TEXT NOT NULL,
  commit_id TEXT NOT NULL, path TEXT NOT NULL, mode TEXT NOT NULL, head TEXT NOT NULL, head_time INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS staged (mount TEXT NOT NULL, path TEXT NOT NULL, kind TEXT NOT NULL, seq INTEGER NOT NULL,
  size INTEGER NOT NULL, mtime INTEGER NOT NULL, data BLOB, blob TEXT NOT NULL,
  project TEXT NOT NULL, repo TEXT NOT NULL,
  commit_id TEXT NOT NULL, source_path TEXT NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (mount, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intents (mount TEXT PRIMARY KEY, idempotency_key TEXT NOT NULL, seq INTEGER NOT NULL,
  started INTEGER NOT NULL, parent TEXT NOT NULL, description TEXT NOT NULL, metadata TEXT NOT NULL,
  commit_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS results (idempotency_key TEXT PRIMARY KEY, mount TEXT NOT NULL,
  body TEXT NOT NULL, time INTEGER NOT NULL);
"""


class Intent(NamedTuple):
    """A commit that was begun: everything staged up to `seq` is in it or will be. `commit` is "" until it is known."""

    idempotency_key: str
    seq: int
    started: int
    parent: str
    description: str
    metadata: str
    commit: str


class MountRow(NamedTuple):
    """A mount as it is restored at the next start; `head` is the commit that was last seen, or ""."""

    name: str
    project: str
    repo: str
    branch: str
    commit: str
    path: str
    mode: str
    head: str
    head_time: int
