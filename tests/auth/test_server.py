"""Access control over the wire: who may do what, in Pachyderm's words, and who sees what."""

import pytest

from pachd.client import RpcError
from pachd.proto import pfs_pb2, pps_pb2, transaction_pb2
from pachd.proto.auth_pb2 import Permission as P
from tests.auth.conftest import Guarded
from tests.auth.helpers import branch, create, file, head, pipeline, put, refused, repo


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


def test_the_metadata_of_others_is_theirs(guarded: Guarded) -> None:
    from pachd.proto import metadata_pb2

    create(guarded.root, "noted")
    user = guarded.robot("scribbler")
    edit = metadata_pb2.Edit(add_key={"key": "k", "value": "v"})
    edit.repo.name.name = "noted"
    edit.repo.name.project.name = "default"
    request = metadata_pb2.EditMetadataRequest(edits=[edit])
    with pytest.raises(RpcError, match='^apply edits: edit #0: check permissions on repo "default/noted.user": robot:'):
        user.metadata.EditMetadata(request)
    guarded.bind("robot:scribbler", "repoWriter", repo="default/noted")
    user.metadata.EditMetadata(request)


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
    refused(lambda: user.pps.CreatePipeline(spec), "REPO_ADD_PIPELINE_READER", on="REPO default/ticks")
    guarded.bind("robot:twofold", "repoReader", repo="default/ticks")
    refused(lambda: user.pps.CreatePipeline(spec), "REPO_ADD_PIPELINE_WRITER", on="REPO default/ticks")
    guarded.bind("robot:twofold", "repoReader", repo="default/plain")
    triggered = pipeline("sneaky", "plain")
    triggered.input.pfs.trigger.CopyFrom(pfs_pb2.Trigger(branch="master", commits=1))
    refused(lambda: user.pps.CreatePipeline(triggered), "REPO_CREATE_BRANCH", on="REPO default/plain")
