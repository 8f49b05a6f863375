"""pfs_v2: projects, repos and branches; commits and files are in modules of their own."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from pachd.api.commits import Commits
from pachd.api.egress import Egress
from pachd.api.files import Files
from pachd.api.filesets import Cache, FileSets
from pachd.api.keys import project_name, repo_key, required_branch, required_commit, required_repo
from pachd.api.service import Call, Service, read, write
from pachd.api.strip import strip_branch
from pachd.auth import activation
from pachd.auth.resources import repo_resource
from pachd.errors import InvalidArgument, PachError
from pachd.pfs import branches, check, pickers, projects, repos, transactions
from pachd.pps import check as pps_check
from pachd.pps import zombies
from pachd.proto import pfs_pb2
from pachd.proto.auth_pb2 import Permission as P
from pachd.store import Snapshot, Txn
from pachd.types import Branch

_UINT64 = 1 << 64


class Projects:
    """CreateProject … ReposSummary."""

    @write()
    def CreateProject(self, txn: Txn, request: pfs_pb2.CreateProjectRequest, call: Call) -> None:
        if not request.HasField("project"):
            raise PachError("invalid project name: nil project")
        projects.create_project(txn, request.project.name, request.description, request.update)

    @read
    def InspectProject(self, snapshot: Snapshot, request: pfs_pb2.InspectProjectRequest, call: Call) -> Any:
        return projects.inspect_project(snapshot, request.project.name)

    @read
    def InspectProjectV2(self, snapshot: Snapshot, request: pfs_pb2.InspectProjectV2Request, call: Call) -> Any:
        name = request.project.name
        try:
            info = projects.inspect_project(snapshot, name)
        except PachError as err:
            raise err.wrapped(f'could not inspect project "{name}"') from err
        return pfs_pb2.InspectProjectV2Response(
            info=info, defaults_json=self._project_defaults(snapshot, request.project)
        )

    def _project_defaults(self, snapshot: Snapshot, project: pfs_pb2.Project) -> str:
        """Return the project's pipeline defaults as JSON; pipelines keep them."""
        try:
            from pachd.pps import defaults
        except ImportError:
            return "{}"
        return defaults.project_defaults(snapshot, project_name(project))

    @read
    def ListProject(self, snapshot: Snapshot, request: pfs_pb2.ListProjectRequest, call: Call) -> Any:
        return iter(projects.list_projects(snapshot))

    @write()
    def DeleteProject(self, txn: Txn, request: pfs_pb2.DeleteProjectRequest, call: Call) -> None:
        if not request.HasField("project"):
            raise PachError("invalid project name: nil project")
        projects.delete_project(txn, request.project.name, request.force)

    @read
    def ReposSummary(self, snapshot: Snapshot, request: pfs_pb2.ReposSummaryRequest, call: Call) -> Any:
        response = pfs_pb2.ReposSummaryResponse()
        for picker in request.projects:
            if picker.WhichOneof("picker") is None:
                raise PachError("project picker is of an unknown type: <nil>")
            infos = list(repos.list_repos(snapshot, type="user", projects=[picker.name]))
            if not infos:
                continue
            response.summaries.add(
                project=pfs_pb2.Project(name=picker.name),
                user_repo_count=len(infos),
                size_bytes=sum(i.size_bytes_upper_bound for i in infos),
            )
        return response


class Repos:
    """CreateRepo … DeleteRepos."""

    @write(transactional="create_repo")
    def CreateRepo(self, txn: Txn, request: pfs_pb2.CreateRepoRequest, call: Call) -> None:
        repos.create_repo(txn, required_repo(request), request.description, request.update)

    @read
    def InspectRepo(self, snapshot: Snapshot, request: pfs_pb2.InspectRepoRequest, call: Call) -> Any:
        return repos.inspect_repo(snapshot, required_repo(request))

    @read
    def ListRepo(self, snapshot: Snapshot, request: pfs_pb2.ListRepoRequest, call: Call) -> Any:
        try:
            page = _page(request.page) if request.HasField("page") else slice(None)
            infos = repos.list_repos(snapshot, type=request.type, projects=[p.name for p in request.projects])
        except PachError as err:
            raise err.wrapped("WithReadContext: listRepoInTransaction") from err
        return iter(infos[page])

    @write(transactional="delete_repo")
    def DeleteRepo(self, txn: Txn, request: pfs_pb2.DeleteRepoRequest, call: Call) -> Any:
        if not request.HasField("repo"):
            raise InvalidArgument("no repo specified")
        try:
            deleted = transactions.delete_repo(txn, request)
        except PachError as err:
            raise err.wrapped("delete repo") from err
        return pfs_pb2.DeleteRepoResponse(deleted=deleted)

    @write()
    def DeleteRepos(self, txn: Txn, request: pfs_pb2.DeleteReposRequest, call: Call) -> Any:
        response = pfs_pb2.DeleteReposResponse()
        names = None if request.all else {p.name for p in request.projects}
        access = call.access
        may = bool if access is None else lambda repo: access.may(txn, repo_resource(repo), P.REPO_DELETE)
        try:
            response.repos.extend(repos.delete_repos(txn, names, request.force, may))
        except PachError as err:
            raise err.wrapped("delete repos") from err
        return response


def _page(page: pfs_pb2.RepoPage) -> slice:
    """Return where a page is. Raises PachError for an order or a page that Pachyderm's database cannot give."""
    if page.order != pfs_pb2.RepoPage.PROJECT_REPO:
        raise PachError(f"for each repo: cannot make page order bys for ordering {page.order}")
    size, index = page.page_size % _UINT64, page.page_index % _UINT64
    start = size * index % _UINT64
    if max(size, start) >= _UINT64 >> 1:
        raise PachError("for each repo: for each repo: getting page: ERROR: bigint out of range (SQLSTATE 22003)")
    return slice(start, start + size)


class Branches:
    """CreateBranch … WalkBranchSubvenance."""

    @write(transactional="create_branch")
    def CreateBranch(self, txn: Txn, request: pfs_pb2.CreateBranchRequest, call: Call) -> None:
        if request.HasField("head"):
            required_commit(request, "head")
        required_branch(request)
        transactions.create_branch(txn, request)

    @read
    def InspectBranch(self, snapshot: Snapshot, request: pfs_pb2.InspectBranchRequest, call: Call) -> Any:
        return strip_branch(call, branches.inspect_branch(snapshot, required_branch(request)))

    @read
    def ListBranch(self, snapshot: Snapshot, request: pfs_pb2.ListBranchRequest, call: Call) -> Any:
        repo = repo_key(request.repo) if request.HasField("repo") else None
        for info in branches.list_branches(snapshot, repo, reverse=request.reverse):
            yield strip_branch(call, info)

    @write(transactional="delete_branch")
    def DeleteBranch(self, txn: Txn, request: pfs_pb2.DeleteBranchRequest, call: Call) -> None:
        branches.delete_branch(txn, required_branch(request), request.force)

    @read
    def WalkBranchProvenance(self, snapshot: Snapshot, request: Any, call: Call) -> Any:
        start = _start(snapshot, request, "walk branch provenance")
        for info in branches.walk_provenance(snapshot, start, request.max_branches, request.max_depth):
            yield strip_branch(call, info)

    @read
    def WalkBranchSubvenance(self, snapshot: Snapshot, request: Any, call: Call) -> Any:
        start = _start(snapshot, request, "walk branch subvenance")
        for info in branches.walk_subvenance(snapshot, start, request.max_branches, request.max_depth):
            yield strip_branch(call, info)


def _start(snapshot: Snapshot, request: Any, told: str) -> list[Branch]:
    """Return the branches where a walk starts. Raises PachError, beginning with `told`."""
    try:
        return [pickers.pick_branch(snapshot, picker) for picker in request.start]
    except PachError as err:
        raise err.wrapped(f"{told}: pick branches") from err


class Whole:
    """DeleteAll, Fsck and ListTask, which are about everything."""

    @write()
    def ActivateAuth(self, txn: Txn, request: pfs_pb2.ActivateAuthRequest, call: Call) -> None:
        activation.activate_repos(txn)

    async def ListTask(self, call: Call) -> None:
        """Answer with no tasks: one process has none to distribute."""
        await call.request()

    @write()
    def DeleteAll(self, txn: Txn, request: Any, call: Call) -> None:
        try:
            repos.delete_repos(txn, None, force=True)
        except PachError as err:
            raise err.wrapped("could not delete all repos") from err
        for info in projects.list_projects(txn):
            projects.delete_project(txn, info.project.name, force=True)
        projects.ensure_default(txn)

    @read
    def Fsck(self, snapshot: Snapshot, request: pfs_pb2.FsckRequest, call: Call) -> Iterator[Any]:
        for problem in chain(check.check(snapshot), check.behind(snapshot), pps_check.check(snapshot)):
            yield pfs_pb2.FsckResponse(error=problem)
        if request.zombie_all:
            stale = zombies.of_all(snapshot)
        elif request.HasField("zombie_target"):
            stale = zombies.of_commit(snapshot, request.zombie_target)
        else:
            return
        for problem in stale:
            yield pfs_pb2.FsckResponse(error=problem)


class API(Whole, Projects, Repos, Branches, Commits, Egress, Files, FileSets, Cache, Service):
    name = "pfs_v2.API"


SERVICES = [API]
