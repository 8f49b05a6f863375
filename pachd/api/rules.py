"""Who may call what: every RPC of every service, and what it takes. Source: Pachyderm 2.12's own checks.

Where the original forgets one (reading a commit as a file set, for example), the check is made all the same; see
docs/differences.md.
"""

from collections.abc import Callable
from typing import Any

from pachd.api.access import Access, Check, Rule
from pachd.api.keys import normal_commit, project_name, repo_key
from pachd.api.rules_pps import PPS
from pachd.auth import bindings
from pachd.auth.resources import Resource, project_resource, repo_resource
from pachd.errors import NotFound, PachError
from pachd.pfs import projects, refs, repos, temporary
from pachd.pps import zombies
from pachd.proto import pfs_pb2
from pachd.proto.auth_pb2 import Permission as P
from pachd.types import Repo

Get = Callable[[Any], Resource | None]
OPEN = Rule(gate=None)
SIGNED_IN = Rule()


def cluster(*permissions: int, only_active: bool = False) -> Rule:
    """Return the rule of an RPC that takes permissions on the cluster."""
    return Rule(gate=permissions, only_active=only_active)


def needs(get: Get, *permissions: int, told: str = "") -> Rule:
    """Return the rule of an RPC that takes permissions on what `get(request)` names."""
    return Rule(check=_on(get, *permissions, told=told))


def _on(get: Get, *permissions: int, told: str = "") -> Check:
    return lambda access, request: access.need(get(request), *permissions, told=told)


# --- what a request is about ----------------------------------------------------------------------------------------


def _repo(request: Any) -> Resource | None:
    return repo_resource(repo_key(request.repo)) if request.HasField("repo") else None


def _branch(request: Any) -> Resource | None:
    return repo_resource(repo_key(request.branch.repo)) if request.branch.HasField("repo") else None


def _of_commit(message: pfs_pb2.Commit) -> Resource | None:
    commit = normal_commit(message)
    if not commit.HasField("repo") or commit.repo.name == temporary.REPO:  # whoever knows a file set's ID may use it
        return None
    return repo_resource(repo_key(commit.repo))


def _commit(request: Any) -> Resource | None:
    return _of_commit(request.commit)


def _file(request: Any) -> Resource | None:
    return _of_commit(request.file.commit)


def _new_commit(request: pfs_pb2.StartCommitRequest) -> Resource | None:
    return _branch(request) if request.branch.name else None  # it will be told that there is no branch


# --- pfs ------------------------------------------------------------------------------------------------------------


def _create_repo(access: Access, request: pfs_pb2.CreateRepoRequest) -> None:
    key = repo_key(request.repo)
    project = project_resource(key.project)
    if not request.HasField("repo") or not bindings.exists(access.snapshot, project):
        return  # it will be told that there is no such project
    refs.check_name(key.name)
    access.need(project, P.PROJECT_CREATE_REPO, told="failed to create repo")
    if request.update:
        try:
            known = repos.inspect_repo(access.snapshot, key)
        except NotFound:
            return
        if known.description != request.description:
            access.need(repo_resource(key), P.REPO_WRITE, told=f'could not update description of "{key}"')


def _delete_repo(access: Access, request: pfs_pb2.DeleteRepoRequest) -> None:
    if request.HasField("repo"):
        resource = repo_resource(repo_key(request.repo)._replace(type="user"))
        if bindings.exists(access.snapshot, resource):
            access.need(resource, P.REPO_DELETE)


def _delete_project(access: Access, name: str, told: str = "") -> None:
    told += f'user is not authorized to delete project "{name}"'
    access.need(project_resource(name), P.PROJECT_DELETE, P.PROJECT_MODIFY_BINDINGS, told=told)


def _delete_named_project(access: Access, request: pfs_pb2.DeleteProjectRequest) -> None:
    if request.HasField("project"):
        _delete_project(access, project_name(request.project))


def _delete_all(access: Access, request: Any) -> None:
    for info in projects.list_projects(access.snapshot):
        _delete_project(access, info.project.name, f'delete project "{info.project.name}": ')


def visible(access: Access, repo: Repo) -> bool:
    """Return whether the caller may know of a repo: by its project, or because of the repo itself."""
    return access.may(project_resource(repo.project), P.PROJECT_LIST_REPO) or access.may(
        repo_resource(repo), P.REPO_READ
    )


def _show_repo(access: Access, request: Any, info: pfs_pb2.RepoInfo) -> pfs_pb2.RepoInfo:
    key = repo_key(info.repo)
    info.auth_info.CopyFrom(access.info(repo_resource(key), f'error getting access level for "{key}"'))
    return info


def _list_repo(access: Access, request: Any, info: pfs_pb2.RepoInfo) -> pfs_pb2.RepoInfo | None:
    return _show_repo(access, request, info) if visible(access, repo_key(info.repo)) else None


def _show_project(access: Access, request: Any, info: pfs_pb2.ProjectInfo) -> pfs_pb2.ProjectInfo:
    name = info.project.name
    told = f'error getting permissions for project "{name}"'
    info.auth_info.CopyFrom(access.info(project_resource(name), told))
    return info


def _show_project_v2(access: Access, request: Any, reply: Any) -> Any:
    _show_project(access, request, reply.info)
    return reply


def _summary(access: Access, request: Any, reply: pfs_pb2.ReposSummaryResponse) -> pfs_pb2.ReposSummaryResponse:
    """Count again, only what the caller may see; projects without anything are left out."""
    seen = pfs_pb2.ReposSummaryResponse()
    for summary in reply.summaries:
        infos = repos.list_repos(access.snapshot, type="user", projects=[summary.project.name])
        infos = [info for info in infos if visible(access, repo_key(info.repo))]
        if infos:
            size = sum(info.size_bytes_upper_bound for info in infos)
            seen.summaries.add(project=summary.project, user_repo_count=len(infos), size_bytes=size)
    return seen


def _list_branch(access: Access, request: pfs_pb2.ListBranchRequest) -> None:
    if not request.HasField("repo"):
        raise PachError("Cannot list branches from all repos with auth activated")
    access.need(_repo(request), P.REPO_LIST_BRANCH)


def _walk_branch(access: Access, request: Any, info: pfs_pb2.BranchInfo) -> pfs_pb2.BranchInfo:
    access.need(repo_resource(repo_key(info.branch.repo)), P.REPO_LIST_BRANCH)
    return info


def _walk_commit(access: Access, request: Any, info: pfs_pb2.CommitInfo) -> pfs_pb2.CommitInfo:
    access.need(repo_resource(repo_key(info.commit.repo)), P.REPO_INSPECT_COMMIT)
    return info


def _modify(access: Access, request: pfs_pb2.ModifyFileRequest) -> None:
    """Check a message of the stream: the commit that is written to, or a file that is copied from."""
    kind = request.WhichOneof("body")
    if kind == "set_commit":
        access.need(_of_commit(request.set_commit), P.REPO_WRITE)
    elif kind == "copy_file":
        access.need(_of_commit(request.copy_file.src.commit), P.REPO_READ)


def _inspect_file(access: Access, request: Any) -> None:
    access.need(_file(request), P.REPO_INSPECT_FILE)
    access.need(_file(request), P.REPO_READ)


def _list_file(access: Access, request: Any) -> None:
    access.need(_file(request), P.REPO_LIST_FILE)
    access.need(_file(request), P.REPO_READ)


def _diff(access: Access, request: pfs_pb2.DiffFileRequest) -> None:
    for field in ("old_file", "new_file"):
        if request.HasField(field):
            access.need(_of_commit(getattr(request, field).commit), P.REPO_READ)


def _fsck(access: Access, request: pfs_pb2.FsckRequest) -> None:
    """Check that the caller may read the outputs whose files would be named."""
    if request.HasField("zombie_target"):
        access.need(_of_commit(request.zombie_target), P.REPO_READ)
    elif request.zombie_all:
        for output in zombies.outputs(access.snapshot):
            access.need(repo_resource(output), P.REPO_READ, told="fsck")


DELETE_COMMIT = cluster(P.REPO_DELETE_COMMIT)

PFS = {
    "ActivateAuth": cluster(P.CLUSTER_AUTH_ACTIVATE, only_active=True),
    "CreateProject": cluster(P.PROJECT_CREATE),
    "InspectProject": Rule(show=_show_project),
    "InspectProjectV2": Rule(show=_show_project_v2),
    "ListProject": Rule(show=_show_project),
    "DeleteProject": Rule(check=_delete_named_project),
    "ReposSummary": Rule(show=_summary),
    "CreateRepo": Rule(check=_create_repo),
    "InspectRepo": Rule(show=_show_repo),
    "ListRepo": Rule(show=_list_repo),
    "DeleteRepo": Rule(check=_delete_repo, denied=pfs_pb2.DeleteRepoResponse),
    "DeleteRepos": SIGNED_IN,  # deletes those that the caller may
    "DeleteAll": Rule(check=_delete_all),
    "StartCommit": needs(_new_commit, P.REPO_WRITE, told="start commit in transaction"),
    "FinishCommit": needs(_commit, P.REPO_WRITE),
    "ClearCommit": needs(_commit, P.REPO_WRITE),
    "InspectCommit": needs(_commit, P.REPO_INSPECT_COMMIT),
    "ListCommit": needs(_repo, P.REPO_LIST_COMMIT),
    "SubscribeCommit": needs(_repo, P.REPO_INSPECT_COMMIT),
    "InspectCommitSet": SIGNED_IN,
    "ListCommitSet": SIGNED_IN,
    "SquashCommit": DELETE_COMMIT,
    "DropCommit": DELETE_COMMIT,
    "SquashCommitSet": DELETE_COMMIT,
    "DropCommitSet": DELETE_COMMIT,
    "ForgetCommit": Rule(gate=(P.REPO_DELETE_COMMIT,)),
    "FindCommits": needs(lambda r: _of_commit(r.start), P.REPO_READ),
    "WalkCommitProvenance": Rule(show=_walk_commit),
    "WalkCommitSubvenance": Rule(show=_walk_commit),
    "CreateBranch": needs(_branch, P.REPO_CREATE_BRANCH),
    "InspectBranch": SIGNED_IN,
    "ListBranch": Rule(check=_list_branch),
    "DeleteBranch": needs(_branch, P.REPO_DELETE_BRANCH),
    "WalkBranchProvenance": Rule(show=_walk_branch),
    "WalkBranchSubvenance": Rule(show=_walk_branch),
    "ModifyFile": Rule(check=_modify),
    "GetFile": needs(_file, P.REPO_READ, told="get file"),
    "GetFileTAR": Rule(gate=None, check=_on(_file, P.REPO_READ)),
    "InspectFile": Rule(check=_inspect_file),
    "ListFile": Rule(check=_list_file),
    "WalkFile": needs(_file, P.REPO_READ, P.REPO_LIST_FILE),
    "GlobFile": needs(_commit, P.REPO_READ, P.REPO_LIST_FILE),
    "DiffFile": Rule(check=_diff),
    "CreateFileSet": Rule(check=_modify),
    "GetFileSet": needs(_commit, P.REPO_READ, told="get file set"),
    "AddFileSet": needs(_commit, P.REPO_WRITE),
    "RenewFileSet": SIGNED_IN,
    "ComposeFileSet": SIGNED_IN,
    "ShardFileSet": SIGNED_IN,
    "Egress": needs(_commit, P.REPO_READ),
    "Fsck": Rule(check=_fsck),
    "CheckStorage": SIGNED_IN,
    "PutCache": SIGNED_IN,
    "GetCache": SIGNED_IN,
    "ClearCache": SIGNED_IN,
    "ListTask": SIGNED_IN,
}


# --- the other services ---------------------------------------------------------------------------------------------


AUTH = {
    "Activate": OPEN,  # these look for themselves
    "Authenticate": OPEN,
    "Authorize": OPEN,
    "WhoAmI": OPEN,
    "GetOIDCLogin": OPEN,
    "GetRoleBinding": Rule(only_active=True),
    "ModifyRoleBinding": Rule(only_active=True),
    "RevokeAuthToken": Rule(only_active=True),
    "GetGroups": Rule(only_active=True),
    "GetPermissions": Rule(only_active=True),
    "GetRolesForPermission": Rule(only_active=True),
    "GetGroupsForPrincipal": cluster(P.CLUSTER_AUTH_GET_GROUPS, only_active=True),
    "GetPermissionsForPrincipal": cluster(P.CLUSTER_AUTH_GET_PERMISSIONS_FOR_PRINCIPAL, only_active=True),
    "GetConfiguration": cluster(P.CLUSTER_AUTH_GET_CONFIG, only_active=True),
    "SetConfiguration": cluster(P.CLUSTER_AUTH_SET_CONFIG, only_active=True),
    "GetRobotToken": cluster(P.CLUSTER_AUTH_GET_ROBOT_TOKEN, only_active=True),
    "SetGroupsForUser": cluster(P.CLUSTER_AUTH_MODIFY_GROUP_MEMBERS, only_active=True),
    "ModifyMembers": cluster(P.CLUSTER_AUTH_MODIFY_GROUP_MEMBERS, only_active=True),
    "GetUsers": cluster(P.CLUSTER_AUTH_GET_GROUP_USERS, only_active=True),
    "ExtractAuthTokens": cluster(P.CLUSTER_AUTH_EXTRACT_TOKENS, only_active=True),
    "RestoreAuthToken": cluster(P.CLUSTER_AUTH_RESTORE_TOKEN, only_active=True),
    "Deactivate": cluster(P.CLUSTER_AUTH_DEACTIVATE, only_active=True),
    "DeleteExpiredAuthTokens": cluster(P.CLUSTER_AUTH_DELETE_EXPIRED_TOKENS, only_active=True),
    "RevokeAuthTokensForUser": cluster(P.CLUSTER_AUTH_REVOKE_USER_TOKENS, only_active=True),
    "RotateRootToken": cluster(P.CLUSTER_AUTH_ROTATE_ROOT_TOKEN, only_active=True),
}

DEBUG_DUMP = cluster(P.CLUSTER_DEBUG_DUMP)

SERVICES = {
    "admin_v2.API": {"InspectCluster": OPEN, "RestartPachyderm": cluster(P.CLUSTER_RESTART_PACHYDERM)},
    "auth_v2.API": AUTH,
    "debug_v2.Debug": {
        "Profile": DEBUG_DUMP,
        "Binary": DEBUG_DUMP,
        "Dump": DEBUG_DUMP,
        "GetDumpV2Template": DEBUG_DUMP,
        "DumpV2": DEBUG_DUMP,
        "SetLogLevel": DEBUG_DUMP,
        "Trace": DEBUG_DUMP,
        "RunPFSLoadTest": SIGNED_IN,
        "RunPFSLoadTestDefault": SIGNED_IN,
    },
    "enterprise_v2.API": {
        "GetState": OPEN,
        "Activate": cluster(P.CLUSTER_ENTERPRISE_ACTIVATE),
        "GetActivationCode": cluster(P.CLUSTER_ENTERPRISE_GET_CODE),
        "Deactivate": cluster(P.CLUSTER_ENTERPRISE_DEACTIVATE),
        "Heartbeat": cluster(P.CLUSTER_ENTERPRISE_HEARTBEAT),
        "Pause": cluster(P.CLUSTER_ENTERPRISE_PAUSE),
        "Unpause": cluster(P.CLUSTER_ENTERPRISE_PAUSE),
        "PauseStatus": SIGNED_IN,
    },
    "identity_v2.API": {
        "SetIdentityServerConfig": cluster(P.CLUSTER_IDENTITY_SET_CONFIG, only_active=True),
        "GetIdentityServerConfig": cluster(P.CLUSTER_IDENTITY_GET_CONFIG, only_active=True),
        "CreateIDPConnector": cluster(P.CLUSTER_IDENTITY_CREATE_IDP, only_active=True),
        "UpdateIDPConnector": cluster(P.CLUSTER_IDENTITY_UPDATE_IDP, only_active=True),
        "ListIDPConnectors": cluster(P.CLUSTER_IDENTITY_LIST_IDPS, only_active=True),
        "GetIDPConnector": cluster(P.CLUSTER_IDENTITY_GET_IDP, only_active=True),
        "DeleteIDPConnector": cluster(P.CLUSTER_IDENTITY_DELETE_IDP, only_active=True),
        "CreateOIDCClient": cluster(P.CLUSTER_IDENTITY_CREATE_OIDC_CLIENT, only_active=True),
        "UpdateOIDCClient": cluster(P.CLUSTER_IDENTITY_UPDATE_OIDC_CLIENT, only_active=True),
        "GetOIDCClient": cluster(P.CLUSTER_IDENTITY_GET_OIDC_CLIENT, only_active=True),
        "ListOIDCClients": cluster(P.CLUSTER_IDENTITY_LIST_OIDC_CLIENTS, only_active=True),
        "DeleteOIDCClient": cluster(P.CLUSTER_IDENTITY_DELETE_OIDC_CLIENT, only_active=True),
        "DeleteAll": cluster(P.CLUSTER_DELETE_ALL, only_active=True),
    },
    "license_v2.API": {
        "Activate": cluster(P.CLUSTER_LICENSE_ACTIVATE),
        "GetActivationCode": cluster(P.CLUSTER_LICENSE_GET_CODE),
        "AddCluster": cluster(P.CLUSTER_LICENSE_ADD_CLUSTER),
        "UpdateCluster": cluster(P.CLUSTER_LICENSE_UPDATE_CLUSTER),
        "DeleteCluster": cluster(P.CLUSTER_LICENSE_DELETE_CLUSTER),
        "ListClusters": cluster(P.CLUSTER_LICENSE_LIST_CLUSTERS),
        "DeleteAll": cluster(P.CLUSTER_DELETE_ALL),
        "Heartbeat": OPEN,
        "ListUserClusters": SIGNED_IN,
    },
    "metadata.API": {"EditMetadata": SIGNED_IN},  # each edit is checked when it is made
    "pfs_v2.API": PFS,
    "pps_v2.API": PPS,
    "storage.Fileset": {
        "CreateFileset": SIGNED_IN,
        "ReadFileset": SIGNED_IN,
        "ReadFilesetCDR": SIGNED_IN,
        "RenewFileset": SIGNED_IN,
        "ComposeFileset": SIGNED_IN,
        "ShardFileset": SIGNED_IN,
    },
    "transaction_v2.API": {
        # the requests in a transaction are checked one by one when they are executed
        "BatchTransaction": SIGNED_IN,
        "StartTransaction": SIGNED_IN,
        "InspectTransaction": SIGNED_IN,
        "DeleteTransaction": SIGNED_IN,
        "ListTransaction": SIGNED_IN,
        "FinishTransaction": SIGNED_IN,
        "DeleteAll": cluster(P.CLUSTER_DELETE_ALL),
    },
    "versionpb_v2.API": {"GetVersion": OPEN},
}

RULES = {f"/{service}/{method}": rule for service, methods in SERVICES.items() for method, rule in methods.items()}

# The RPC that a field of TransactionRequest stands for.
BY_TRANSACTION_FIELD = {
    "create_repo": "/pfs_v2.API/CreateRepo",
    "delete_repo": "/pfs_v2.API/DeleteRepo",
    "start_commit": "/pfs_v2.API/StartCommit",
    "finish_commit": "/pfs_v2.API/FinishCommit",
    "squash_commit_set": "/pfs_v2.API/SquashCommitSet",
    "create_branch": "/pfs_v2.API/CreateBranch",
    "delete_branch": "/pfs_v2.API/DeleteBranch",
    "update_job_state": "/pps_v2.API/UpdateJobState",
    "stop_job": "/pps_v2.API/StopJob",
    "create_pipeline": "/pps_v2.API/CreatePipeline",
    "create_pipeline_v2": "/pps_v2.API/CreatePipelineV2",
}
