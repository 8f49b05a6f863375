"""The tables of pipelines and jobs. Processed datums are kept per job so that a crash loses none of them."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS pps_pipelines (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    state INTEGER NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    stopped INTEGER NOT NULL DEFAULT 0,
    workers_started INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    UNIQUE (project, name)
);
CREATE TABLE IF NOT EXISTS pps_versions (
    pipeline INTEGER NOT NULL REFERENCES pps_pipelines (pk) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    spec_commit TEXT NOT NULL,
    updated INTEGER NOT NULL,
    info BLOB NOT NULL,
    PRIMARY KEY (pipeline, version)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pps_jobs (
    pk INTEGER PRIMARY KEY AUTOINCREMENT,
    pipeline INTEGER NOT NULL REFERENCES pps_pipelines (pk) ON DELETE CASCADE,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    state INTEGER NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    created INTEGER NOT NULL,
    started INTEGER NOT NULL DEFAULT 0,
    finished INTEGER NOT NULL DEFAULT 0,
    restarts INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    processed INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    recovered INTEGER NOT NULL DEFAULT 0,
    download_time REAL NOT NULL DEFAULT 0,
    process_time REAL NOT NULL DEFAULT 0,
    upload_time REAL NOT NULL DEFAULT 0,
    download_bytes INTEGER NOT NULL DEFAULT 0,
    upload_bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (pipeline, id)
);
CREATE INDEX IF NOT EXISTS pps_jobs_id ON pps_jobs (id);
CREATE INDEX IF NOT EXISTS pps_jobs_open ON pps_jobs (pipeline, pk) WHERE finished = 0;
CREATE TABLE IF NOT EXISTS pps_datums (
    job INTEGER NOT NULL REFERENCES pps_jobs (pk) ON DELETE CASCADE,
    datum TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (job, datum)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pps_secrets (
    name TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    created INTEGER NOT NULL,
    data TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pps_defaults (
    scope TEXT PRIMARY KEY,
    json TEXT NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pps_defaults_by (
    scope TEXT PRIMARY KEY,
    user TEXT NOT NULL
) WITHOUT ROWID;
"""
