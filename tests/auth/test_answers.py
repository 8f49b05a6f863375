"""Status and words of what Pachyderm answers to whom: requests that are wrong, and callers who may not make them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from grpclib.const import Status

from pachd.client import Client, Method, RpcError
from pachd.proto import auth_pb2, debug_pb2, metadata_pb2, pfs_pb2, pps_pb2, storage_pb2
from tests.auth.conftest import Guarded
from tests.auth.helpers import branch, create, file, head, pipeline, put, repo
from tests.processes import Pachd, running

A = auth_pb2
NOBODY = "no authentication token (try logging in)"
BAD_TOKEN = "provided auth token is corrupted or has expired (try logging in again)"
NO_PROVIDER = "OIDC ID provider configuration not found"
OFF = "the auth service is not activated"
OK, UNKNOWN, DENIED = Status.OK, Status.UNKNOWN, Status.PERMISSION_DENIED


def on(kind: str, name: str = "") -> auth_pb2.Resource:
    return A.Resource(type=kind, name=name)


def lacks(who: str, permissions: str, resource: str) -> str:
    return (
        f"{who} is not authorized to perform this operation - needs permissions [{permissions}] on {resource}. "
        "Run `pachctl auth roles-for-permission` to find roles that grant a given permission."
    )


def answer(call: Callable[[], Any]) -> tuple[Status, str]:
    """The status and words of a call's error, (OK, "") if it has none."""
    try:
        result = call()
        if not isinstance(result, Message) and hasattr(result, "__next__"):
            list(result)
    except RpcError as error:
        return error.code, error.message
    return OK, ""


def rpc(client: Client, service: str, method: str, request: Message | None) -> tuple[Status, str]:
    function = getattr(getattr(client, service), method)
    return answer(function if request is None else lambda: function(request))


@pytest.fixture(scope="module")
def off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server with access control off."""
    server = Pachd(tmp_path_factory.mktemp("off") / "data")
    with running(server), Client(server.address, timeout=30) as client:
        yield client


WHILE_OFF = [
    ("WhoAmI", None, (Status.UNIMPLEMENTED, OFF)),
    ("GetRobotToken", A.GetRobotTokenRequest(robot="user:x"), (Status.UNIMPLEMENTED, OFF)),
    ("ModifyRoleBinding", None, (Status.UNIMPLEMENTED, OFF)),  # whoever calls is looked at before the request
    ("GetPermissions", None, (Status.UNIMPLEMENTED, OFF)),
    ("Authenticate", A.AuthenticateRequest(id_token="x"), (Status.UNIMPLEMENTED, OFF)),
    ("Authorize", A.AuthorizeRequest(resource=on("CLUSTER")), (Status.UNIMPLEMENTED, OFF)),
    (
        "Authorize",
        None,
        (Status.INVALID_ARGUMENT, "validate request: invalid AuthorizeRequest.Resource: value is required"),
    ),
    ("GetOIDCLogin", None, (UNKNOWN, NO_PROVIDER)),
    ("Deactivate", None, (Status.UNIMPLEMENTED, OFF)),
]


@pytest.mark.parametrize(("method", "request_", "expected"), WHILE_OFF)
def test_while_access_control_is_off(
    off: Client, method: str, request_: Message | None, expected: tuple[Status, str]
) -> None:
    assert rpc(off, "auth", method, request_) == expected


def test_file_sets_of_the_newer_service(off: Client) -> None:
    append = storage_pb2.CreateFilesetRequest(append_file={"path": "/a", "data": {"value": b"x"}})
    made = str(off.storage.CreateFileset([append]).fileset_id)
    gone, short = "0" * 32, "parsing fileset.Token: too short to be Token len=2"
    for file_set, seconds, expected in (
        (made, 60, (OK, "")),
        (made, 0, (UNKNOWN, "ttl (0) must be at least one second")),
        (made, -5, (UNKNOWN, "ttl (-5) must be at least one second")),
        (made, 1801, (UNKNOWN, "ttl (1801s) exceeds max ttl (1800s)")),
        (gone, 60, (Status.NOT_FOUND, f"tracker does not contain item: (fileset/{gone})")),
        ("zz", 0, (UNKNOWN, short)),
    ):
        request = storage_pb2.RenewFilesetRequest(fileset_id=file_set, ttl_seconds=seconds)
        assert rpc(off, "storage", "RenewFileset", request) == expected, (file_set, seconds)
    broken = storage_pb2.ReadFilesetRequest(fileset_id=made, filters=[{"path_regex": "["}])
    code, words = rpc(off, "storage", "ReadFileset", broken)
    assert code is UNKNOWN and words.startswith("error parsing regexp: ")
    compose = storage_pb2.ComposeFilesetRequest(fileset_ids=[made, gone])
    assert rpc(off, "storage", "ComposeFileset", compose) == (
        UNKNOWN,
        "the operation would create a dangling reference",
    )


def test_what_nobody_has(off: Client) -> None:
    """A service and a method that Pachyderm has not either, and a method that it has."""
    service = descriptor_pool.Default().FindServiceByName("versionpb_v2.API")
    method = Method(off, service.methods_by_name["GetVersion"])
    for path, words in (
        ("/pfs.API/ListRepo", "unknown service pfs.API"),
        ("/nonsense", 'malformed method name: "/nonsense"'),
        ("/pfs_v2.API/Nope", "unknown method Nope for service pfs_v2.API"),
        ("/pjs.API/ListJob", "ListJob of the service pjs.API is not available in this pachd"),
        ("/debug_v2.Debug/Trace", "Trace of the service debug_v2.Debug is not available in this pachd"),
    ):
        method.path = path
        assert answer(method) == (Status.UNIMPLEMENTED, words)


PICKED = [
    ({"pipeline": {}}, "pick pipeline: pipeline picker cannot be nil"),
    ({"pipeline": {"name": {"name": "gone"}}}, "pick pipeline: picking project: project picker cannot be nil"),
    (
        {"pipeline": {"name": {"name": "gone", "project": {"name": "default"}}}},
        "pick pipeline: getting pipeline: getting branch: "
        "repo (id=0, project=default, name=gone, type=spec) not found\n"
        "branch (id=0, branch=default/gone.spec@master) not found",
    ),
    ({"project": {}}, "pick project: project picker cannot be nil"),
    ({"repo": {}}, "pick repo: repo picker cannot be nil"),
    ({"branch": {}}, "pick branch: branch picker cannot be nil"),
    ({"commit": {}}, "pick commit: commit picker cannot be nil"),
]


@pytest.mark.parametrize(("target", "words"), PICKED)
def test_whose_metadata_is_not_there(off: Client, target: dict[str, Any], words: str) -> None:
    edit = metadata_pb2.Edit(**target, edit_key={"key": "k", "value": "v"})
    expected = (UNKNOWN, f"apply edits: edit #0: {words}")
    assert rpc(off, "metadata", "EditMetadata", metadata_pb2.EditMetadataRequest(edits=[edit])) == expected


def test_levels_of_the_log(off: Client) -> None:
    level = debug_pb2.SetLogLevelRequest
    for request, words in (
        (level(), "no level provided"),
        (level(pachyderm="UNKNOWN"), "cannot set log level to UNKNOWN"),
        (level(pachyderm="OFF"), "cannot set log level to OFF"),
        (level(grpc="UNKNOWN"), "cannot set grpc log level to UNKNOWN"),
    ):
        assert rpc(off, "debug", "SetLogLevel", request) == (Status.INVALID_ARGUMENT, words)
    assert off.debug.SetLogLevel(level(grpc="OFF")).affected_pods == ["pachd"]
    assert rpc(off, "debug", "SetLogLevel", level(pachyderm="INFO")) == (OK, "")


@pytest.mark.parametrize(("token", "words"), [(None, NOBODY), ("nonsense", BAD_TOKEN)])
def test_strangers(guarded: Guarded, token: str | None, words: str) -> None:
    stranger = guarded.as_token(token)
    create(guarded.root, f"strange-{token}")
    refused = (Status.UNAUTHENTICATED, words)
    table: list[tuple[str, str, Message | None, tuple[Status, str]]] = [
        ("auth", "Activate", None, refused),  # only who is signed in is told that it is on
        ("auth", "WhoAmI", None, refused),
        ("auth", "Authorize", A.AuthorizeRequest(resource=on("CLUSTER")), refused),
        ("auth", "GetRoleBinding", None, refused),
        ("auth", "GetOIDCLogin", None, (UNKNOWN, NO_PROVIDER)),
        ("auth", "Authenticate", A.AuthenticateRequest(id_token="x"), (UNKNOWN, NO_PROVIDER)),
        ("auth", "Authenticate", None, (UNKNOWN, "unrecognized authentication mechanism (old pachd?)")),
        ("pfs", "GetFileTAR", pfs_pb2.GetFileRequest(file=file(f"strange-{token}", "/x")), refused),
        ("pfs", "ListRepo", None, refused),
    ]
    for service, method, request, expected in table:
        assert rpc(stranger, service, method, request) == expected, method


def test_the_signed_in_are_told_that_it_is_on(guarded: Guarded) -> None:
    already = (Status.UNIMPLEMENTED, "the auth service is already activated")
    assert rpc(guarded.root, "auth", "Activate", None) == already
    assert rpc(guarded.robot("eager"), "auth", "Activate", A.ActivateRequest(root_token="mine")) == already


UNSUPPORTED = "provided OIDC issuer does not implement OIDC protocol: "
REQUESTS = [
    ("SetConfiguration", A.SetConfigurationRequest(), OK, ""),
    (
        "SetConfiguration",
        A.SetConfigurationRequest(configuration=A.OIDCConfig()),
        UNKNOWN,
        UNSUPPORTED + 'Get "/.well-known/openid-configuration": unsupported protocol scheme ""',
    ),
    (
        "SetConfiguration",
        A.SetConfigurationRequest(configuration=A.OIDCConfig(issuer="ftp://x/", client_id="x")),
        UNKNOWN,
        UNSUPPORTED + 'Get "ftp://x/.well-known/openid-configuration": unsupported protocol scheme "ftp"',
    ),
    ("GetRobotToken", A.GetRobotTokenRequest(robot="user:x"), UNKNOWN, "robot names cannot contain colons (':')"),
    (
        "RevokeAuthTokensForUser",
        A.RevokeAuthTokensForUserRequest(username="pach:root"),
        UNKNOWN,
        "cannot revoke tokens for pach: users",
    ),
    ("GetUsers", A.GetUsersRequest(group="group:none"), Status.NOT_FOUND, "groups group:none not found"),
    (
        "ModifyMembers",
        A.ModifyMembersRequest(group="group:g", add=["ann"]),
        UNKNOWN,
        "subject has no prefix, must be of the form <type>:<name>",
    ),
    (
        "SetGroupsForUser",
        A.SetGroupsForUserRequest(username="github:ann"),
        UNKNOWN,
        "subject has unrecognized prefix: github:",
    ),
    (
        "RestoreAuthToken",
        A.RestoreAuthTokenRequest(token=A.TokenInfo(subject="robot:x", hashed_token="x", expiration={"seconds": 1})),
        Status.INTERNAL,
        "token expiration is in the past",
    ),
    (
        "ModifyRoleBinding",
        A.ModifyRoleBindingRequest(resource=on("CLUSTER"), principal="pach:root", roles=["repoReader"]),
        UNKNOWN,
        "cannot modify cluster role bindings for pach: users",
    ),
    (
        "ModifyRoleBinding",
        A.ModifyRoleBindingRequest(resource=on("SPEC_REPO", "default/x"), principal="robot:x"),
        UNKNOWN,
        "unknown resource type SPEC_REPO",
    ),
    (
        "ModifyRoleBinding",
        A.ModifyRoleBindingRequest(resource=on("PROJECT", "none"), principal="robot:x", roles=["projectOwner"]),
        UNKNOWN,
        "no role binding exists for PROJECT none",
    ),
    (
        "ModifyRoleBinding",
        A.ModifyRoleBindingRequest(resource=on("PROJECT", "none"), principal="robot:x", roles=["boss"]),
        UNKNOWN,
        'unknown role "boss"',
    ),
    (
        "GetPermissionsForPrincipal",
        A.GetPermissionsForPrincipalRequest(resource=on("REPO", "default/none"), principal="robot:x"),
        UNKNOWN,
        "cannot evaluate role binding: no role binding exists for REPO default/none",
    ),
    (
        "GetPermissions",
        A.GetPermissionsRequest(resource=on("REPO", "none/none")),
        UNKNOWN,
        "cannot get permissions for principal: cannot evaluate role binding: no role binding exists for PROJECT none",
    ),
    (
        "GetPermissions",
        A.GetPermissionsRequest(resource=on("REPO", "default/")),
        UNKNOWN,
        "cannot get permissions for principal: cannot evaluate role binding: no role binding exists for REPO default/",
    ),
    (
        "GetPermissions",
        A.GetPermissionsRequest(resource=on("REPO", "a/b/c")),
        UNKNOWN,
        "cannot get permissions for principal: cannot evaluate role binding: invalid resource name a/b/c",
    ),
    ("GetRoleBinding", A.GetRoleBindingRequest(resource=on("REPO", "default/none")), OK, ""),
    ("Authorize", A.AuthorizeRequest(resource=on("REPO", "a/b/c"), permissions=["REPO_READ"]), OK, ""),
]


@pytest.mark.parametrize(("method", "request_", "code", "words"), REQUESTS)
def test_requests_of_root(guarded: Guarded, method: str, request_: Message, code: Status, words: str) -> None:
    assert rpc(guarded.root, "auth", method, request_) == (code, words)


def test_what_is_not_there_and_what_may_not_be_touched(guarded: Guarded) -> None:
    create(guarded.root, "locked")
    put(guarded.root, "locked", "/a")
    eve = guarded.robot("eve")
    gone = "no role binding exists for REPO default/gone"
    locked = "REPO default/locked"
    project = pfs_pb2.Project
    table: list[tuple[str, Message | None, tuple[Status, str]]] = [
        (
            "InspectRepo",
            pfs_pb2.InspectRepoRequest(repo=repo("gone")),
            (Status.NOT_FOUND, "repo default/gone not found"),
        ),
        ("ListFile", pfs_pb2.ListFileRequest(file=file("gone")), (UNKNOWN, gone)),
        ("ListCommit", pfs_pb2.ListCommitRequest(repo=repo("gone")), (UNKNOWN, gone)),
        ("ListBranch", pfs_pb2.ListBranchRequest(repo=repo("gone")), (UNKNOWN, gone)),
        (
            "ListBranch",
            pfs_pb2.ListBranchRequest(repo=pfs_pb2.Repo(type="user")),
            (UNKNOWN, "no role binding exists for REPO default/"),
        ),
        ("ListBranch", None, (UNKNOWN, "Cannot list branches from all repos with auth activated")),
        (
            "StartCommit",
            pfs_pb2.StartCommitRequest(branch=branch("gone")),
            (UNKNOWN, f"start commit in transaction: {gone}"),
        ),
        (
            "StartCommit",
            pfs_pb2.StartCommitRequest(branch=branch("locked")),
            (DENIED, f"start commit in transaction: {lacks('robot:eve', 'REPO_WRITE', locked)}"),
        ),
        # what is wrong with a request comes before what its caller lacks
        (
            "StartCommit",
            pfs_pb2.StartCommitRequest(branch=pfs_pb2.Branch(repo=repo("locked"))),
            (UNKNOWN, "start commit in transaction: branch must be specified"),
        ),
        ("DeleteProject", pfs_pb2.DeleteProjectRequest(), (UNKNOWN, "invalid project name: nil project")),
        (
            "FinishCommit",
            pfs_pb2.FinishCommitRequest(commit=head("locked")),
            (DENIED, lacks("robot:eve", "REPO_WRITE", locked)),
        ),
        (
            "CreateRepo",
            pfs_pb2.CreateRepoRequest(repo=repo("locked"), description="mine", update=True),
            (DENIED, f'could not update description of "default/locked": {lacks("robot:eve", "REPO_WRITE", locked)}'),
        ),
        (
            "DeleteProject",
            pfs_pb2.DeleteProjectRequest(project=project(name="gone")),
            (UNKNOWN, 'user is not authorized to delete project "gone": no role binding exists for PROJECT gone'),
        ),
        (
            "DeleteProject",
            pfs_pb2.DeleteProjectRequest(project=project(name="default")),
            (
                DENIED,
                'user is not authorized to delete project "default": '
                + lacks("robot:eve", "PROJECT_DELETE PROJECT_MODIFY_BINDINGS", "PROJECT default"),
            ),
        ),
    ]
    for method, request, expected in table:
        assert rpc(eve, "pfs", method, request) == expected, method
    assert rpc(guarded.root, "pfs", "ListBranch", pfs_pb2.ListBranchRequest(repo=pfs_pb2.Repo(type="user")))[0] is OK


def test_pipelines_of_others(guarded: Guarded) -> None:
    create(guarded.root, "raw")
    guarded.root.pps.CreatePipeline(pipeline("others", "raw"))
    eve = guarded.robot("mallory")
    named = pps_pb2.Pipeline(name="others", project=pfs_pb2.Project(name="default"))
    write = lacks("robot:mallory", "REPO_WRITE", "REPO default/others")
    read = lacks("robot:mallory", "REPO_READ", "REPO default/raw")
    again, updated = pipeline("others", "raw"), pipeline("others", "raw")
    updated.update = True
    table: list[tuple[str, Message, tuple[Status, str]]] = [
        ("StopPipeline", pps_pb2.StopPipelineRequest(pipeline=named), (DENIED, write)),
        ("RerunPipeline", pps_pb2.RerunPipelineRequest(pipeline=named), (DENIED, read)),
        (
            "DeletePipeline",
            pps_pb2.DeletePipelineRequest(pipeline=named),
            (DENIED, f"error stopping pipeline default/others: {write}"),
        ),
        (
            "DeletePipelines",
            pps_pb2.DeletePipelinesRequest(all=True),
            (DENIED, f'stop pipeline "default/others": {write}'),
        ),
        ("CreatePipeline", again, (Status.ALREADY_EXISTS, 'pipeline "default/others" already exists')),
        ("CreatePipeline", updated, (DENIED, read)),
        ("CreatePipeline", pipeline("mine", "raw"), (DENIED, read)),
    ]
    for method, request, expected in table:
        assert rpc(eve, "pps", method, request) == expected, method
    guarded.bind("robot:mallory", "repoWriter", repo="default/others")
    delete = lacks("robot:mallory", "REPO_DELETE", "REPO default/others")
    for method, request in (
        ("DeletePipeline", pps_pb2.DeletePipelineRequest(pipeline=named)),
        ("DeletePipelines", pps_pb2.DeletePipelinesRequest(all=True)),
    ):
        assert rpc(eve, "pps", method, request) == (DENIED, delete)
    info = guarded.root.pps.InspectPipeline(pps_pb2.InspectPipelineRequest(pipeline=named))
    assert not info.stopped


def test_every_incomplete_edit_is_told(guarded: Guarded) -> None:
    edits = [
        metadata_pb2.Edit(),
        metadata_pb2.Edit(cluster={}, add_key={"key": "k"}),
        metadata_pb2.Edit(cluster={}),
        metadata_pb2.Edit(cluster={}, delete_key={}),
        metadata_pb2.Edit(replace={"replacement": {"": "v", "k": "v"}}),
    ]
    below = "embedded message failed validation | caused by: "
    short = ": value length must be at least 1 runes"
    assert rpc(guarded.root, "metadata", "EditMetadata", metadata_pb2.EditMetadataRequest(edits=edits)) == (
        Status.INVALID_ARGUMENT,
        f"validate request: invalid EditMetadataRequest.Edits[0]: {below}"
        "invalid Edit.Target: value is required; invalid Edit.Op: value is required; "
        f"invalid EditMetadataRequest.Edits[2]: {below}invalid Edit.Op: value is required; "
        f"invalid EditMetadataRequest.Edits[3]: {below}"
        f"invalid Edit.DeleteKey: {below}invalid Edit_DeleteKey.Key{short}; "
        f"invalid EditMetadataRequest.Edits[4]: {below}invalid Edit.Target: value is required; "
        f"invalid Edit.Replace: {below}invalid Edit_Replace.Replacement[]{short}",
    )


def test_access_control_ends_and_begins_anew(tmp_path: Path) -> None:
    """Nothing of the first time is left: no token, no role; what is there already belongs to nobody."""
    server = Pachd(tmp_path / "data")
    with running(server):
        with Client(server.address, timeout=30) as client:
            client.auth.Activate(A.ActivateRequest(root_token="first"))
        with Client(server.address, token="first", timeout=30) as root:
            create(root, "kept")
            root.auth.ModifyRoleBinding(
                A.ModifyRoleBindingRequest(
                    resource=on("REPO", "default/kept"), principal="robot:ann", roles=["repoOwner"]
                )
            )
            root.auth.Deactivate()
            assert rpc(root, "auth", "WhoAmI", None) == (Status.UNIMPLEMENTED, OFF)
            assert rpc(root, "pfs", "InspectRepo", pfs_pb2.InspectRepoRequest(repo=repo("kept"))) == (OK, "")
            made = root.auth.Activate().pach_token
            assert rpc(root, "auth", "WhoAmI", None) == (Status.UNAUTHENTICATED, BAD_TOKEN)
        with Client(server.address, token=made, timeout=30) as root:
            assert root.auth.WhoAmI().username == "pach:root"
            of_kept = A.GetRoleBindingRequest(resource=on("REPO", "default/kept"))
            assert not root.auth.GetRoleBinding(of_kept).binding.entries
