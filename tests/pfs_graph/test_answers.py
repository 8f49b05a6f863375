"""The order of checks, of lists and of commits in one transaction, as Pachyderm's source has them."""

import pytest

from pachd.errors import FailedPrecondition, NotFound, PachError
from pachd.pfs import (
    branches,
    check,
    commits,
    commitsets,
    filesets,
    history,
    hooks,
    metadata,
    projects,
    refs,
    repos,
    transactions,
    writing,
)
from pachd.pfs.modify import Modification, modify_file
from pachd.proto import metadata_pb2, pfs_pb2, transaction_pb2
from pachd.store import Store, Txn
from pachd.types import Branch, Repo
from tests.pfs_graph.test_graph import A, B, C, chain, finish, make, master, put

ID = "0" * 12 + "4" + "0" * 19


def request(**what: object) -> transaction_pb2.TransactionRequest:
    return transaction_pb2.TransactionRequest(**what)


def test_walks_leave_out_where_they_start_and_go_level_by_level(store: Store) -> None:
    chain(store)
    with store.read() as txn:

        def walked(found: object) -> list[str]:
            return [info.branch.repo.name for info in found]  # type: ignore[attr-defined]

        assert walked(branches.walk_provenance(txn, [master(C)])) == ["b", "a"]
        assert walked(branches.walk_provenance(txn, [master(C)], max_depth=1)) == ["b"]
        assert walked(branches.walk_subvenance(txn, [master(A)], max_branches=1)) == ["b"]
        assert walked(branches.walk_provenance(txn, [master(C), master(B)])) == ["b", "a", "a"]
        rows = [refs.resolve_commit(txn, (repo, "master")) for repo in (C, A)]
        assert [i.commit.repo.name for i in commitsets.walk_provenance(txn, rows)] == ["b", "a"]
        assert [i.commit.repo.name for i in commitsets.walk_subvenance(txn, rows)] == ["b", "c"]
        assert [i.commit.repo.name for i in commitsets.walk_subvenance(txn, rows, max_depth=1)] == ["b"]


def test_a_branch_is_made_on_the_heads_of_that_moment(store: Store) -> None:
    make(store, A, B)
    old = put(store, A, "/old")
    requests = [
        request(create_branch={"branch": refs.branch_pb(master(B)), "provenance": [refs.branch_pb(master(A))]}),
        request(start_commit={"branch": refs.branch_pb(master(A))}),
    ]
    with writing(store) as txn:
        done = transactions.batch(txn, requests)
    with store.read() as txn:
        made = refs.resolve_commit(txn, (B, "master"))
        assert made.id == done.transaction.id == refs.resolve_commit(txn, (A, "master")).id
        assert [p.id for p in commits.commit_info(txn, made).direct_provenance] == [old]


def test_a_head_and_a_new_provenance_together(store: Store) -> None:
    make(store, A, B)
    put(store, A, "/f")
    first, _second = put(store, B, "/1"), put(store, B, "/2")
    with writing(store) as txn:
        head = refs.resolve_commit(txn, (B, first)).key
        branches.create_branch(txn, master(B), head=head, provenance=[master(A)])
    with store.read() as txn:
        made = refs.resolve_commit(txn, (B, "master"))
        above = refs.parent(txn, made)
        assert above is not None and above.id == first and made.origin == pfs_pb2.AUTO


def test_a_missing_head_is_told_before_a_provenance_of_ones_own(store: Store) -> None:
    make(store, A)
    with pytest.raises(NotFound, match="unable to inspect default/a@nope"), writing(store) as txn:
        head = pfs_pb2.Commit(repo=refs.repo_pb(A), branch=pfs_pb2.Branch(name="nope"))
        branches.create_branch(txn, master(A), head=head, provenance=[Branch(A, "other")])
    with pytest.raises(PachError, match=r"name \(a b\) invalid"), writing(store) as txn:
        branches.create_branch(txn, master(A), head=head, provenance=[Branch(A, "a b")])
    with store.read() as txn:
        assert not list(branches.list_branches(txn, A))


def test_words_about_branches(store: Store) -> None:
    make(store, A)
    gone = Branch(Repo("default", "gone"), "x")
    with pytest.raises(NotFound) as caught, writing(store) as txn:
        branches.delete_branch(txn, gone)
    assert str(caught.value) == (
        'get branch "default/gone.user@x": repo (id=0, project=default, name=gone, type=user) not found\n'
        "branch (id=0, branch=default/gone@x) not found"
    )
    with pytest.raises(PachError, match="^create branch: update head: branch name cannot be a UUID V4$"):
        with writing(store) as txn:
            branches.create_branch(txn, Branch(A, ID))
    with pytest.raises(PachError, match="^create commit: create commit: update head: branch name cannot be a UUID V4$"):
        with writing(store) as txn:
            commits.start_commit(txn, Branch(A, ID))
    spec = {"branch": refs.branch_pb(master(B)), "propagation_spec": {"never": False}}
    with pytest.raises(PachError, match="branch propagation spec must reference provenant branch"):
        with writing(store) as txn:
            transactions.create_branch(
                txn, pfs_pb2.CreateBranchRequest(branch=refs.branch_pb(master(A)), branch_propagation_specs=[spec])
            )


def test_every_refusal_to_start_a_commit_says_where(store: Store) -> None:
    chain(store)
    finish(store, B)
    for branch, error in (
        (Branch(Repo("default", "gone"), "x"), "repo default/gone not found"),
        (Branch(A, "a b"), "name (a b) invalid: only alphanumeric characters, underscores, and dashes are allowed"),
        (master(B), "cannot start a commit on an output branch: default/b@master"),
        (master(C), "create commit: parent commit default/c@"),
    ):
        with pytest.raises(PachError) as caught, writing(store) as txn:
            transactions.start_commit(txn, pfs_pb2.StartCommitRequest(branch=refs.branch_pb(branch)))
        assert str(caught.value).startswith(f"start commit in transaction: {error}")


def test_a_trigger_counts_the_first_commit_of_a_user(store: Store) -> None:
    make(store, A)
    put(store, A, "/1")
    with writing(store) as txn:
        head = refs.resolve_commit(txn, (A, "master")).key
        trigger = pfs_pb2.Trigger(branch="master", commits=2)
        branches.create_branch(txn, Branch(A, "every"), head=head, trigger=trigger)
    second = put(store, A, "/2")
    with store.read() as txn:
        assert refs.resolve_commit(txn, (A, "every")).id == second
    put(store, A, "/3")
    with store.read() as txn:
        assert refs.resolve_commit(txn, (A, "every")).id == second, "one commit since"


def test_lists_are_in_pachyderms_order(store: Store) -> None:
    with writing(store) as txn:
        for name in ("z", "b"):
            projects.create_project(txn, name)
        for project, name in (("z", "a"), ("default", "b"), ("b", "c"), ("default", "_a")):
            repos.create_repo(txn, Repo(project, name))
        older = transactions.start(txn)
    with writing(store) as txn:
        newer = transactions.start(txn)
    with store.read() as txn:
        found = [(info.repo.project.name, info.repo.name) for info in repos.list_repos(txn)]
        assert found == [("b", "c"), ("default", "_a"), ("default", "b"), ("z", "a")]
        assert [i.transaction.id for i in transactions.list_all(txn)] == [newer.transaction.id, older.transaction.id]
    with writing(store) as txn:
        deleted = repos.delete_repos(txn, None)
    assert [(repo.project.name, repo.name) for repo in deleted] == found


def test_commits_of_all_repos_backwards(store: Store) -> None:
    chain(store)
    put(store, A, "/f")
    with store.read() as txn:
        every = pfs_pb2.ListCommitRequest(repo=pfs_pb2.Repo(), all=True)
        names = [info.commit.repo.name for info in commits.list_commits(txn, every)]
        assert names[:3] == ["c", "b", "a"]
        every.reverse = True
        infos = list(commits.list_commits(txn, every))
        assert [info.commit.repo.name for info in infos][-3:] == ["c", "b", "a"], "one transaction's, the newest first"
        times = [info.started.ToNanoseconds() for info in infos]
        assert times == sorted(times)


def test_what_is_no_request_of_a_transaction(store: Store) -> None:
    with pytest.raises(PachError, match="^error running request 1 of 1: unrecognized transaction request type$"):
        with writing(store) as txn:
            transactions.batch(txn, [request()])


def test_projects(store: Store) -> None:
    with writing(store) as txn:
        projects.create_project(txn, "full")
        for name in ("y", "x"):
            repos.create_repo(txn, Repo("full", name))
    with pytest.raises(FailedPrecondition) as caught, writing(store) as txn:
        projects.delete_project(txn, "full")
    assert str(caught.value) == "cannot delete project full: repo full/x still exists\nrepo full/y still exists"
    for name, error in (
        ("-x", "invalid project name: project names must start with an alphanumeric character"),
        (
            "a b" + "c" * 51,
            f'invalid project name: project name "a b{"c" * 51}" is 3 characters longer than the 51 max',
        ),
    ):
        with pytest.raises(PachError) as refused, writing(store) as txn:
            projects.create_project(txn, name)
        assert str(refused.value) == error
    with pytest.raises(NotFound) as missing, writing(store) as txn:
        projects.create_project(txn, "nope", update=True)
    assert str(missing.value) == 'get project nope: get project by name: project "nope" not found'


def test_a_reserved_name(store: Store) -> None:
    with pytest.raises(PachError, match="^__filesets__ is a reserved name$"), writing(store) as txn:
        repos.create_repo(txn, Repo("default", "__filesets__"))


def test_a_key_that_is_there_already(store: Store) -> None:
    make(store, A)
    name = pfs_pb2.RepoPicker.RepoName(project=pfs_pb2.ProjectPicker(name="default"), name="a")
    edit = metadata_pb2.Edit(repo=pfs_pb2.RepoPicker(name=name), add_key={"key": "k", "value": "v"})
    with writing(store) as txn:
        metadata.edit(txn, [edit])
    with pytest.raises(FailedPrecondition, match='edit #1: edit repo "default/a.user": add_key target key "k" already'):
        with writing(store) as txn:
            metadata.edit(txn, [metadata_pb2.Edit(project={"name": "default"}, add_key={"key": "k"}), edit])
    with pytest.raises(PachError) as caught, writing(store) as txn:
        metadata.edit(txn, [metadata_pb2.Edit(project={"name": "nope"}, add_key={"key": "k"})])
    assert type(caught.value) is PachError
    assert str(caught.value) == 'apply edits: edit #0: pick project: picking project: project "nope" not found'


def test_a_head_cannot_be_a_forgotten_commit(store: Store) -> None:
    chain(store)
    finish(store, B)
    forgotten = put(store, A, "/1")
    finish(store, B)
    put(store, A, "/2")
    finish(store, B)
    with writing(store) as txn:
        commits.forget_commit(txn, refs.resolve_commit(txn, (B, forgotten)))
    with pytest.raises(PachError, match="the branch head cannot be a forgotten commit"), writing(store) as txn:
        branches.create_branch(txn, Branch(B, "old"), head=refs.resolve_commit(txn, (B, forgotten)).key)


def test_only_commits_that_were_finished_tell_how_long_that_took(store: Store) -> None:
    chain(store)
    with store.read() as txn:
        made = commits.commit_info(txn, refs.resolve_commit(txn, (A, "master")))
    assert made.HasField("finished") and made.HasField("details")
    assert not made.details.HasField("compacting_time") and not made.details.HasField("validating_time")
    finish(store, B)
    put(store, A, "/f")
    with store.read() as txn:
        for commit in (A, "master"), (B, "master^"):
            info = commits.commit_info(txn, refs.resolve_commit(txn, commit))
            assert info.details.HasField("compacting_time") and info.details.HasField("validating_time")


def test_a_store_with_a_forgotten_commit_is_sound(store: Store) -> None:
    chain(store)
    finish(store, B)
    put(store, A, "/1")
    with store.read() as txn:
        forgotten = refs.resolve_commit(txn, (B, "master"))
    target = pfs_pb2.Commit(repo=refs.repo_pb(B), id=forgotten.id)
    with Modification(store) as modification, writing(store) as txn:
        modification.append("/f", b"abc")
        modify_file(txn, target, modification)
    finish(store, B)
    put(store, A, "/2")
    finish(store, B)
    with writing(store) as txn:
        commits.forget_commit(txn, refs.resolve_commit(txn, (B, forgotten.id)))
    with store.read() as txn:
        assert list(check.check(txn, rehash=True)) == []
        listed = list(commits.list_commits(txn, pfs_pb2.ListCommitRequest(repo=refs.repo_pb(B))))
        assert [info.details.size_bytes for info in listed] == [3, 3, 0]
        with pytest.raises(PachError, match="^the commit is forgotten$"):
            filesets.tree_of(txn, refs.resolve_commit(txn, (B, forgotten.id)))
        head = refs.resolve_commit(txn, (B, "master"))
        found = [each.pk for each in history.search(txn, head.pk, "/f") if each.changed]
        assert found == [head.pk], "what was built on it keeps the file, and has it from nobody that is known"


def test_a_directory_is_not_deleted_before_one_can_know_what_is_in_it(store: Store) -> None:
    chain(store)
    put(store, A, "/f")
    with store.read() as txn:
        head = refs.resolve_commit(txn, (B, "master"))
        above = refs.parent(txn, head)
    assert above is not None
    target = pfs_pb2.Commit(repo=refs.repo_pb(B), branch=refs.branch_pb(master(B)))
    for path in ("/d", "/d/"):
        with Modification(store) as modification:
            modification.delete(path)
            if path == "/d":
                with writing(store) as txn:
                    modify_file(txn, target, modification)
                continue
            with pytest.raises(PachError) as caught, writing(store) as txn:
                modify_file(txn, target, modification)
    assert str(caught.value) == f"base commit default/b@{above.id} for commit default/b@{head.id} unfinished"
    finish(store, B, above.id)
    with Modification(store) as modification, writing(store) as txn:
        modification.delete("/d/")
        modify_file(txn, target, modification)


def test_all_branches_come_by_how_much_is_above_them(store: Store) -> None:
    chain(store)
    with writing(store) as txn:
        branches.create_branch(txn, Branch(A, "late"))
    with store.read() as txn:

        def names(repo: Repo | None, reverse: bool = False) -> list[str]:
            return [f"{i.branch.repo.name}@{i.branch.name}" for i in branches.list_branches(txn, repo, reverse)]

        assert names(None) == ["a@late", "a@master", "b@master", "c@master"]
        assert names(None, reverse=True) == ["c@master", "b@master", "a@master", "a@late"]
        assert names(A) == ["a@late", "a@master"]
        assert names(Repo("default", "")) == ["a@late", "c@master", "b@master", "a@master"]
        assert names(Repo("other", "")) == []


def test_repos_of_a_pipeline_are_not_deleted(store: Store) -> None:
    out, spec, meta = (Repo("default", "p", type) for type in ("user", "spec", "meta"))

    def delete(txn: Txn, repo: Repo) -> bool:
        return transactions.delete_repo(txn, pfs_pb2.DeleteRepoRequest(repo=refs.repo_pb(repo)))

    make(store, out, spec, meta)
    with writing(store) as txn:
        assert delete(txn, meta) and delete(txn, spec)
    make(store, spec, meta)
    with writing(store) as txn:
        commits.finish_commit(txn, commits.start_commit(txn, master(spec)))
        assert delete(txn, spec), "a spec that somebody wrote makes no pipeline"
    make(store, spec)
    hooks.connect(store, hooks.Hooks(has_pipeline=lambda _txn, repo: repo.name == "p"))
    for repo in (out, spec, meta):
        with pytest.raises(PachError, match="cannot delete a repo associated with a pipeline"), writing(store) as txn:
            delete(txn, repo)
    with store.read() as txn:
        assert len(repos.list_repos(txn)) == 3


def test_the_output_branch_of_a_pipeline_is_not_deleted(store: Store) -> None:
    out, spec = (Repo("default", "p", type) for type in ("user", "spec"))
    make(store, out, spec)
    for has_pipeline in (False, True):
        hooks.connect(store, hooks.Hooks(has_pipeline=lambda _txn, _repo, has=has_pipeline: has))
        with writing(store) as txn:
            branches.create_branch(txn, master(out), provenance=[master(spec)])
        if has_pipeline:
            with pytest.raises(PachError, match="a pipeline writes to it"), writing(store) as txn:
                branches.delete_branch(txn, master(out), force=True)
        else:
            with writing(store) as txn:
                branches.delete_branch(txn, master(out))
