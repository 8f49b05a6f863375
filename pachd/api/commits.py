"""pfs_v2: commits, commit sets, and waiting for them."""

from functools import partial
from typing import Any

from pachd.api.keys import handle, normal_commit, repo_key, required_commit
from pachd.api.service import Call, read, write
from pachd.api.strip import strip_branch
from pachd.errors import NotFound, PachError, Unavailable
from pachd.pfs import commits, commitsets, history, pickers, refs, temporary, transactions
from pachd.proto import pfs_pb2
from pachd.store import Snapshot, Txn


class Deleted(PachError):
    """A commit was deleted while somebody waited for it."""


class Commits:
    """StartCommit … WalkCommitSubvenance."""

    @write(transactional="start_commit")
    def StartCommit(self, txn: Txn, request: pfs_pb2.StartCommitRequest, call: Call) -> Any:
        return strip_branch(call, _start_commit(txn, request))

    @write(transactional="finish_commit")
    def FinishCommit(self, txn: Txn, request: pfs_pb2.FinishCommitRequest, call: Call) -> None:
        try:
            commit = required_commit(request)
        except PachError as err:
            raise err.wrapped("check new file commit") from err
        if _is_file_set(commit):
            raise NotFound("finishing commit: commit (int_id=0, commit_id=) not found")
        commits.finish_commit(txn, commit, request.description, request.error, request.force)

    @write()
    def ClearCommit(self, txn: Txn, request: pfs_pb2.ClearCommitRequest, call: Call) -> None:
        commit = required_commit(request)
        if not _is_file_set(commit):  # nothing was ever written into that
            commits.clear_commit(txn, commit)

    @write()
    def ForgetCommit(self, txn: Txn, request: pfs_pb2.ForgetCommitRequest, call: Call) -> Any:
        try:
            try:
                row = pickers.pick_commit(txn, request.commit)
            except PachError as err:
                raise err.wrapped("pick commits") from err
            commits.forget_commit(txn, row)
        except PachError as err:
            raise err.wrapped("Forget Commit") from err
        return pfs_pb2.ForgetCommitResponse()

    async def InspectCommit(self, call: Call) -> None:
        request = await call.request()
        info = await _reach(call, required_commit(request), request.wait)
        await call.reply(strip_branch(call, info))

    @read
    def ListCommit(self, snapshot: Snapshot, request: pfs_pb2.ListCommitRequest, call: Call) -> Any:
        normal = pfs_pb2.ListCommitRequest()
        normal.CopyFrom(request)
        for field in ("to", "from"):
            if normal.HasField(field):
                getattr(normal, field).CopyFrom(required_commit(normal, field))
        if not request.HasField("repo"):
            raise PachError("repo cannot be nil")
        for info in commits.list_commits(snapshot, normal):
            yield strip_branch(call, info)

    async def SubscribeCommit(self, call: Call) -> None:
        """Send the commits of a repo, oldest first, each once it is in the state asked for; never ends by itself."""
        request = await call.request()
        if request.HasField("from"):
            required_commit(request, "from")
        if not request.HasField("repo"):
            raise PachError("repo cannot be nil")
        context = call.context
        repo = repo_key(request.repo)
        if request.HasField("from") and repo_key(required_commit(request, "from").repo) != repo:
            raise PachError(f"the `from` commit needs to be from repo {repo}")
        last = 0
        while True:
            version = context.version
            found = await context.read(partial(commits.commits_after, repo=repo, last=last))
            for pk, info in found:
                last = pk
                if not _wanted(info, request):
                    continue
                commit = pfs_pb2.Commit(repo=info.commit.repo, id=info.commit.id)
                try:
                    reached = await _reach(call, commit, request.state)
                except (NotFound, Deleted):
                    continue
                await call.reply(strip_branch(call, reached))
            await context.newer(version)

    async def InspectCommitSet(self, call: Call) -> None:
        request = await call.request()
        if not request.HasField("commit_set"):
            raise PachError("commitset cannot be nil")
        unfinished: list[pfs_pb2.Commit] = []
        for info in await call.context.read(partial(_commit_set, id=request.commit_set.id)):
            if request.wait and not info.HasField("finished"):
                unfinished.append(pfs_pb2.Commit(repo=info.commit.repo, id=info.commit.id))
            else:
                await call.reply(strip_branch(call, info))
        for commit in unfinished:
            await call.reply(strip_branch(call, await _reach(call, commit, pfs_pb2.FINISHED, known=True)))

    @read
    def ListCommitSet(self, snapshot: Snapshot, request: pfs_pb2.ListCommitSetRequest, call: Call) -> Any:
        project = request.project.name if request.HasField("project") else None
        for info in commitsets.list_commit_sets(snapshot, project):
            yield strip_branch(call, info)

    @write(transactional="squash_commit_set")
    def SquashCommitSet(self, txn: Txn, request: pfs_pb2.SquashCommitSetRequest, call: Call) -> None:
        if not request.HasField("commit_set"):
            raise PachError("commitset cannot be nil")
        commitsets.squash_commit_set(txn, request.commit_set.id)

    @write()
    def DropCommitSet(self, txn: Txn, request: pfs_pb2.DropCommitSetRequest, call: Call) -> None:
        commitsets.drop_commit_set(txn, request.commit_set.id)

    @write()
    def SquashCommit(self, txn: Txn, request: pfs_pb2.SquashCommitRequest, call: Call) -> None:
        commitsets.squash_commit(txn, _picked(txn, request), request.recursive)

    @write()
    def DropCommit(self, txn: Txn, request: pfs_pb2.DropCommitRequest, call: Call) -> None:
        commitsets.drop_commit(txn, _picked(txn, request), request.recursive)

    @read
    def FindCommits(self, snapshot: Snapshot, request: pfs_pb2.FindCommitsRequest, call: Call) -> Any:
        """Search backwards for the commits that changed a path; the last answer says how far the search got."""
        start = required_commit(request, "start")
        row = refs.resolve_commit(snapshot, start)
        searched = found = 0
        last_pk = row.pk
        for last_pk, finished, changed in history.search(snapshot, row.pk, request.file_path):
            if not finished:
                asked = handle(start) if last_pk == row.pk else refs.commit_row(snapshot, last_pk).key
                raise Unavailable(f"commit {asked} not finished")
            searched += 1
            if changed:
                found += 1
                commit = refs.commit_pb(refs.commit_row(snapshot, last_pk))
                response = pfs_pb2.FindCommitsResponse(commits_searched=searched - 1, found_commit=commit)
                yield strip_branch(call, response)
                if found == request.limit:
                    break
        row = refs.commit_row(snapshot, last_pk)
        last = pfs_pb2.FindCommitsResponse(commits_searched=searched, last_searched_commit=refs.commit_pb(row))
        yield strip_branch(call, last)

    @read
    def WalkCommitProvenance(self, snapshot: Snapshot, request: Any, call: Call) -> Any:
        rows = _start(snapshot, request, "walk commit provenance: walk commit provenance")
        for info in commitsets.walk_provenance(snapshot, rows, request.max_commits, request.max_depth):
            yield strip_branch(call, info)

    @read
    def WalkCommitSubvenance(self, snapshot: Snapshot, request: Any, call: Call) -> Any:
        rows = _start(snapshot, request, "walk commit subvenance: walk commit subvenance")
        for info in commitsets.walk_subvenance(snapshot, rows, request.max_commits, request.max_depth):
            yield strip_branch(call, info)


def _start(snapshot: Snapshot, request: Any, told: str) -> list[refs.CommitRow]:
    """Return the commits where a walk starts. Raises PachError, beginning with `told`."""
    try:
        return [pickers.pick_commit(snapshot, picker) for picker in request.start]
    except PachError as err:
        raise err.wrapped(f"{told}: pick commits") from err


async def _reach(call: Call, commit: pfs_pb2.Commit, wait: int, known: bool = False) -> pfs_pb2.CommitInfo:
    """Wait until a commit is in a state, without holding a thread; returns it. known: it was there already.

    :raises NotFound: there is none.
    :raises Deleted: it was deleted meanwhile.
    """
    while True:
        version = call.context.version
        try:
            info, reached = await call.context.read(partial(_inspect, commit=commit, wait=wait))
        except NotFound as err:
            if known:
                told = f"commit {handle(commit)} was deleted"
                raise Deleted(f"inspect finishing or finished commit: {told}") from err
            raise
        if reached:
            return info
        known = True
        commit = pfs_pb2.Commit(repo=info.commit.repo, id=info.commit.id)  # the branch may move while we wait
        await call.context.newer(version)


def _is_file_set(commit: pfs_pb2.Commit) -> bool:
    """Whether a file set is meant, which can be read as a commit, and nothing else."""
    return commit.repo.name == temporary.REPO and bool(commit.id or commit.branch.name)


def _inspect(snapshot: Snapshot, commit: pfs_pb2.Commit, wait: int) -> tuple[pfs_pb2.CommitInfo, bool]:
    """Return a commit, and whether it has got as far as `wait`."""
    if _is_file_set(commit):
        virtual = pfs_pb2.CommitInfo(commit=commit, description="FileSet - Virtual Commit")
        virtual.finished.SetInParent()
        return virtual, True
    info = commits.commit_info(snapshot, refs.resolve_commit(snapshot, commit))
    if info.HasField("finished") or wait not in (pfs_pb2.READY, pfs_pb2.FINISHING, pfs_pb2.FINISHED):
        return info, True
    if wait == pfs_pb2.READY:
        provenance = (commits.commit_info(snapshot, refs.resolve_commit(snapshot, c)) for c in info.direct_provenance)
        return info, all(p.HasField("finished") for p in provenance)
    return info, wait == pfs_pb2.FINISHING and info.HasField("finishing")


def _commit_set(snapshot: Snapshot, id: str) -> list[pfs_pb2.CommitInfo]:
    return list(commitsets.inspect_commit_set(snapshot, id))


def _wanted(info: pfs_pb2.CommitInfo, request: pfs_pb2.SubscribeCommitRequest) -> bool:
    """Apply a subscription's branch, origin and `from`."""
    if request.branch and info.commit.branch.name != request.branch:
        return False
    if request.HasField("from") and getattr(request, "from").id == info.commit.id:
        return False
    return request.all or not request.origin_kind or info.origin.kind == request.origin_kind


def _start_commit(txn: Txn, request: pfs_pb2.StartCommitRequest) -> pfs_pb2.Commit:
    if request.HasField("parent"):
        required_commit(request, "parent")
    if not request.HasField("branch") or not request.branch.HasField("repo"):
        raise PachError("start commit in transaction: branch must be specified")
    return transactions.start_commit(txn, request).commit


def _picked(txn: Snapshot, request: Any) -> refs.CommitRow:
    if not request.HasField("commit"):
        raise PachError("pick commit tx: cannot pick nil commit")
    if not request.commit.HasField("repo"):
        raise PachError("pick commit tx: cannot pick commit with no repo")
    if _is_file_set(request.commit):
        repo = repo_key(request.commit.repo)
        told = f"{refs.missing_repo(txn, repo)}\ncommit (int_id=0, commit_id={repo.key}@{request.commit.id}) not found"
        raise NotFound(f"get commit by commit key: {told}")
    if not request.commit.repo.project.name:
        picking = "picking repo" if refs.is_id(request.commit.id) else "picking branch: picking repo"
        raise PachError(f"pick commit tx: picking commit: {picking}: project picker cannot be nil")
    return refs.resolve_commit(txn, normal_commit(request.commit))
