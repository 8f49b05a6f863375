"""Access control over the wire: who may do what, in Pachyderm's words, and who sees what."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.proto import auth_pb2, pfs_pb2, pps_pb2, transaction_pb2
from pachd.proto.auth_pb2 import Permission as P
from tests.auth.conftest import ROOT_TOKEN, Guarded
from tests.processes import ROOT, MountServer, Pachd, free_port, running


def repo(name: str, project: str = "default", kind: str = "user") -> pfs_pb2.Repo:
    return pfs_pb2.Repo(name=name, type=kind, project=pfs_pb2.Project(name=project))


def branch(name: str) -> pfs_pb2.Branch:
    return pfs_pb2.Branch(repo=repo(name), name="master")


def head(name: str) -> pfs_pb2.Commit:
    return pfs_pb2.Commit(repo=repo(name), branch=branch(name))


def file(name: str, path: str = "/") -> pfs_pb2.File:
    return pfs_pb2.File(commit=head(name), path=path)


def create(client: Client, name: str, project: str = "default") -> None:
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo(name, project)))


def put(client: Client, name: str, path: str, content: bytes = b"x") -> None:
    add = pfs_pb2.AddFile(path=path, raw={"value": content})
    client.pfs.ModifyFile([pfs_pb2.ModifyFileRequest(set_commit=head(name)), pfs_pb2.ModifyFileRequest(add_file=add)])


def refused(call: Callable[[], Any], *permissions: str, on: str) -> None:
    """Check that a call ends in Pachyderm's sentence about missing permissions."""
    with pytest.raises(RpcError) as caught:
        result = call()
        if not isinstance(result, pfs_pb2.FileInfo | pfs_pb2.Commit) and hasattr(result, "__next__"):
            list(result)
    assert caught.value.code is Status.PERMISSION_DENIED, caught.value
    words = f"is not authorized to perform this operation - needs permissions [{' '.join(permissions)}] on {on}. Run "
    assert words in caught.value.message, caught.value.message


def test_files_commits_and_branches_take_roles(guarded: Guarded) -> None:
    create(guarded.root, "vault")
    put(guarded.root, "vault", "/a")
    alice = guarded.robot("visitor")
    on = "REPO default/vault"
    pfs, reads = alice.pfs, pfs_pb2
    refused(lambda: put(alice, "vault", "/b"), "REPO_WRITE", on=on)
    refused(lambda: pfs.ListFile(reads.ListFileRequest(file=file("vault"))), "REPO_LIST_FILE", on=on)
    refused(lambda: pfs.InspectFile(reads.InspectFileRequest(file=file("vault", "/a"))), "REPO_INSPECT_FILE", on=on)
    both = ("REPO_READ", "REPO_LIST_FILE")
    refused(lambda: pfs.WalkFile(reads.WalkFileRequest(file=file("vault"))), *both, on=on)
    refused(lambda: pfs.GlobFile(reads.GlobFileRequest(commit=head("vault"), pattern="/*")), *both, on=on)
    refused(lambda: pfs.GetFile(reads.GetFileRequest(file=file("vault", "/a"))), "REPO_READ", on=on)
    refused(lambda: pfs.GetFileTAR(reads.GetFileRequest(file=file("vault", "/a"))), "REPO_READ", on=on)
    refused(lambda: pfs.DiffFile(reads.DiffFileRequest(new_file=file("vault"))), "REPO_READ", on=on)
    refused(lambda: pfs.GetFileSet(reads.GetFileSetRequest(commit=head("vault"))), "REPO_READ", on=on)
    refused(lambda: pfs.StartCommit(reads.StartCommitRequest(branch=branch("vault"))), "REPO_WRITE", on=on)
    refused(lambda: pfs.InspectCommit(reads.InspectCommitRequest(commit=head("vault"))), "REPO_INSPECT_COMMIT", on=on)
    refused(lambda: pfs.ListCommit(reads.ListCommitRequest(repo=repo("vault"))), "REPO_LIST_COMMIT", on=on)
    refused(lambda: pfs.SubscribeCommit(reads.SubscribeCommitRequest(repo=repo("vault"))), "REPO_INSPECT_COMMIT", on=on)
    refused(lambda: pfs.CreateBranch(reads.CreateBranchRequest(branch=branch("vault"))), "REPO_CREATE_BRANCH", on=on)
    refused(lambda: pfs.ListBranch(reads.ListBranchRequest(repo=repo("vault"))), "REPO_LIST_BRANCH", on=on)
    refused(lambda: pfs.DeleteBranch(reads.DeleteBranchRequest(branch=branch("vault"))), "REPO_DELETE_BRANCH", on=on)
    refused(
        lambda: pfs.DropCommitSet(reads.DropCommitSetRequest(commit_set=pfs_pb2.CommitSet(id="0"))),
        "REPO_DELETE_COMMIT",
        on="CLUSTER ",
    )
    with pytest.raises(RpcError, match="Cannot list branches from all repos with auth activated"):
        list(guarded.root.pfs.ListBranch(reads.ListBranchRequest()))
    assert not pfs.DeleteRepo(reads.DeleteRepoRequest(repo=repo("vault"))).deleted
    assert not pfs.DeleteRepos(reads.DeleteReposRequest(all=True)).repos

    guarded.bind("robot:visitor", "repoReader", repo="default/vault")
    assert [f.file.path for f in pfs.ListFile(reads.ListFileRequest(file=file("vault")))] == ["/a"]
    assert b"".join(b.value for b in pfs.GetFile(reads.GetFileRequest(file=file("vault", "/a")))) == b"x"
    refused(lambda: put(alice, "vault", "/b"), "REPO_WRITE", on=on)
    guarded.bind("robot:visitor", "repoOwner", repo="default/vault")
    put(alice, "vault", "/b")
    assert pfs.DeleteRepo(reads.DeleteRepoRequest(repo=repo("vault"))).deleted


def test_copying_takes_the_right_to_read_the_source(guarded: Guarded) -> None:
    create(guarded.root, "source")
    put(guarded.root, "source", "/a")
    thief = guarded.robot("thief")
    create(thief, "loot")
    copy = pfs_pb2.CopyFile(dst="/mine", src=file("source", "/a"))

    def steal() -> None:
        thief.pfs.ModifyFile(
            [pfs_pb2.ModifyFileRequest(set_commit=head("loot")), pfs_pb2.ModifyFileRequest(copy_file=copy)]
        )

    refused(steal, "REPO_READ", on="REPO default/source")
    refused(
        lambda: thief.pfs.CreateFileSet([pfs_pb2.ModifyFileRequest(copy_file=copy)]),
        "REPO_READ",
        on="REPO default/source",
    )
    guarded.bind("robot:thief", "repoReader", repo="default/source")
    steal()


def test_whoever_makes_something_owns_it(guarded: Guarded) -> None:
    maker = guarded.robot("maker")
    maker.pfs.CreateProject(pfs_pb2.CreateProjectRequest(project=pfs_pb2.Project(name="workshop")))
    create(maker, "bench", "workshop")
    info = maker.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=repo("bench", "workshop")))
    assert list(info.auth_info.roles) == ["projectOwner", "repoOwner"] and P.REPO_DELETE in info.auth_info.permissions
    project = maker.pfs.InspectProject(pfs_pb2.InspectProjectRequest(project=pfs_pb2.Project(name="workshop")))
    assert project.created_by == "robot:maker" and list(project.auth_info.roles) == ["projectOwner"]
    other = guarded.robot("other")
    refused(lambda: create(other, "mine", "workshop"), "PROJECT_CREATE_REPO", on="PROJECT workshop")
    with pytest.raises(RpcError, match='^user is not authorized to delete project "workshop": robot:other is not'):
        other.pfs.DeleteProject(pfs_pb2.DeleteProjectRequest(project=pfs_pb2.Project(name="workshop")))
    commit = maker.pfs.StartCommit(
        pfs_pb2.StartCommitRequest(branch=pfs_pb2.Branch(repo=repo("bench", "workshop"), name="master"))
    )
    started = maker.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=commit))
    assert started.created_by == "robot:maker"
    made = maker.pfs.InspectBranch(
        pfs_pb2.InspectBranchRequest(branch=pfs_pb2.Branch(repo=repo("bench", "workshop"), name="master"))
    )
    assert made.created_by == "robot:maker"


def test_listings_show_what_one_may_see(guarded: Guarded) -> None:
    root = guarded.root
    root.pfs.CreateProject(pfs_pb2.CreateProjectRequest(project=pfs_pb2.Project(name="hidden")))
    for name in ("one", "two"):
        create(root, name, "hidden")
    spy = guarded.robot("spy")

    def seen() -> list[str]:
        request = pfs_pb2.ListRepoRequest(type="user", projects=[pfs_pb2.Project(name="hidden")])
        return sorted(info.repo.name for info in spy.pfs.ListRepo(request))

    def summed() -> list[int]:
        picker = pfs_pb2.ProjectPicker(name="hidden")
        reply = spy.pfs.ReposSummary(pfs_pb2.ReposSummaryRequest(projects=[picker]))
        return [summary.user_repo_count for summary in reply.summaries]

    assert (seen(), summed()) == ([], [])
    guarded.bind("robot:spy", "repoReader", repo="hidden/two")
    assert (seen(), summed()) == (["two"], [1])
    guarded.bind("robot:spy", "projectViewer", project="hidden")
    assert (seen(), summed()) == (["one", "two"], [2])
    infos = {info.project.name: info for info in spy.pfs.ListProject(pfs_pb2.ListProjectRequest())}
    assert list(infos["hidden"].auth_info.roles) == ["projectViewer"]


def test_transactions_are_checked_request_by_request(guarded: Guarded) -> None:
    create(guarded.root, "locked")
    user = guarded.robot("tx")
    start = transaction_pb2.TransactionRequest(start_commit=pfs_pb2.StartCommitRequest(branch=branch("locked")))
    refused(
        lambda: user.transaction.BatchTransaction(transaction_pb2.BatchTransactionRequest(requests=[start])),
        "REPO_WRITE",
        on="REPO default/locked",
    )
    transaction = user.transaction.StartTransaction(transaction_pb2.StartTransactionRequest())
    inside = {"pach-transaction": transaction.id}
    user.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo("fresh")), metadata=inside)
    user.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=branch("fresh")), metadata=inside)  # its own a moment later
    refused(
        lambda: user.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=branch("locked")), metadata=inside),
        "REPO_WRITE",
        on="REPO default/locked",
    )
    user.pfs.DeleteRepo(pfs_pb2.DeleteRepoRequest(repo=repo("locked")), metadata=inside)  # passed over in silence
    user.transaction.FinishTransaction(transaction_pb2.FinishTransactionRequest(transaction=transaction))
    names = {info.repo.name for info in user.pfs.ListRepo(pfs_pb2.ListRepoRequest(type="user"))}
    assert {"fresh", "locked"} <= names
    # somebody else's log is executed with one's own rights
    theirs = guarded.root.transaction.StartTransaction(transaction_pb2.StartTransactionRequest())
    guarded.root.pfs.StartCommit(
        pfs_pb2.StartCommitRequest(branch=branch("locked")), metadata={"pach-transaction": theirs.id}
    )
    refused(
        lambda: user.transaction.FinishTransaction(transaction_pb2.FinishTransactionRequest(transaction=theirs)),
        "REPO_WRITE",
        on="REPO default/locked",
    )


def pipeline(name: str, source: str) -> pps_pb2.CreatePipelineRequest:
    return pps_pb2.CreatePipelineRequest(
        pipeline=pps_pb2.Pipeline(name=name, project=pfs_pb2.Project(name="default")),
        transform=pps_pb2.Transform(cmd=["sh"], stdin=[f"cp /pfs/{source}/* /pfs/out/", "echo done"]),
        input=pps_pb2.Input(pfs=pps_pb2.PFSInput(repo=source, glob="/*")),
    )


def wait(client: Client, name: str) -> pps_pb2.JobInfo:
    for _ in range(1200):
        request = pps_pb2.ListJobRequest(pipeline=pps_pb2.Pipeline(name=name, project=pfs_pb2.Project(name="default")))
        jobs = list(client.pps.ListJob(request))
        if jobs and jobs[0].state in (pps_pb2.JOB_SUCCESS, pps_pb2.JOB_FAILURE):
            return jobs[0]  # type: ignore[no-any-return]
        time.sleep(0.1)
    raise AssertionError(f"the job of {name} did not end")


def test_pipelines_run_and_are_guarded(guarded: Guarded) -> None:
    create(guarded.root, "scans")
    put(guarded.root, "scans", "/a", b"scan")
    ann = guarded.robot("ann")
    refused(lambda: ann.pps.CreatePipeline(pipeline("copy", "scans")), "REPO_READ", on="REPO default/scans")
    guarded.bind("robot:ann", "repoReader", repo="default/scans")
    ann.pps.CreatePipeline(pipeline("copy", "scans"))
    assert wait(ann, "copy").state == pps_pb2.JOB_SUCCESS
    out = b"".join(b.value for b in ann.pfs.GetFile(pfs_pb2.GetFileRequest(file=file("copy", "/a"))))
    assert out == b"scan"

    def binding(name: str) -> dict[str, list[str]]:
        resource = auth_pb2.Resource(type="REPO", name=f"default/{name}")
        reply = guarded.root.auth.GetRoleBinding(auth_pb2.GetRoleBindingRequest(resource=resource))
        return {who: sorted(roles.roles) for who, roles in reply.binding.entries.items()}

    named = pps_pb2.Pipeline(name="copy", project=pfs_pb2.Project(name="default"))
    about = ann.pps.InspectPipeline(pps_pb2.InspectPipelineRequest(pipeline=named, details=True))
    assert about.details.created_by == "robot:ann"
    me = "pipeline:default/copy"
    assert binding("copy") == {"robot:ann": ["repoOwner"], me: ["repoWriter"]}
    assert binding("scans")[me] == ["repoReader"]

    bob = guarded.robot("bob")
    on = "REPO default/copy"
    refused(lambda: bob.pps.ListJob(pps_pb2.ListJobRequest(pipeline=named)), "PIPELINE_LIST_JOB", on=on)
    refused(lambda: bob.pps.GetLogs(pps_pb2.GetLogsRequest(pipeline=named)), "REPO_READ", on="REPO default/scans")
    refused(lambda: bob.pps.GetLogs(pps_pb2.GetLogsRequest()), "CLUSTER_GET_PACHD_LOGS", on="CLUSTER ")
    refused(lambda: bob.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=named)), "REPO_WRITE", on=on)
    refused(lambda: bob.pps.DeletePipeline(pps_pb2.DeletePipelineRequest(pipeline=named)), "REPO_DELETE", on=on)
    spec = json.dumps({"pipeline": {"name": "copy2"}, "input": {"pfs": {"repo": "scans", "glob": "/"}}})
    v2 = pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=spec)
    refused(lambda: bob.pps.CreatePipelineV2(v2), "REPO_READ", on="REPO default/scans")
    update = pipeline("copy", "scans")
    update.update = True
    guarded.bind("robot:bob", "repoReader", repo="default/scans")
    refused(lambda: bob.pps.CreatePipeline(update), "REPO_WRITE", on=on)
    datums = pps_pb2.CreateDatumRequest(start=pps_pb2.StartCreateDatumRequest(input=update.input))
    assert len(list(bob.pps.CreateDatum([datums]))) == 1
    guarded.bind("robot:bob", repo="default/scans")
    refused(lambda: bob.pps.CreateDatum([datums]), "REPO_READ", "REPO_LIST_FILE", on="REPO default/scans")
    secret = pps_pb2.CreateSecretRequest(file=b'{"kind": "Secret", "metadata": {"name": "s"}}')
    refused(lambda: bob.pps.CreateSecret(secret), "CLUSTER_CREATE_SECRET", on="CLUSTER ")

    ann.pps.DeletePipeline(pps_pb2.DeletePipelineRequest(pipeline=named))
    assert me not in binding("scans") and binding("copy") == {}


def test_the_metadata_of_others_is_theirs(guarded: Guarded) -> None:
    from pachd.proto import metadata_pb2

    create(guarded.root, "noted")
    user = guarded.robot("scribbler")
    edit = metadata_pb2.Edit(add_key={"key": "k", "value": "v"})
    edit.repo.name.name = "noted"
    request = metadata_pb2.EditMetadataRequest(edits=[edit])
    with pytest.raises(RpcError, match='^apply edits: edit #0: check permissions on repo "default/noted.user": robot:'):
        user.metadata.EditMetadata(request)
    guarded.bind("robot:scribbler", "repoWriter", repo="default/noted")
    user.metadata.EditMetadata(request)


def test_tokens_expire_and_are_revoked(guarded: Guarded) -> None:
    for ttl in (1, 4, 16, 64):  # longer where the machine is busy with other things
        now = time.time()
        brief = guarded.robot("brief", ttl=ttl)
        try:
            who = brief.auth.WhoAmI()
            break
        except RpcError as error:
            assert "token expiration is in the past" in str(error)
    assert who.username == "robot:brief" and now + ttl - 1 <= who.expiration.seconds <= time.time() + ttl
    time.sleep(max(0.0, who.expiration.seconds + 1.1 - time.time()))
    with pytest.raises(RpcError, match="token expiration is in the past"):
        brief.auth.WhoAmI()
    guarded.root.auth.DeleteExpiredAuthTokens()
    with pytest.raises(RpcError, match="provided auth token is corrupted or has expired"):
        brief.auth.WhoAmI()
    fired = guarded.robot("fired")
    refused(
        lambda: fired.auth.RevokeAuthTokensForUser(auth_pb2.RevokeAuthTokensForUserRequest(username="pach:root")),
        "CLUSTER_AUTH_REVOKE_USER_TOKENS",
        on="CLUSTER ",
    )
    gone = guarded.root.auth.RevokeAuthTokensForUser(auth_pb2.RevokeAuthTokensForUserRequest(username="robot:fired"))
    assert gone.number == 1
    with pytest.raises(RpcError, match="corrupted or has expired"):
        list(fired.pfs.ListRepo(pfs_pb2.ListRepoRequest()))


def test_authorize_and_groups(guarded: Guarded) -> None:
    create(guarded.root, "grouped")
    user = guarded.robot("member")
    resource = auth_pb2.Resource(type="REPO", name="default/grouped")
    request = auth_pb2.AuthorizeRequest(resource=resource, permissions=[P.REPO_READ, P.REPO_DELETE])
    reply = user.auth.Authorize(request)
    assert (reply.authorized, list(reply.satisfied), reply.principal) == (False, [], "robot:member")
    add = auth_pb2.ModifyMembersRequest(group="group:readers", add=["robot:member"])
    guarded.root.auth.ModifyMembers(add)
    guarded.bind("group:readers", "repoReader", repo="default/grouped")
    reply = user.auth.Authorize(request)
    assert (list(reply.satisfied), list(reply.missing)) == ([P.REPO_READ], [P.REPO_DELETE])
    assert list(user.auth.GetGroups().groups) == ["group:readers"]
    users = guarded.root.auth.GetUsers(auth_pb2.GetUsersRequest(group="group:readers"))
    assert list(users.usernames) == ["robot:member"]


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, **env},
    )


def test_the_command_line_passes_a_token(guarded: Guarded) -> None:
    create(guarded.root, "asked")
    put(guarded.root, "asked", "/a")
    ask = ("howdah", "lineage", "asked@master", "--json", "--pachd-address", guarded.server.address)
    without = run(*ask)
    assert without.returncode == 1 and "no authentication token" in without.stderr and "PACH_TOKEN" in without.stderr
    for answer in (run(*ask, "--token", ROOT_TOKEN), run(*ask, PACH_TOKEN=ROOT_TOKEN)):
        assert answer.returncode == 0, answer.stderr
        assert "asked" in answer.stdout


def test_the_mount_server_passes_a_token(guarded: Guarded, tmp_path: Path) -> None:
    create(guarded.root, "mounted")
    put(guarded.root, "mounted", "/a.txt", b"hello")
    token = tmp_path / "token"
    token.write_text(f"{ROOT_TOKEN}\n")
    server = MountServer(tmp_path / "mount", guarded.server.address)
    server.command += ["--pachd-token-file", str(token), "-r", "mounted@master+w"]
    with running(server):
        assert (server.mount_dir / "mounted" / "a.txt").read_text() == "hello"
        (server.mount_dir / "mounted" / "b.txt").write_text("from the mount")
        status, body = server.call("PUT", "/_commit", {"mount": "mounted"})
        assert status == 200 and body["commit"]["files_added"] == 1, body
        server.stop()
    info = guarded.root.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=head("mounted")))
    assert info.created_by == "pach:root"


def test_a_token_file_switches_access_control_on_and_keeps_it_on(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    with running(server):  # what was there before
        with Client(server.address, timeout=30) as client:
            create(client, "old")
        server.stop()
        token = tmp_path / "token"
        token.write_text("first")
        server.command += ["--token-file", str(token)]
        server.start()
        with Client(server.address, timeout=30) as stranger, pytest.raises(RpcError, match="no authentication token"):
            create(stranger, "new")
        with Client(server.address, token="first", timeout=30) as root:
            assert root.auth.WhoAmI().username == "pach:root"
            robot = root.auth.GetRobotToken(auth_pb2.GetRobotTokenRequest(robot="r")).token
            with Client(server.address, token=robot, timeout=30) as user:
                create(user, "new")
                refused(lambda: put(user, "old", "/a"), "REPO_WRITE", on="REPO default/old")
            with pytest.raises(RpcError, match="was started with its root token"):
                root.auth.Deactivate()
            with pytest.raises(RpcError, match="is disabled when the root token is configured"):
                root.auth.RotateRootToken()
        server.stop()
        token.write_text("second")  # a new root token; the robot's stays
        server.start()
        with Client(server.address, token="first", timeout=30) as root, pytest.raises(RpcError, match="corrupted"):
            root.auth.WhoAmI()
        for known, name in (("second", "pach:root"), (robot, "robot:r")):
            with Client(server.address, token=known, timeout=30) as client:
                assert client.auth.WhoAmI().username == name
        server.stop()
        server.command = server.command[:-2]  # active all the same
        server.start()
        with Client(server.address, token="second", timeout=30) as root:
            root.auth.Deactivate()
            with pytest.raises(RpcError, match="the auth service is not activated"):
                root.auth.WhoAmI()
            create(root, "free")


@pytest.mark.parametrize("how", ["nothing", "empty token file"])
def test_listening_for_strangers_is_refused(tmp_path: Path, how: str) -> None:
    more = []
    if how == "empty token file":
        (tmp_path / "token").touch()
        more = ["--token-file", str(tmp_path / "token")]
    done = run("pachd", "--data", str(tmp_path / "data"), "--address", f"0.0.0.0:{free_port()}", *more)
    assert done.returncode == 1
    assert ("is empty" if more else "can be reached from other machines") in done.stderr
    assert "Traceback" not in done.stderr


def test_listening_for_strangers_can_be_asked_for(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    server.command[server.command.index("--address") + 1] = f"0.0.0.0:{server.port}"
    server.command.append("--insecure")
    with running(server), Client(server.address, timeout=30) as client:
        create(client, "open")


def test_a_transaction_is_no_way_around_a_check(guarded: Guarded) -> None:
    """Only requests that are really collected in a transaction are asked about later."""
    create(guarded.root, "bypass")
    put(guarded.root, "bypass", "/a")
    user = guarded.robot("sly")
    on = "REPO default/bypass"
    for inside in ({"pach-transaction": "0" * 32}, {"pach-transaction": user.transaction.StartTransaction().id}):
        refused(
            lambda i=inside: user.pfs.ListFile(pfs_pb2.ListFileRequest(file=file("bypass")), metadata=i),  # type: ignore[misc]
            "REPO_LIST_FILE",
            on=on,
        )
        refused(
            lambda i=inside: user.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=head("bypass")), metadata=i),  # type: ignore[misc]
            "REPO_INSPECT_COMMIT",
            on=on,
        )
        refused(
            lambda i=inside: user.pfs.ClearCommit(pfs_pb2.ClearCommitRequest(commit=head("bypass")), metadata=i),  # type: ignore[misc]
            "REPO_WRITE",
            on=on,
        )


def test_two_names_in_a_request_are_both_asked_about(guarded: Guarded) -> None:
    create(guarded.root, "plain")
    create(guarded.root, "ticks")
    user = guarded.robot("twofold")
    create(user, "own")
    # a branch of one's own beside a commit of somebody else's
    commit = pfs_pb2.Commit(repo=repo("plain"), branch=branch("own"))
    refused(
        lambda: user.pfs.ListFile(pfs_pb2.ListFileRequest(file=pfs_pb2.File(commit=commit, path="/"))),
        "REPO_LIST_FILE",
        on="REPO default/plain",
    )
    # logs of a job of another project's pipeline beside a pipeline of the same name
    guarded.root.pfs.CreateProject(pfs_pb2.CreateProjectRequest(project=pfs_pb2.Project(name="far")))
    guarded.root.pps.CreatePipeline(pipeline("twin", "plain"))
    mine, theirs = pps_pb2.Pipeline(name="twin"), pps_pb2.Pipeline(name="twin")
    mine.project.name, theirs.project.name = "far", "default"
    job = pps_pb2.Job(id="0" * 32, pipeline=theirs)
    refused(
        lambda: user.pps.GetLogs(pps_pb2.GetLogsRequest(pipeline=mine, job=job)),
        "REPO_READ",
        on="REPO default/plain",
    )
    # a cron input is written to, a triggered one is given a branch
    spec = pipeline("sneaky", "own")
    spec.input.pfs.CopyFrom(pps_pb2.PFSInput())
    spec.input.ClearField("pfs")
    spec.input.cron.CopyFrom(pps_pb2.CronInput(name="tick", repo="ticks", spec="@every 1h"))
    refused(lambda: user.pps.CreatePipeline(spec), "REPO_ADD_PIPELINE_WRITER", on="REPO default/ticks")
    guarded.bind("robot:twofold", "repoReader", repo="default/plain")
    triggered = pipeline("sneaky", "plain")
    triggered.input.pfs.trigger.CopyFrom(pfs_pb2.Trigger(branch="master", commits=1))
    refused(lambda: user.pps.CreatePipeline(triggered), "REPO_CREATE_BRANCH", on="REPO default/plain")
