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
"""
)
