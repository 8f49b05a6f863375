"""Pipelines: creating, updating, stopping, starting, deleting and listing them.

A pipeline P has the repos P, P.spec and P.meta.  Every version is an (empty) USER commit on P.spec@master; that commit,
and every commit of an input, propagates to the output and meta branches, and each AUTO commit there is a job.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left

from pachd.auth import owners
from pachd.errors import AlreadyExists, Internal, InvalidArgument, NotFound, PachError
from pachd.pfs import branches, commits, propagate, refs, repos
from pachd.pps import access, defaults, egress, inputs, jobs, lookup, spec
from pachd.proto import pfs_pb2, pps_pb2
from pachd.store import Snapshot, Txn, system
from pachd.types import Branch, Commit, Repo

STARTING, RUNNING, FAILURE = pps_pb2.PIPELINE_STARTING, pps_pb2.PIPELINE_RUNNING, pps_pb2.PIPELINE_FAILURE
PAUSED, STANDBY, CRASHING = pps_pb2.PIPELINE_PAUSED, pps_pb2.PIPELINE_STANDBY, pps_pb2.PIPELINE_CRASHING
_USER = "unknown_username"  # who did it, while access control is off


def _user(txn: Txn) -> str:
    return owners.principal(txn) or _USER


def exists(txn: Snapshot, repo: Repo) -> bool:
    """Whether a repo (of any type) belongs to a pipeline."""
    return (
        txn.db.execute("SELECT 1 FROM pps_pipelines WHERE project=? AND name=?", (repo.project, repo.name)).fetchone()
        is not None
    )


def has_pipeline(txn: Snapshot, repo: Repo) -> bool:
    """Whether a repo (of any type) belongs to a pipeline."""
    found = txn.db.execute("SELECT 1 FROM pps_pipelines WHERE project=? AND name=?", (repo.project, repo.name))
    return found.fetchone() is not None


def has_jobs(txn: Snapshot, repo: Repo) -> bool:
    """Whether a repo (of any type) belongs to a pipeline that runs jobs: no spout and no service."""
    row = txn.db.execute(
        lookup.SELECT + "WHERE p.project=? AND p.name=? AND v.version=p.version", (repo.project, repo.name)
    ).fetchone()
    return row is not None and (
        pps_pb2.PipelineInfo.FromString(row["info"]).type == pps_pb2.PipelineInfo.PIPELINE_TYPE_TRANSFORM
    )


def running(txn: Snapshot) -> list[sqlite3.Row]:
    """The rows of all pipelines that are neither stopped nor failed."""
    return txn.db.execute(
        lookup.SELECT + "WHERE v.version=p.version AND p.stopped=0 AND p.state<>? ORDER BY p.pk", (FAILURE,)
    ).fetchall()


def prepare(txn: Txn, text: str, update: bool, reprocess: bool) -> pps_pb2.CreatePipelineTransaction:
    """What a spec in JSON means with all defaults, as a transaction keeps it.

    It checks nothing that the rest of the store decides. Raises InvalidArgument, or PachError without a pipeline.
    """
    request, effective = _effective(txn, text)
    request.update, request.reprocess = update, reprocess
    request.ClearField("dry_run")
    if not request.HasField("pipeline"):
        raise PachError("request.Pipeline cannot be nil")
    return pps_pb2.CreatePipelineTransaction(
        create_pipeline_request=request,
        user_json=text,
        effective_json=effective,
        created_by=owners.principal(txn),
    )


def effective_json(txn: Snapshot, text: str) -> str:
    """What a spec means with all defaults, as JSON text."""
    return _effective(txn, text)[1]


def create(txn: Txn, wanted: pps_pb2.CreatePipelineTransaction) -> None:
    """Make a pipeline, or another version of it. Its secrets have been looked for.

    Raises AlreadyExists, NotFound for its inputs, and PachError for what is wrong with the spec.
    """
    if not wanted.HasField("create_pipeline_request"):
        raise Internal("empty CreatePipelineRequest in CreatePipelineTransaction")
    request = pps_pb2.CreatePipelineRequest()
    request.CopyFrom(wanted.create_pipeline_request)
    request.pipeline.project.name = request.pipeline.project.name or "default"
    pipeline = request.pipeline
    old = _existing(txn, pipeline)
    if old is not None and not request.update:
        raise AlreadyExists(f'pipeline "{pipeline.project.name}/{pipeline.name}" already exists')
    spec.validate_request(request)
    details = spec.details_of(request)
    spec.validate_details(pipeline, details)
    if details.HasField("egress"):
        egress.check(details.egress)
    _check_inputs(txn, details)
    out = Repo(pipeline.project.name, pipeline.name, "user")
    if old is None and _repo_exists(txn, out):
        raise PachError(
            f'pipeline "{pipeline.name}" cannot be created because a repo with the same name already exists'
        )
    if request.HasField("spec_commit"):
        _refuse_spec_commit(txn, request.spec_commit, old is not None)
    stored = pps_pb2.PipelineInfo(
        pipeline=pipeline,
        type=spec.pipeline_type(request),
        details=details,
        user_spec_json=wanted.user_json,
        effective_spec_json=wanted.effective_json,
    )
    stored.details.salt = system.new_id() if request.reprocess or not request.salt else request.salt
    stored.details.created_by = wanted.created_by or owners.principal(txn)
    if old is not None:
        before = pps_pb2.PipelineInfo.FromString(old["info"]).details
        stored.details.created_by = before.created_by
        if not request.reprocess:
            stored.details.salt = before.salt
    _set_starts(txn, stored.details)
    if old is None:
        _insert(txn, stored, out)
    else:
        _update(txn, stored, out, old)


def _effective(txn: Snapshot, text: str) -> tuple[pps_pb2.CreatePipelineRequest, str]:
    try:
        user = spec.parse_user(text)
        name = ((user.get("pipeline") or {}).get("project") or {}).get("name")
        return spec.effective(user, *defaults.layers(txn, str(name or "default")))
    except (InvalidArgument, NotFound) as error:
        raise InvalidArgument(f"could not make effective spec: {error}") from None


def _existing(txn: Txn, pipeline: pps_pb2.Pipeline) -> sqlite3.Row | None:
    """The current version of a pipeline that is to be made or updated, if it is there; makes `NAME^` to `NAME`."""
    pipeline.name, back = lookup.parse(pipeline.name)
    try:
        if back:
            lookup.find(txn, pps_pb2.Pipeline(name=f"{pipeline.name}~{back}", project=pipeline.project))
        return lookup.find(txn, pipeline)
    except NotFound:
        return None


def _refuse_spec_commit(txn: Txn, commit: pfs_pb2.Commit, update: bool) -> None:
    """A spec names its commit only in an archive of a whole cluster, which no RPC reads."""
    if update:
        raise PachError("Cannot update a pipeline and provide a spec commit at the same time")
    try:
        if not commit.HasField("repo"):
            raise PachError("pick commit tx: cannot pick commit with no repo")
        row = refs.resolve_commit(txn, commit)
    except PachError as error:
        raise error.wrapped("error inspecting spec commit") from None
    if row.repo.type != "spec":
        raise PachError(f"commit {row.repo}@{row.id} is not from a spec repo")
    raise AlreadyExists(f"pipelines {row.repo.project}/{row.repo.name}@{row.id} already exists")


def _set_starts(txn: Txn, details: pps_pb2.PipelineInfo.Details) -> None:
    """A cron input without a start counts from now."""
    for part in inputs.walk(details.input) if details.HasField("input") else ():
        if part.HasField("cron") and not part.cron.HasField("start"):
            part.cron.start.FromNanoseconds(txn.now)


def _repo_exists(txn: Snapshot, repo: Repo) -> bool:
    try:
        repos.inspect_repo(txn, repo)
    except NotFound:
        return False
    return True


def _check_inputs(txn: Snapshot, details: pps_pb2.PipelineInfo.Details) -> None:
    """Every input repo must exist, except those that the pipeline makes itself for its cron inputs."""
    if not details.HasField("input"):
        return
    for part in inputs.walk(details.input):
        if part.HasField("pfs"):
            repos.inspect_repo(txn, Repo(part.pfs.project, part.pfs.repo, part.pfs.repo_type))


def _spec_commit(txn: Txn, out: Repo) -> str:
    branch = Branch(Repo(out.project, out.name, "spec"), "master")
    commit = commits.start_commit(txn, branch)
    commits.finish_commit(txn, commit, force=True)
    return str(commit.id)


def _insert(txn: Txn, stored: pps_pb2.PipelineInfo, out: Repo) -> None:
    name = f"{out.project}/{out.name}"
    repos.create_repo(txn, out, f"Output repo for pipeline {name}.")
    repos.create_repo(txn, Repo(out.project, out.name, "spec"), f"Spec repo for pipeline {name}.")
    if stored.type == pps_pb2.PipelineInfo.PIPELINE_TYPE_TRANSFORM:
        repos.create_repo(txn, Repo(out.project, out.name, "meta"), f"Meta repo for pipeline {out.name}")
    commit = _spec_commit(txn, out)
    pk = txn.db.execute(
        "INSERT INTO pps_pipelines (project, name, version, state, created) VALUES (?,?,1,?,?)",
        (out.project, out.name, STARTING, txn.now),
    ).lastrowid
    txn.db.execute("INSERT INTO pps_versions VALUES (?,1,?,?,?)", (pk, commit, txn.now, stored.SerializeToString()))
    _prepare_inputs(txn, stored)
    access.connect(txn, stored)
    _connect_version(txn, stored, out)


def _update(txn: Txn, stored: pps_pb2.PipelineInfo, out: Repo, old: sqlite3.Row) -> None:
    jobs.stop_all(txn, old["pk"], f"all jobs killed because pipeline was updated for user {_user(txn)}")
    left = pps_pb2.PipelineInfo.FromString(old["info"])
    left.state, left.reason, left.stopped = old["state"], old["reason"], bool(old["stopped"])
    txn.db.execute(
        "UPDATE pps_versions SET info=? WHERE pipeline=? AND version=?",
        (left.SerializeToString(), old["pk"], old["version"]),
    )
    commit = _spec_commit(txn, out)
    version = old["version"] + 1
    state = PAUSED if old["stopped"] else STARTING
    txn.db.execute("UPDATE pps_pipelines SET version=?, state=?, reason='' WHERE pk=?", (version, state, old["pk"]))
    txn.db.execute(
        "INSERT INTO pps_versions VALUES (?,?,?,?,?)", (old["pk"], version, commit, txn.now, stored.SerializeToString())
    )
    _prepare_inputs(txn, stored)
    access.connect(txn, stored)
    _change_kind(txn, stored, out, old)
    if not old["stopped"]:
        _connect_version(txn, stored, out)


def _change_kind(txn: Txn, stored: pps_pb2.PipelineInfo, out: Repo, old: sqlite3.Row) -> None:
    """A transform has a meta repo, a spout or a service has none that gets commits."""
    meta = Repo(out.project, out.name, "meta")
    transforms = stored.type == pps_pb2.PipelineInfo.PIPELINE_TYPE_TRANSFORM
    if transforms and not _repo_exists(txn, meta):
        repos.create_repo(txn, meta, f"Meta repo for pipeline {out.name}")
    elif not transforms and _repo_exists(txn, meta):
        before = pps_pb2.PipelineInfo.FromString(old["info"]).details.output_branch
        branches.create_branch(txn, Branch(meta, before), provenance=[])


def _prepare_inputs(txn: Txn, stored: pps_pb2.PipelineInfo) -> None:
    """Make the repos of cron inputs and the branches of triggered ones."""
    if not stored.details.HasField("input"):
        return
    pipeline = stored.pipeline
    for part in inputs.walk(stored.details.input):
        if part.HasField("cron"):
            repo = Repo(part.cron.project, part.cron.repo, "user")
            if not _repo_exists(txn, repo):
                repos.create_repo(txn, repo, f"Cron tick repo for pipeline {pipeline.project.name}/{pipeline.name}.")
        elif part.HasField("pfs") and part.pfs.HasField("trigger"):
            triggered = Branch(Repo(part.pfs.project, part.pfs.repo, "user"), part.pfs.branch)
            try:
                branches.create_branch(txn, triggered, trigger=part.pfs.trigger)
            except PachError as error:
                raise error.wrapped("could not create/update trigger branch") from None


def _connect_version(txn: Txn, stored: pps_pb2.PipelineInfo, out: Repo) -> None:
    try:
        connect(txn, stored, out, True)
    except PachError as error:  # the output branch comes first, and what is wrong with it is wrong with the other
        raise error.wrapped("could not create/update output branch") from None


def connect(txn: Txn, stored: pps_pb2.PipelineInfo, out: Repo, connected: bool) -> list[Branch]:
    """Connect the output and meta branches with the inputs and the spec, or cut them off; returns the branches."""
    made: list[Branch] = []
    sources: list[Branch] = []
    never: list[Branch] = []
    if connected:
        for leg in inputs.legs(stored.details.input):
            if leg.branch not in sources:
                sources.append(leg.branch)
        never = inputs.quiet(stored.details.input)
        sources.append(Branch(Repo(out.project, out.name, "spec"), "master"))
    kinds = ["user", "meta"] if stored.type == pps_pb2.PipelineInfo.PIPELINE_TYPE_TRANSFORM else ["user"]
    for kind in kinds:
        branch = Branch(Repo(out.project, out.name, kind), stored.details.output_branch)
        branches.create_branch(txn, branch, provenance=sources, never=never)
        made.append(branch)
    return made


def stop_pipeline(txn: Txn, pipeline: pps_pb2.Pipeline, must_exist: bool = True) -> None:
    """Cut a pipeline off from its inputs and kill its jobs; a stopped one stays as it is.

    One that has failed is stopped, but its state tells of the failure until it is updated.
    """
    try:
        row = lookup.find(txn, pipeline)
    except NotFound:
        if must_exist:
            raise
        return
    if row["stopped"]:
        return
    txn.db.execute("UPDATE pps_pipelines SET stopped=1 WHERE pk=?", (row["pk"],))
    txn.db.execute(
        "UPDATE pps_pipelines SET state=?, reason='' WHERE pk=? AND state<>?", (PAUSED, row["pk"], FAILURE)
    )
    jobs.stop_all(txn, row["pk"], f"all jobs killed because pipeline was stopped for user {_user(txn)}")
    connect(txn, pps_pb2.PipelineInfo.FromString(row["info"]), Repo(row["project"], row["name"], "user"), False)


def start_pipeline(txn: Txn, pipeline: pps_pb2.Pipeline) -> None:
    """Connect a stopped pipeline again; commits that came meanwhile make one job.

    One that was not stopped may get another job, as in Pachyderm: see `_is_connected`.
    """
    row = lookup.find(txn, pipeline)
    stored = pps_pb2.PipelineInfo.FromString(row["info"])
    out = Repo(row["project"], row["name"], "user")
    if row["stopped"]:
        txn.db.execute("UPDATE pps_pipelines SET stopped=0 WHERE pk=?", (row["pk"],))
        txn.db.execute(
            "UPDATE pps_pipelines SET state=?, reason='' WHERE pk=? AND state<>?", (STARTING, row["pk"], FAILURE)
        )
    elif _is_connected(txn, stored, out):
        return
    for branch in connect(txn, stored, out, True):
        propagate.force(txn, refs.branch_row(txn, branch)["pk"])


def _is_connected(txn: Txn, stored: pps_pb2.PipelineInfo, out: Repo) -> bool:
    """Whether Pachyderm sees that the output branch is connected with these very inputs already.

    It looks for each by bisection among those that the branch has, which its database gives in the order of their last
    change: it finds them all only when that is the order of their names.
    """
    rows = txn.db.execute(
        "SELECT r.project, r.name, r.type, b.name AS branch FROM branch_provenance p "
        "JOIN branches b ON b.pk = p.source_pk JOIN repos r ON r.pk = b.repo_pk WHERE p.branch_pk=? "
        "ORDER BY b.updated, b.pk",
        (refs.branch_row(txn, Branch(out, stored.details.output_branch))["pk"],),
    ).fetchall()
    known = [f"{row['project']}/{row['name']}.{row['type']}@{row['branch']}" for row in rows]
    wanted = [leg.branch for leg in inputs.legs(stored.details.input)]
    wanted.append(Branch(Repo(out.project, out.name, "spec"), "master"))
    keys = [f"{b.repo.project}/{b.repo.name}.{b.repo.type}@{b.name}" for b in wanted]
    places = [bisect_left(known, key) for key in keys]
    return len(known) == len(keys) and all(known[at : at + 1] == [key] for at, key in zip(places, keys, strict=True))


def rerun_pipeline(txn: Txn, pipeline: pps_pb2.Pipeline, reprocess: bool) -> None:
    """Another version with the same spec, or with that of an earlier version (`NAME^`)."""
    try:
        row = lookup.find(txn, pipeline)
    except PachError as error:
        raise error.wrapped(f'inspect pipeline "{lookup.told(pipeline)}"') from None
    stored = pps_pb2.PipelineInfo.FromString(row["info"])
    now = lookup.find(txn, stored.pipeline)
    salt = pps_pb2.PipelineInfo.FromString(now["info"]).details.salt
    stored.details.salt = system.new_id() if reprocess else salt
    _update(txn, stored, Repo(row["project"], row["name"], "user"), now)


def affected(txn: Snapshot, project: str) -> list[pps_pb2.Pipeline]:
    """Pipelines (of one project, or all) whose effective spec the defaults of now would change."""
    found = []
    for row in txn.db.execute(lookup.SELECT + "WHERE v.version=p.version ORDER BY p.pk DESC").fetchall():
        info = pps_pb2.PipelineInfo.FromString(row["info"])
        if (not project or row["project"] == project) and info.user_spec_json:
            if spec.read(effective_json(txn, info.user_spec_json)) != spec.read(info.effective_spec_json):
                found.append(info.pipeline)
    return found


def regenerate(txn: Txn, pipeline: pps_pb2.Pipeline, reprocess: bool) -> None:
    """Update a pipeline to what its spec means under the defaults of now."""
    info = pps_pb2.PipelineInfo.FromString(lookup.find(txn, pipeline)["info"])
    create(txn, prepare(txn, info.user_spec_json, True, reprocess))


def set_state(txn: Txn, pk: int, state: int, reason: str = "") -> None:
    """What the engine says of a pipeline; a stopped one stays PAUSED."""
    txn.db.execute(
        "UPDATE pps_pipelines SET state=?, reason=?, workers_started=CASE WHEN ?=? AND workers_started=0 THEN ? "
        "ELSE workers_started END WHERE pk=? AND stopped=0",
        (state, reason, state, RUNNING, txn.now, pk),
    )


def output_commit(row: sqlite3.Row, job: str, kind: str = "user") -> Commit:
    """The name of a job's output (``kind`` user) or meta commit."""
    return Commit(Repo(row["project"], row["name"], kind), job)
