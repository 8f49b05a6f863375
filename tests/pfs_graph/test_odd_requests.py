"""Requests that lack something, or name what cannot be: the status and the sentence, as Pachyderm's source has them."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.errors import PachError
from pachd.pfs import commitsets, writing
from pachd.store import Store
from tests.pfs_graph.test_graph import A, B, chain, finish, put
from tests.processes import Pachd

MISSING = "0" * 12 + "4" + "0" * 19
JUNK_TOKEN = "z" * 32
NO_TOKEN = "0" * 32
OK, UNKNOWN, NOT_FOUND, EXISTS = Status.OK, Status.UNKNOWN, Status.NOT_FOUND, Status.ALREADY_EXISTS
INVALID, ABORTED = Status.INVALID_ARGUMENT, Status.ABORTED
ANY = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "v"}
Json = dict[str, Any]


def repo(name: str = "m", type: str = "user", project: str = "default") -> Json:
    return {"name": name, "type": type, "project": {"name": project}}


def branch(name: str = "master", *of: str) -> Json:
    return {"repo": repo(*of), "name": name}


def commit(name: str = "master", *of: str) -> Json:
    return {"repo": repo(*of), "branch": branch(name, *of)}


def file(path: str = "/", name: str = "master", *of: str) -> Json:
    return {"commit": commit(name, *of), "path": path}


def head(name: str | None = "master", project: str | None = "default") -> Json:
    picked: Json = {"name": "m", "type": "user"} | ({} if project is None else {"project": {"name": project}})
    return {"branch_head": {"name": {"repo": {"name": picked}, "name": name}}}


def enum(type: str) -> str:
    return f'ERROR: invalid input value for enum pfs.repo_type: "{type}" (SQLSTATE 22P02)'


def ask(client: Client, name: str, *requests: Json, metadata: Mapping[str, str] | None = None) -> tuple[Status, Any]:
    """(status, the sentence or the answers) of an RPC."""
    service, _, rpc = name.rpartition(".")
    method = getattr(getattr(client, service or "pfs"), rpc)
    messages = [ParseDict(request, method.request_type()) for request in requests]
    descriptor = method.request_type.DESCRIPTOR.name
    streams = descriptor in ("ModifyFileRequest",)
    try:
        found = method(iter(messages) if streams else messages[0], metadata=metadata)
        return OK, [found] if hasattr(found, "DESCRIPTOR") else list(found)
    except RpcError as error:
        return error.code, error.message


@pytest.fixture(scope="module")
def client(pachd_process: Pachd) -> Iterator[Client]:
    """A server with the repos m (two commits), n (empty) and open (an open commit)."""
    with Client(pachd_process.address) as opened:
        for name in ("m", "n", "open"):
            assert ask(opened, "CreateRepo", {"repo": repo(name)})[0] is OK
        for path in ("/a/1", "/a/2"):
            add = {"add_file": {"path": path, "raw": "MQ=="}}
            assert ask(opened, "ModifyFile", {"set_commit": commit()}, add)[0] is OK
        assert ask(opened, "StartCommit", {"branch": branch("master", "open")})[0] is OK
        yield opened


NO_BRANCH = 'pick commit tx: commit default/m@ not found\nbranch "nope" not found in repo default/m'
PICKING = "pick commit tx: picking commit: picking branch: picking repo: "
ANOTHER = 'get project by name: project "zz" not found\nrepo (id=0, project=zz, name=m, type=user) not found'


@pytest.mark.parametrize(
    ("rpc", "request_", "status", "words"),
    [
        # a type that no repo has
        ("CreateRepo", {"repo": repo("x", "nope")}, UNKNOWN,
         f'error checking whether repo "default/x.nope" exists: scanning repo row: {enum("nope")}'),
        ("InspectRepo", {"repo": repo("m", "nope")}, UNKNOWN, f"scanning repo row: {enum('nope')}"),
        ("InspectRepo", {"repo": {"name": "m"}}, UNKNOWN, f"scanning repo row: {enum('')}"),
        ("ListRepo", {"type": "nope"}, UNKNOWN,
         f"WithReadContext: listRepoInTransaction: for each repo: for each repo: getting page: {enum('nope')}"),
        ("DeleteRepo", {"repo": repo("m", "nope")}, UNKNOWN,
         f'delete repo: error checking whether "default/m.nope" exists: scanning repo row: {enum("nope")}'),
        ("ListBranch", {"repo": repo("m", "nope")}, UNKNOWN, f"scanning repo row: {enum('nope')}"),
        ("InspectBranch", {"branch": branch("x", "m", "nope")}, UNKNOWN,
         f"inspect branch in transaction: could not get branch: {enum('nope')}"),
        ("CreateBranch", {"branch": branch("x", "m", "nope")}, UNKNOWN,
         f"create branch: could not get branch: {enum('nope')}"),
        ("CreateBranch", {"branch": branch("x"), "provenance": [branch("y", "n", "nope")]}, UNKNOWN,
         f"get branch info: could not get branch: {enum('nope')}"),
        ("DeleteBranch", {"branch": branch("x", "m", "nope")}, UNKNOWN,
         f'get branch "default/m.nope@x": could not get branch: {enum("nope")}'),
        ("StartCommit", {"branch": branch("x", "m", "nope")}, UNKNOWN,
         f"start commit in transaction: scanning repo row: {enum('nope')}"),
        ("ListCommit", {"repo": repo("m", "nope")}, UNKNOWN, f"ensure repo exists: scanning repo row: {enum('nope')}"),
        ("SubscribeCommit", {"repo": repo("m", "nope")}, UNKNOWN, f"get repo ID: scanning repo row: {enum('nope')}"),
        ("InspectCommit", {"commit": commit("master", "m", "nope")}, UNKNOWN,
         f"{PICKING}get repo info with id: scanning repo row: {enum('nope')}"),
        ("InspectCommit", {"commit": commit("master", "a.b")}, UNKNOWN,
         f"{PICKING}get repo info with id: scanning repo row: {enum('b')}"),
        ("InspectCommit", {"commit": commit("master", "m", "")}, OK, 1),
        # a project that is not there
        ("InspectBranch", {"branch": branch("x", "m", "user", "zz")}, NOT_FOUND,
         f"inspect branch in transaction: {ANOTHER}\nbranch (id=0, branch=zz/m@x) not found\n"
         'branch "x" not found in repo zz/m'),
        ("SubscribeCommit", {"repo": repo("m", "user", "zz")}, NOT_FOUND, f"get repo ID: {ANOTHER}"),
        ("InspectCommit", {"commit": commit("master", "m", "user", "a b")}, UNKNOWN,
         "pick commit tx: unmarshal branch picker a b/m@master: unmarshal repo picker a b/m: unmarshal project a b: "
         "name (a b) invalid: only alphanumeric characters, underscores, and dashes are allowed"),
        ("InspectProject", {"project": {}}, NOT_FOUND,
         'error getting project "": get project by name: project not found'),
        ("ListRepo", {"projects": [{}]}, OK, 0),
        # pages
        ("ListRepo", {"page": {"page_size": 2, "page_index": 1}}, OK, 1),
        ("ListRepo", {"page": {}}, OK, 0),
        ("ListRepo", {"page": {"page_size": -1}}, UNKNOWN,
         "WithReadContext: listRepoInTransaction: for each repo: for each repo: getting page: "
         "ERROR: bigint out of range (SQLSTATE 22003)"),
        ("ListRepo", {"page": {"page_size": 2, "order": 5}}, UNKNOWN,
         "WithReadContext: listRepoInTransaction: for each repo: cannot make page order bys for ordering 5"),
        ("ListFile", {"file": file(name="nope"), "number": 100_001}, UNKNOWN,
         "cannot return more than 100000 files at a time"),
        ("ListFile", {"file": file(), "reverse": True, "number": -1}, ABORTED,
         "number must be > 0 when reverse is true"),
        ("WalkFile", {"file": file(), "paginationMarker": {}}, OK, 3),
        ("WalkFile", {"file": file(), "paginationMarker": {"path": "/z"}}, OK, 0),
        ("WalkFile", {"file": file("/a"), "paginationMarker": {"path": "/a/2"}}, OK, 0),
        ("ListFile", {"file": file(name="nope"), "number": 3}, NOT_FOUND, NO_BRANCH),
        # an empty part
        ("CreateBranch", {"branch": branch("x"), "head": {}}, UNKNOWN, "commit must have a repo"),
        ("CreateBranch", {"branch": branch("x"), "head": {"repo": repo()}}, UNKNOWN,
         "unable to inspect default/m@: pick commit tx: cannot pick commit with no ID or branch"),
        ("StartCommit", {"branch": branch("x"), "parent": {}}, UNKNOWN, "commit must have a repo"),
        ("SquashCommit", {"commit": {"branch": branch()}}, UNKNOWN, "pick commit tx: cannot pick commit with no repo"),
        ("DropCommit", {"commit": {"repo": {"name": "m", "type": "user"}, "branch": {"name": "master"}}}, UNKNOWN,
         f"{PICKING}project picker cannot be nil"),
        ("InspectCommit", {"commit": {"repo": {}, "branch": {"name": "master"}}}, NOT_FOUND,
         "pick commit tx: commit default/.@ not found\nrepo default/. not found"),
        ("InspectCommit", {"commit": commit("master", "open"), "wait": 99}, OK, 1),
        # pickers
        ("WalkCommitProvenance", {"start": [head(project=None)]}, UNKNOWN,
         "walk commit provenance: walk commit provenance: pick commits: picking commit: picking branch: picking repo: "
         "project picker cannot be nil"),
        ("WalkCommitSubvenance", {"start": [head(project="")]}, NOT_FOUND,
         "walk commit subvenance: walk commit subvenance: pick commits: picking commit: picking branch: picking repo: "
         "picking project: project not found"),
        # file sets
        ("RenewFileSet", {"file_set_id": JUNK_TOKEN, "ttl_seconds": 60}, UNKNOWN,
         "encoding/hex: invalid byte: U+007A 'z'"),
        ("RenewFileSet", {"file_set_id": NO_TOKEN + "0", "ttl_seconds": 60}, UNKNOWN,
         "parsing fileset.Token: too long to be Token len=33"),
        ("RenewFileSet", {"file_set_id": f"{NO_TOKEN}.{NO_TOKEN}", "ttl_seconds": 60}, NOT_FOUND,
         f"tracker does not contain item: (fileset/{NO_TOKEN})"),
        ("AddFileSet", {"commit": commit("nope"), "file_set_id": "x"}, UNKNOWN,
         "parsing fileset.Token: too short to be Token len=1"),
        ("PutCache", {"key": "k", "file_set_ids": [NO_TOKEN]}, UNKNOWN,
         'ERROR: null value in column "value_pb" of relation "cache" violates not-null constraint (SQLSTATE 23502)'),
        ("PutCache", {"key": "k", "value": ANY, "file_set_ids": [NO_TOKEN]}, UNKNOWN,
         "the operation would create a dangling reference"),
        # written elsewhere
        ("GetFile", {"file": file("/a/1", "nope"), "URL": "s3://bucket/key"}, NOT_FOUND, f"get file url: {NO_BRANCH}"),
        ("ModifyFile", {"set_commit": {"repo": repo()}}, UNKNOWN,
         "pick commit tx: cannot pick commit with no ID or branch"),
    ],
)  # fmt: skip
def test_what_is_answered(client: Client, rpc: str, request_: Json, status: Status, words: str | int) -> None:
    code, found = ask(client, rpc, request_)
    assert (code, found if isinstance(words, str) else len(found)) == (status, words)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"create_repo": {}}, UNKNOWN, "repo cannot be nil"),
        ({"create_repo": {"repo": repo()}}, EXISTS, "repo default/m already exists"),
        ({"delete_repo": {}}, UNKNOWN, "must specify repo"),
        ({"start_commit": {}}, UNKNOWN, "start commit in transaction: branch must be specified"),
        ({"finish_commit": {}}, UNKNOWN, "check new file commit: commit cannot be nil"),
        ({"finish_commit": {"commit": {}}}, UNKNOWN, "check new file commit: commit must have a repo"),
        ({"create_branch": {}}, UNKNOWN, "branch cannot be nil"),
        ({"create_branch": {"branch": {}}}, UNKNOWN, "branch repo cannot be nil"),
    ],
)  # fmt: skip
def test_a_batch_names_the_request_that_failed(client: Client, request_: Json, status: Status, words: str) -> None:
    fine = {"create_repo": {"repo": repo("later")}}
    told = f"error running request 2 of 2: {words}"
    assert ask(client, "transaction.BatchTransaction", {"requests": [fine, request_]}) == (status, told)
    assert ask(client, "InspectRepo", {"repo": repo("later")})[0] is NOT_FOUND


def test_a_pipeline_of_nothing_is_refused_before_the_transaction(client: Client) -> None:
    batch = {"requests": [{"create_repo": {}}, {"create_pipeline_v2": {}}]}
    told = "run pre-transaction operations: nil CreatePipelineRequest in CreatePipelineTransaction"
    assert ask(client, "transaction.BatchTransaction", batch) == (UNKNOWN, told)


@pytest.mark.parametrize(
    ("rpc", "request_", "status", "words"),
    [
        ("DeleteRepo", {}, INVALID, "no repo specified"),
        ("SquashCommitSet", {}, UNKNOWN, "commitset cannot be nil"),
        ("StartCommit", {"branch": branch("x"), "parent": {}}, UNKNOWN, "commit must have a repo"),
        ("CreateRepo", {}, UNKNOWN, "error running request 1 of 1: repo cannot be nil"),
        ("DeleteRepo", {"repo": repo("m", "nope")}, UNKNOWN,
         'delete repo: error running request 1 of 1: error checking whether "default/m.nope" exists: '
         f"scanning repo row: {enum('nope')}"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_no_part_of_a_transaction(
    client: Client, rpc: str, request_: Json, status: Status, words: str
) -> None:
    _, [transaction] = ask(client, "transaction.StartTransaction", {})
    assert ask(client, rpc, request_, metadata={"pach-transaction": transaction.id}) == (status, words)
    _, [info] = ask(client, "transaction.InspectTransaction", {"transaction": {"id": transaction.id}})
    assert not info.requests


def test_a_file_set_is_named_by_its_token_in_any_spelling(client: Client) -> None:
    code, [made] = ask(client, "GetFileSet", {"commit": commit()})
    assert code is OK
    token = made.file_set_id.partition(".")[0]
    for name in (token, f"{token}.", f"{token}.zz", token.upper(), f"{token[:8]}-{token[8:]}"):
        listing = {"file": {"commit": {"repo": repo("__filesets__"), "id": name}, "path": "/a"}}
        assert [info.file.path for info in ask(client, "ListFile", listing)[1]] == ["/a/1", "/a/2"]
        assert ask(client, "RenewFileSet", {"file_set_id": name, "ttl_seconds": 1800})[0] is OK
        _, [composed] = ask(client, "ComposeFileSet", {"file_set_ids": [name]})
        assert ask(client, "RenewFileSet", {"file_set_id": composed.file_set_id, "ttl_seconds": 1800})[0] is OK
        _, [shards] = ask(client, "ShardFileSet", {"file_set_id": name, "num_files": -1})
        assert len(shards.shards) == 1


@pytest.mark.parametrize(
    ("rpc", "status", "words"),
    [
        ("InspectCommit", OK, 1),
        ("ClearCommit", OK, 1),
        ("FinishCommit", NOT_FOUND, "finishing commit: commit (int_id=0, commit_id=) not found"),
        ("GetFileSet", UNKNOWN, "get file set: the commit is forgotten"),
        *(
            (
                rpc,
                NOT_FOUND,
                "get commit by commit key: repo (id=0, project=default, name=__filesets__, type=user) not found\n"
                f"commit (int_id=0, commit_id=default/__filesets__.user@{NO_TOKEN}) not found",
            )
            for rpc in ("SquashCommit", "DropCommit")
        ),
    ],
)
def test_a_file_set_is_no_commit_that_anything_can_be_done_with(
    client: Client, rpc: str, status: Status, words: str | int
) -> None:
    code, found = ask(client, rpc, {"commit": {"repo": repo("__filesets__"), "id": NO_TOKEN}})
    assert (code, found if isinstance(words, str) else len(found)) == (status, words)


def test_the_whole_repo_goes_with_its_system_repos(client: Client) -> None:
    assert ask(client, "CreateProject", {"project": {"name": "other"}})[0] is OK
    for type in ("user", "meta"):
        assert ask(client, "CreateRepo", {"repo": repo("r", type, "other")})[0] is OK
    assert ask(client, "DeleteRepos", {"projects": [{}]})[1][0].repos == []
    _, [deleted] = ask(client, "DeleteRepos", {"projects": [{"name": "other"}]})
    assert [each.type for each in deleted.repos] == ["user", "meta"]


def test_a_commit_set_without_an_id_is_all_commits(store: Store) -> None:
    with writing(store) as txn:
        commitsets.squash_commit_set(txn, "")
        commitsets.drop_commit_set(txn, "")
    chain(store)
    with store.read() as txn:
        assert len(list(commitsets.inspect_commit_set(txn, ""))) == 3
    with pytest.raises(PachError, match="^a commit set without an ID is all commits"), writing(store) as txn:
        commitsets.drop_commit_set(txn, "")
    finish(store, B)
    put(store, A, "/f")
    with pytest.raises(PachError, match="cannot drop a commit that has children: default/a@"), writing(store) as txn:
        commitsets.drop_commit_set(txn, "")
    with pytest.raises(PachError, match="cannot squash a commit that has no children"), writing(store) as txn:
        commitsets.squash_commit_set(txn, "")
