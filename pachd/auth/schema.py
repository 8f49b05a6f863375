"""The tables of tokens, role bindings, groups and authors."""

AUTH_SCHEMA = """
-- `hash`: SHA-256 of the token in hex. `expiration`: nanoseconds since 1970, NULL for never.
CREATE TABLE IF NOT EXISTS auth_tokens (
    hash TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    expiration INTEGER,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS auth_tokens_subject ON auth_tokens (subject);

-- Resources that have a role binding, even an empty one; `CLUSTER:` is there while access control is active.
CREATE TABLE IF NOT EXISTS auth_resources (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS auth_roles (
    resource TEXT NOT NULL REFERENCES auth_resources (key) ON DELETE CASCADE,
    principal TEXT NOT NULL,
    role TEXT NOT NULL,
    PRIMARY KEY (resource, principal, role)
) WITHOUT ROWID;

-- Users who were once put into a group, groups that once had a member, and who is in which.
CREATE TABLE IF NOT EXISTS auth_users (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS auth_groups (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS auth_members (
    user TEXT NOT NULL,
    grp TEXT NOT NULL,
    PRIMARY KEY (user, grp)
) WITHOUT ROWID;

-- Who made what, where access control was active at the time.
CREATE TABLE IF NOT EXISTS auth_commit_authors (
    commit_pk INTEGER PRIMARY KEY REFERENCES commits (pk) ON DELETE CASCADE,
    principal TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS auth_branch_authors (
    branch_pk INTEGER PRIMARY KEY REFERENCES branches (pk) ON DELETE CASCADE,
    principal TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS auth_project_authors (
    project TEXT PRIMARY KEY REFERENCES projects (name) ON DELETE CASCADE,
    principal TEXT NOT NULL
) WITHOUT ROWID;
"""

SCHEMA = (AUTH_SCHEMA,)
