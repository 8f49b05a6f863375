"""What a client is told about requests that make no sense, word for word as Pachyderm 2.12.2 says it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2, transaction_pb2
from tests.pps.helpers import create, glob, inspect, job_list, last_job, new_repo, pipeline, repo, wait_for

ZERO = "0" * 32
EMPTY_NAME = "invalid Pipeline.Name: value length must be at least 1 bytes"
BELOW = "embedded message failed validation | caused by: "
UNKNOWN, NOT_FOUND, INVALID = Status.UNKNOWN, Status.NOT_FOUND, Status.INVALID_ARGUMENT
PIPELINES = (
    "InspectPipeline",
    "StartPipeline",
    "StopPipeline",
    "RerunPipeline",
    "RunCron",
    "GetLogs",
    "DeletePipeline",
)
JOBS = ("InspectJob", "StopJob", "DeleteJob", "RestartDatum", "ListDatum", "UpdateJobState", "GetLogs")
BEFORE = {
    "RerunPipeline": 'inspect pipeline "{}": ',
    "GetLogs": "could not get pipeline information for {}: ",
    "DeletePipeline": "error stopping pipeline {}: ",
}


@pytest.fixture(scope="module", autouse=True)
def one_pipeline(client: Client) -> None:
    new_repo(client, "numbers", {"/1": b"1", "/2": b"2"})
    create(client, "sums", "true", glob("numbers"))
    last_job(client, "sums")
    client.pfs.CreateProject(pfs_pb2.CreateProjectRequest(project=pfs_pb2.Project(name="elsewhere")))


def ask(client: Client, rpc: str, *requests: Any) -> list[Any]:
    """All that an RPC answers; several requests are those of a stream."""
    if rpc == "CreateDatum":
        return list(client.pps.CreateDatum(iter(requests)))
    answer = getattr(client.pps, rpc)(*requests)
    return list(answer) if isinstance(answer, Iterator) else [answer]


def refused(client: Client, rpc: str, *requests: Any) -> tuple[Status, str]:
    with pytest.raises(RpcError) as raised:
        ask(client, rpc, *requests)
    return raised.value.code, str(raised.value)


def missing(name: str) -> str:
    return (
        f'pipeline was not inspected: couldn\'t find up to date spec for pipeline "{name}": pick commit tx: commit '
        f'{name}.spec@ not found\nrepo {name}.spec not found\npipeline "{name}" not found'
    )


def named(name: str, project: str = "default") -> pps_pb2.Pipeline:
    return pps_pb2.Pipeline(name=name, project=pfs_pb2.Project(name=project))


@pytest.mark.parametrize("rpc", PIPELINES)
def test_pipelines_that_are_not_there(client: Client, rpc: str) -> None:
    def told(of: pps_pb2.Pipeline) -> tuple[Status, str]:
        request = getattr(pps_pb2, f"{rpc}Request")(pipeline=of)
        if "must_exist" in request.DESCRIPTOR.fields_by_name:
            request.must_exist = True
        return refused(client, rpc, request)

    def before(name: str) -> str:
        return BEFORE.get(rpc, "").format(name)

    for name in ("default/nothing", "default/no name", "elsewhere/sums"):
        project, _, last = name.partition("/")
        assert told(named(last, project)) == (NOT_FOUND, before(name) + missing(name))
    mixed = 'invalid ancestry syntax "sums^x", cannot mix ^ and x characters'
    assert told(pipeline("sums^x")) == (UNKNOWN, before("default/sums^x") + mixed)
    assert told(pipeline("sums.1")) == (UNKNOWN, before("default/sums.1") + "cannot inspect future pipelines")
    few = 'pipeline "default/sums" has only 1 versions, not enough to find ancestor 7'
    assert told(pipeline("sums~7")) == (UNKNOWN, before("default/sums") + few)
    streams = "recv" if rpc == "GetLogs" else "request"
    assert told(pps_pb2.Pipeline()) == (
        INVALID,
        f"validate {streams}: invalid {rpc}Request.Pipeline: {BELOW}{EMPTY_NAME}",
    )


@pytest.mark.parametrize("rpc", JOBS)
def test_jobs_that_are_not_there(client: Client, rpc: str) -> None:
    def told(job: pps_pb2.Job) -> tuple[Status, str]:
        return refused(client, rpc, getattr(pps_pb2, f"{rpc}Request")(job=job))

    def before(id: str) -> str:
        return f'could not get job information for "{id}": ' if rpc == "GetLogs" else ""

    id = job_list(client, "sums")[0].job.id
    for of, wanted in (
        (pipeline("sums"), ZERO),
        (pipeline("sums"), "malformed"),
        (pipeline("sums"), ""),
        (pipeline("nothing"), id),
        (named("sums", "elsewhere"), id),
        (named("sums", "nowhere"), id),
    ):
        words = f"{before(wanted)}jobs {of.project.name}/{of.name}@{wanted} not found"
        assert told(pps_pb2.Job(pipeline=of, id=wanted)) == (NOT_FOUND, words)
    if rpc == "GetLogs":
        assert told(pps_pb2.Job(id=id)) == (UNKNOWN, "pipeline must be specified for the given job")
    else:
        assert told(pps_pb2.Job(id=id)) == (NOT_FOUND, f"jobs @{id} not found")
    streams = "recv" if rpc in ("ListDatum", "GetLogs") else "request"
    words = f"validate {streams}: invalid {rpc}Request.Job: {BELOW}invalid Job.Pipeline: {BELOW}{EMPTY_NAME}"
    assert told(pps_pb2.Job(pipeline=pps_pb2.Pipeline(), id=id)) == (INVALID, words)


def test_what_a_listing_is_narrowed_to(client: Client) -> None:
    for rpc in ("ListPipeline", "ListJob", "ListJobSet"):
        kind = getattr(pps_pb2, f"{rpc}Request")
        for name in ("", "nowhere", "elsewhere"):
            assert ask(client, rpc, kind(projects=[pfs_pb2.Project(name=name)])) == []
        listing = "could not list pipeline info: " if rpc == "ListPipeline" else ""
        of = "pipeline" if rpc == "ListPipeline" else "job"
        for expression, words in (
            (".state ==", "error creating message filter function: error parsing jq filter: unexpected EOF"),
            ("1 2", 'error creating message filter function: error parsing jq filter: unexpected token "2"'),
            ("foo", "error creating message filter function: error compiling jq filter: function not defined: foo/0"),
            ("$x", "error creating message filter function: error compiling jq filter: variable not defined: $x"),
        ):
            assert refused(client, rpc, kind(jqFilter=expression)) == (UNKNOWN, words)
        code, words = refused(client, rpc, kind(jqFilter=".state + 1"))
        assert code == UNKNOWN
        assert words.startswith(
            f"{listing}error filtering {of}: error applying jq filter on proto message: cannot add: string ("
        )
    assert refused(client, "ListJobSet", pps_pb2.ListJobSetRequest(number=-1, jqFilter="foo"))[1].startswith(
        "error creat"
    )
    for rpc, before in (("ListPipeline", "could not list pipeline info: "), ("ListJob", "")):
        request = getattr(pps_pb2, f"{rpc}Request")(pipeline=named("sums", "nowhere"))
        assert refused(client, rpc, request) == (NOT_FOUND, f'{before}pipeline "nowhere/sums" not found')


@pytest.mark.parametrize(
    ("size", "index", "seen"), [(-1, 0, 1), (-1, 5, 1), (-2, -1, 0), (1, -1, 1), (1, 1, 0), (0, 5, 1)]
)
def test_odd_pages(client: Client, size: int, index: int, seen: int) -> None:
    request = pps_pb2.ListPipelineRequest(pipeline=pipeline("sums"))
    request.page.page_size, request.page.page_index = size, index
    assert len(ask(client, "ListPipeline", request)) == seen


def leaf(**more: Any) -> pps_pb2.Input:
    return pps_pb2.Input(pfs=pps_pb2.PFSInput(**{"repo": "numbers", "glob": "/*", **more}))


def test_the_datums_of_any_input(client: Client) -> None:
    """Not all that a pipeline may not read is refused when its datums are listed; errors are all UNKNOWN."""
    nothing = "pick commit tx: commit default/nothing@ not found\nrepo default/nothing not found"
    cron = "datums with a cron input, there will be no datums until the pipeline is created"
    for source, words in (
        (pps_pb2.Input(), "unrecognized input type: "),
        (leaf(repo="nothing"), nothing),
        (pps_pb2.Input(cron=pps_pb2.CronInput(name="t", spec="@daily")), f"can't list {cron}"),
    ):
        assert refused(client, "ListDatum", pps_pb2.ListDatumRequest(input=source)) == (UNKNOWN, words)
        start = pps_pb2.CreateDatumRequest(start=pps_pb2.StartCreateDatumRequest(input=source))
        step = "streaming iterate" if not source.ListFields() else "getting streaming iterator"
        assert refused(client, "CreateDatum", start) == (UNKNOWN, f"{step}: {words.replace('list', 'create')}")
    for source, count in (
        (leaf(name="out"), 2),
        (leaf(commit=ZERO), 2),
        (leaf(glob=""), 1),
        (pps_pb2.Input(cross=[leaf(), leaf()]), 4),
        (pps_pb2.Input(pfs=leaf().pfs, cross=[leaf(), leaf()]), 2),
    ):
        assert len(ask(client, "ListDatum", pps_pb2.ListDatumRequest(input=source))) == count
    start = pps_pb2.CreateDatumRequest(start=pps_pb2.StartCreateDatumRequest(number=-1))
    wrong = (
        "invalid StartCreateDatumRequest.Input: value is required; "
        "invalid StartCreateDatumRequest.Number: value must be greater than or equal to 0"
    )
    words = f"validate recv: invalid CreateDatumRequest.Start: {BELOW}{wrong}"
    assert refused(client, "CreateDatum", start) == (INVALID, words)


def spec_of(**more: Any) -> dict[str, Any]:
    return {"pipeline": {"name": "odd"}, "transform": {"cmd": ["true"]}, "input": glob("numbers"), **more}


COMMIT = {"repo": {"name": "numbers", "type": "user"}, "branch": {"name": "master"}}
PARSING = "could not make effective spec: could not parse {} as Create Pipeline Request message: proto: "


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", INVALID, PARSING + "syntax error (line 1:1): unexpected token "),
        ("{", INVALID, PARSING + "unexpected EOF"),
        ("[]", INVALID, PARSING + "syntax error (line 1:1): unexpected token ["),
        ('{"nonsense":1}', INVALID, PARSING + '(line 1:2): unknown field "nonsense"'),
        ('{"salt":"a",\n"salt":"b"}', INVALID, PARSING + '(line 2:1): duplicate field "salt"'),
        ('{"datumTries":1, "datum_tries":2}', INVALID, PARSING + '(line 1:18): duplicate field "datum_tries"'),
        ('{\n "transform": {\n  "x": 1}}', INVALID, PARSING + '(line 3:3): unknown field "x"'),
        (
            json.dumps({"pipeline": {"name": "odd", "project": {"name": "nowhere"}}}),
            INVALID,
            "could not make effective spec: could not get defaults for project nowhere: could not get defaults for "
            'project nowhere: error getting project "nowhere": get project by name: project "nowhere" not found',
        ),
        ('{"pipeline":{}}', UNKNOWN, "invalid pipeline spec: request.Pipeline.Name cannot be empty"),
        ('{"pipeline":null}', UNKNOWN, "request.Pipeline cannot be nil"),
        (json.dumps(spec_of(pipeline={"name": "odd.1"})), UNKNOWN, "cannot inspect future pipelines"),
        (
            json.dumps(spec_of(pipeline={"name": "sums~4"})),
            UNKNOWN,
            'pipeline "default/sums" has only 1 versions, not enough to find ancestor 4',
        ),
        (
            json.dumps(spec_of(pipeline={"name": "sums~0"})),
            Status.ALREADY_EXISTS,
            'pipeline "default/sums" already exists',
        ),
        (json.dumps(spec_of(specCommit={**COMMIT, "id": ZERO})), UNKNOWN, None),
    ],
)
def test_specs_that_are_none(client: Client, text: str, code: Status, words: str | None) -> None:
    told = refused(client, "CreatePipelineV2", pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=text))
    if words is None:
        assert told[1].startswith("error inspecting spec commit: ") or told[1].endswith("is not from a spec repo")
    else:
        assert told == (code, words.replace("{}", text))


def test_a_spec_with_its_commit_updates_nothing(client: Client) -> None:
    text = json.dumps(spec_of(pipeline={"name": "sums"}, specCommit=COMMIT))
    request = pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=text, update=True)
    words = "Cannot update a pipeline and provide a spec commit at the same time"
    assert refused(client, "CreatePipelineV2", request) == (UNKNOWN, words)


def test_requests_of_a_transaction(client: Client) -> None:
    """A transaction keeps a pipeline as what its spec means, however it was asked for."""
    transaction = client.transaction.StartTransaction(transaction_pb2.StartTransactionRequest())
    spec = pps_pb2.CreatePipelineRequest(pipeline=pipeline("later"), transform=pps_pb2.Transform(cmd=["true"]))
    spec.input.CopyFrom(leaf())
    client.pps.CreatePipeline(spec, metadata={"pach-transaction": transaction.id})
    asked = transaction_pb2.InspectTransactionRequest(transaction=transaction)
    (kept,) = client.transaction.InspectTransaction(asked).requests
    wanted = kept.create_pipeline_v2.create_pipeline_request
    assert (wanted.pipeline.name, wanted.datum_tries, wanted.resource_requests.memory) == ("later", 3, "256Mi")
    client.transaction.DeleteTransaction(transaction_pb2.DeleteTransactionRequest(transaction=transaction))
    for request, code, words in (
        ({"create_pipeline": spec}, UNKNOWN, "unrecognized transaction request type"),
        ({"stop_job": pps_pb2.StopJobRequest()}, UNKNOWN, "Job must be specified"),
    ):
        with pytest.raises(RpcError) as raised:
            batch = transaction_pb2.BatchTransactionRequest(requests=[transaction_pb2.TransactionRequest(**request)])
            client.transaction.BatchTransaction(batch)
        assert (raised.value.code, str(raised.value)) == (code, f"error running request 1 of 1: {words}")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "failed to unmarshal secret: unexpected end of JSON input"),
        (b'{"metadata":{"name":"a","labels":{"suite":"x"}}}', "invalid suite label set on secret: suite=x"),
        (b"{", "failed to unmarshal secret: unexpected end of JSON input"),
        (b'{"a": "b', "failed to unmarshal secret: unexpected end of JSON input"),
        (b"x", "failed to unmarshal secret: invalid character 'x' looking for beginning of value"),
        (b"{x", "failed to unmarshal secret: invalid character 'x' looking for beginning of object key string"),
        (b'{"a" 1}', "failed to unmarshal secret: invalid character '1' after object key"),
        (b"{} {}", "failed to unmarshal secret: invalid character '{' after top-level value"),
        (b"[]", "failed to unmarshal secret: json: cannot unmarshal array into Go value of type v1.Secret"),
        (
            b'{"metadata":5}',
            "failed to unmarshal secret: json: cannot unmarshal number into Go struct field Secret.metadata of type "
            "v1.ObjectMeta",
        ),
        (b'{"data":{"k":"a%bc"}}', "failed to unmarshal secret: illegal base64 data at input byte 1"),
        (b'{"data":{"k":"abcde"}}', "failed to unmarshal secret: illegal base64 data at input byte 4"),
        (b'{"data":{"k":"a==="}}', "failed to unmarshal secret: illegal base64 data at input byte 1"),
        (
            b"{}",
            'failed to create secret: Secret "" is invalid: metadata.name: Required value: '
            "name or generateName is required",
        ),
    ],
)
def test_secrets_that_are_none(client: Client, document: bytes, words: str) -> None:
    assert refused(client, "CreateSecret", pps_pb2.CreateSecretRequest(file=document)) == (UNKNOWN, words)


def test_a_pipeline_that_has_failed_stays_so_until_it_is_updated(client: Client) -> None:
    """Stopping and starting it change whether it is stopped alone; jobs that it gets are ended."""
    create(client, "idle", "true", glob("numbers"), transform={"cmd": [], "stdin": []})

    def state() -> tuple[int, bool]:
        found = inspect(client, "idle")
        return found.state, found.stopped

    failed = pps_pb2.PIPELINE_FAILURE
    wait_for(lambda: state() == (failed, False), "its failure")
    client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("idle")))
    assert state() == (failed, True)
    client.pps.StartPipeline(pps_pb2.StartPipelineRequest(pipeline=pipeline("idle")))
    assert state() == (failed, False)
    newest = last_job(client, "idle")
    assert (newest.state, newest.reason) == (pps_pb2.JOB_KILLED, "job stopped")
    create(client, "idle", "true", glob("numbers"), update=True)
    assert last_job(client, "idle").state == pps_pb2.JOB_SUCCESS


def test_an_earlier_version_is_run_again(client: Client) -> None:
    create(client, "turns", "true", glob("numbers"), description="first")
    create(client, "turns", "true", glob("numbers"), description="second", update=True)
    client.pps.RerunPipeline(pps_pb2.RerunPipelineRequest(pipeline=pipeline("turns^")))
    now = inspect(client, "turns")
    assert (now.version, now.details.description) == (3, "first")
    assert inspect(client, "turns~1").details.description == "second"


def test_deleting_everything(client: Client) -> None:
    """With `all` DeletePipeline deletes none; DeleteAll takes secrets too, and pipelines whose output is read."""
    client.pps.DeletePipeline(pps_pb2.DeletePipelineRequest(pipeline=pipeline("sums"), all=True))
    assert inspect(client, "sums").version >= 1
    document = json.dumps({"metadata": {"name": "key"}}).encode()
    client.pps.CreateSecret(pps_pb2.CreateSecretRequest(file=document))
    new_repo(client, "copy")
    sums, copy = pfs_pb2.Branch(repo=repo("sums"), name="master"), pfs_pb2.Branch(repo=repo("copy"), name="master")
    client.pfs.CreateBranch(pfs_pb2.CreateBranchRequest(branch=copy, provenance=[sums]))
    client.pps.DeleteAll(Empty())
    assert ask(client, "ListPipeline", pps_pb2.ListPipelineRequest()) == []
    assert not client.pps.ListSecret(Empty()).secret_info


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"outputBranch": "a b"},
            "output branch: name (a b) invalid: only alphanumeric characters, underscores, and dashes ",
        ),
        ({"input": glob("numbers", branch="a b")}, "output branch: name (a b) invalid: only alphanumeric characters, "),
        (
            {"input": glob("numbers", trigger={"branch": "master", "cronSpec": "x"})},
            "trigger branch: invalid trigger cron spec: Expected exactly 5 fields, found 1: x",
        ),
    ],
)
def test_branches_that_cannot_be_made(client: Client, more: dict[str, Any], words: str) -> None:
    text = json.dumps(spec_of(**more))
    code, told = refused(client, "CreatePipelineV2", pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=text))
    assert code == UNKNOWN and told.startswith(f"could not create/update {words}")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", "template err: main:1:1 Unexpected end of file\n\n\n\n"),
        ("5", "not a json object or list: 5\n"),
        ("{nonsense: 1}", 'proto: (line 2:4): unknown field "nonsense"'),
        ("[5]", "json: cannot unmarshal number into Go value of type pps.CreatePipelineRequest"),
    ],
)
def test_templates_of_nothing(client: Client, template: str, words: str) -> None:
    assert refused(client, "RenderTemplate", pps_pb2.RenderTemplateRequest(template=template)) == (UNKNOWN, words)
