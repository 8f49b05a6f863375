"""The tables of projects, repos, branches, commits, provenance and transactions.

Times are nanoseconds since 1970; 0 means not yet. `commits.state` is a pfs_pb2.CommitState: STARTED, FINISHING or FINISHED.
"""

GRAPH_SCHEMA = """
CREATE TABLE IF NOT EXISTS projects (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL DEFAULT '',
    created INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS repos (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    created INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '',
    UNIQUE (project, name, type)
);
CREATE TABLE IF NOT EXISTS branches (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    repo_pk INTEGER NOT NULL,
    name TEXT NOT NULL,
    head_pk INTEGER,
    trigger_pb BLOB,
    specs BLOB,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '',
    UNIQUE (repo_pk, name)
);
CREATE INDEX IF NOT EXISTS branches_head ON branches (head_pk);
-- from_pk: the downstream branch; to_pk: the upstream one that it directly depends on
CREATE TABLE IF NOT EXISTS branch_provenance (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    from_pk INTEGER NOT NULL,
    to_pk INTEGER NOT NULL,
    never INTEGER NOT NULL DEFAULT 0,
    UNIQUE (from_pk, to_pk)
);
CREATE INDEX IF NOT EXISTS branch_provenance_to ON branch_provenance (to_pk);
CREATE TABLE IF NOT EXISTS commits (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    repo_pk INTEGER NOT NULL,
    id TEXT NOT NULL,
    branch_pk INTEGER,
    origin INTEGER NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    parent_pk INTEGER,
    state INTEGER NOT NULL,
    started INTEGER NOT NULL,
    finishing INTEGER NOT NULL DEFAULT 0,
    finished INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    compacted INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0,
    root BLOB,
    updated INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '',
    UNIQUE (repo_pk, id)
);
CREATE INDEX IF NOT EXISTS commits_id ON commits (id);
CREATE INDEX IF NOT EXISTS commits_parent ON commits (parent_pk);
CREATE INDEX IF NOT EXISTS commits_branch ON commits (branch_pk);
CREATE INDEX IF NOT EXISTS commits_repo ON commits (repo_pk, pk);
CREATE TABLE IF NOT EXISTS commit_provenance (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    from_pk INTEGER NOT NULL,
    to_pk INTEGER NOT NULL,
    UNIQUE (from_pk, to_pk)
);
CREATE INDEX IF NOT EXISTS commit_provenance_to ON commit_provenance (to_pk);
CREATE TABLE IF NOT EXISTS transactions (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    info BLOB NOT NULL
);
INSERT OR IGNORE INTO projects (name, created) VALUES
    ('default', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000000 + 1000);
"""
