"""The tables of projects, repos, branches, commits and transactions."""

from pachd import auth
from pachd.pfs.files_schema import FILES_SCHEMA, FILES_TRIGGERS

GRAPH_SCHEMA = """
CREATE TABLE IF NOT EXISTS projects (
    name TEXT PRIMARY KEY,
    description TEXT NOT NULL DEFAULT '',
    created INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS repos (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL REFERENCES projects (name),
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    created INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}',
    UNIQUE (project, name, type)
);

-- `state` is pfs_v2.CommitState; `root` the tree of a finished commit,
-- `size` its bytes, unknown where it was finished with an error; the rows of a repo are numbered in the order in
-- which they were made, so a commit's number is greater than that of its parent and of its provenance.
CREATE TABLE IF NOT EXISTS commits (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    repo_pk INTEGER NOT NULL REFERENCES repos (pk) ON DELETE CASCADE,
    id TEXT NOT NULL,
    branch TEXT,
    parent_pk INTEGER REFERENCES commits (pk) ON DELETE SET NULL,
    origin INTEGER NOT NULL,
    state INTEGER NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    started INTEGER NOT NULL,
    finishing INTEGER,
    finished INTEGER,
    updated INTEGER NOT NULL,
    root BLOB,
    size INTEGER,
    metadata TEXT NOT NULL DEFAULT '{}',
    UNIQUE (repo_pk, id)
);
CREATE INDEX IF NOT EXISTS commits_parent ON commits (parent_pk);
CREATE INDEX IF NOT EXISTS commits_set ON commits (id);
CREATE INDEX IF NOT EXISTS commits_repo ON commits (repo_pk, pk);

CREATE TABLE IF NOT EXISTS commit_provenance (
    commit_pk INTEGER NOT NULL REFERENCES commits (pk) ON DELETE CASCADE,
    source_pk INTEGER NOT NULL REFERENCES commits (pk) ON DELETE CASCADE,
    PRIMARY KEY (commit_pk, source_pk)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS commit_subvenance ON commit_provenance (source_pk);

CREATE TABLE IF NOT EXISTS branches (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    repo_pk INTEGER NOT NULL REFERENCES repos (pk) ON DELETE CASCADE,
    name TEXT NOT NULL,
    head_pk INTEGER REFERENCES commits (pk) ON DELETE SET NULL,
    trigger BLOB,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}',
    UNIQUE (repo_pk, name)
);
CREATE INDEX IF NOT EXISTS branches_head ON branches (head_pk);

-- Direct provenance, in the order given (`position`); `never`: new commits of the source make none here.
CREATE TABLE IF NOT EXISTS branch_provenance (
    branch_pk INTEGER NOT NULL REFERENCES branches (pk) ON DELETE CASCADE,
    source_pk INTEGER NOT NULL REFERENCES branches (pk) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    never INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (branch_pk, source_pk)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS branch_subvenance ON branch_provenance (source_pk);

-- Open transactions: their log as a TransactionInfo.
CREATE TABLE IF NOT EXISTS transactions (id TEXT PRIMARY KEY, info BLOB NOT NULL) WITHOUT ROWID;
"""

SCHEMA = (GRAPH_SCHEMA, FILES_SCHEMA, FILES_TRIGGERS, *auth.SCHEMA)
