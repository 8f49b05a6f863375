"""The tables of file contents, trees, open changes and temporary file sets."""

from pachd.store.contents import CONTENT_SCHEMA
from pachd.store.pages import PAGE_SCHEMA

FILES_SCHEMA = (
    PAGE_SCHEMA
    + CONTENT_SCHEMA
    + """
-- What streams wrote into commits that are not finished, in order; rows go when the commit finishes or is cleared.
-- Numbers are never used twice: a reader remembers up to which one it has applied them.
CREATE TABLE IF NOT EXISTS change (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    commit_pk INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    ops BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS change_commit ON change (commit_pk, pk);

-- File sets: changes that belong to no commit yet, kept until they expire.
CREATE TABLE IF NOT EXISTS file_set (
    id TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL,
    ops BLOB NOT NULL,
    expires INTEGER NOT NULL
) WITHOUT ROWID;

-- Finished commits whose files were dropped.
CREATE TABLE IF NOT EXISTS forgotten (
    commit_pk INTEGER PRIMARY KEY REFERENCES commits (pk) ON DELETE CASCADE
) WITHOUT ROWID;

-- What clients keep with PutCache: a google.protobuf.Any, and the file sets that stay as long as it does.
CREATE TABLE IF NOT EXISTS cache (key TEXT PRIMARY KEY, value BLOB NOT NULL, tag TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cache_file_set (
    key TEXT NOT NULL REFERENCES cache (key) ON DELETE CASCADE,
    file_set TEXT NOT NULL,
    PRIMARY KEY (key, file_set)
) WITHOUT ROWID;

-- What the step from one tree to the next can have changed: see `pachd.pfs.steps`.
CREATE TABLE IF NOT EXISTS step (
    root BLOB NOT NULL,
    base BLOB NOT NULL,
    paths BLOB NOT NULL,
    PRIMARY KEY (root, base)
) WITHOUT ROWID;

-- Paths that a commit wrote as they were, or deleted where they were not.
CREATE TABLE IF NOT EXISTS idle (
    commit_pk INTEGER NOT NULL REFERENCES commits (pk) ON DELETE CASCADE,
    path TEXT NOT NULL,
    PRIMARY KEY (commit_pk, path)
) WITHOUT ROWID;
"""
)

# A step goes when a commit with its tree does; to be run when there is a table of commits.
FILES_TRIGGERS = """
CREATE TRIGGER IF NOT EXISTS step_of_deleted_commit AFTER DELETE ON commits WHEN OLD.root IS NOT NULL
BEGIN
    DELETE FROM step WHERE root = OLD.root;
END;
"""
