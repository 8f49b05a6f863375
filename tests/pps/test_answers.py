"""Orders, kinds of errors and what a failure leaves: where other answers about pipelines come to mind easily."""

import json
from typing import Any

import pytest
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2
from tests.pps.helpers import (
    Gate,
    commit_infos,
    create,
    delete,
    glob,
    inspect,
    job_list,
    last_job,
    new_repo,
    pipeline,
    put,
)


def send(client: Client, spec: dict[str, Any], **switches: bool) -> dict[str, Any]:
    """CreatePipelineV2 with just this; the effective spec."""
    request = pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=json.dumps(spec), **switches)
    effective: dict[str, Any] = json.loads(client.pps.CreatePipelineV2(request).effective_create_pipeline_request_json)
    return effective


def refused(client: Client, spec: dict[str, Any], **switches: bool) -> tuple[Status, str]:
    with pytest.raises(RpcError) as raised:
        send(client, spec, **switches)
    return raised.value.code, str(raised.value)


def listed(client: Client, **more: Any) -> list[pps_pb2.PipelineInfo]:
    return list(client.pps.ListPipeline(pps_pb2.ListPipelineRequest(**more)))


def set_of(client: Client, id: str, wait: bool = False) -> list[str]:
    request = pps_pb2.InspectJobSetRequest(job_set=pps_pb2.JobSet(id=id), wait=wait)
    return [info.job.pipeline.name for info in client.pps.InspectJobSet(request, timeout=240)]


def test_inputs_are_sorted_by_the_names_that_they_were_given(client: Client) -> None:
    for name in ("pears", "apples"):
        new_repo(client, name)

    def called(name: str, repo: str) -> dict[str, Any]:
        return {"pfs": {"repo": repo, "glob": "/*", "name": name}}

    create(client, "unnamed", "true", {"cross": [glob("pears"), glob("apples")]})
    create(client, "named", "true", {"cross": [called("p", "pears"), called("a", "apples"), glob("pears")]})
    for name, order in (("unnamed", ["pears", "apples"]), ("named", ["pears", "a", "p"])):
        assert [part.pfs.name for part in inspect(client, name).details.input.cross] == order
        delete(client, name)


def test_a_dry_run_looks_at_the_spec_alone(client: Client) -> None:
    spec = {"pipeline": {"name": "dry"}, "transform": {"cmd": ["true"]}, "input": glob("missing")}
    assert send(client, spec, dry_run=True)["datumTries"] == "3"
    assert refused(client, spec)[0] == Status.NOT_FOUND
    assert refused(client, {"transform": {"cmd": ["true"]}}, dry_run=True)[0] == Status.UNKNOWN
    assert listed(client) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"reprocessSpec": "sometimes"}, "ReprocessSpec must be one of"),
        ({"tolerations": [{"key": "a", "operator": "EXISTS"}, {"key": "b"}]}, "toleration 2/2: cannot omit"),
        ({"podPatch": "{"}, "malformed PodPatch"),
        ({"service": {"internalPort": 80, "type": "Magic"}}, "the following service type Magic is not allowed"),
        ({"pipeline": {"name": "odd", "project": {"name": "nowhere"}}}, 'project "nowhere" not found'),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_spec_that_means_nothing_is_an_invalid_argument(client: Client, more: dict[str, Any], words: str) -> None:
    code, told = refused(client, {"pipeline": {"name": "odd"}, "transform": {"cmd": ["true"]}, **more}, dry_run=True)
    assert code == Status.INVALID_ARGUMENT
    assert told.startswith("could not make effective spec: ") and words in told


def test_names_and_secrets_that_a_cluster_could_not_have(client: Client) -> None:
    client.pfs.CreateProject(pfs_pb2.CreateProjectRequest(project=pfs_pb2.Project(name="p" * 20)))
    long = {"name": "Long_" + "n" * 40, "project": {"name": "p" * 20}}
    told = refused(client, {"pipeline": long, "transform": {"cmd": ["true"]}})
    assert told[0] == Status.UNKNOWN and f'"{"p" * 20}-long-{"n" * 40}-v99" is 7 characters longer' in told[1]
    document = {"metadata": {"name": "door"}, "stringData": {"key": "1"}}
    client.pps.CreateSecret(pps_pb2.CreateSecretRequest(file=json.dumps(document).encode()))
    for secret, words in (
        ({"name": "door", "envVar": "KEY"}, "secret door has env_var set but is missing key"),
        ({"name": "door", "envVar": "KEY", "key": "code"}, "Kubernetes secret door missing key code"),
        ({"name": "gate", "mountPath": "/gate"}, "missing Kubernetes secret gate"),
    ):
        spec = {"pipeline": {"name": "locked"}, "transform": {"cmd": ["true"], "secrets": [secret]}}
        assert refused(client, spec) == (Status.UNKNOWN, words)


def test_a_salt_is_kept_until_everything_is_to_run_again(client: Client) -> None:
    new_repo(client, "salted")

    def salt(**more: Any) -> str:
        create(client, "soup", "true", glob("salted"), **more)
        return inspect(client, "soup").details.salt

    assert salt(salt="sea") == "sea"
    assert salt(salt="rock", update=True) == "sea"
    fresh = salt(salt="rock", update=True, reprocess=True)
    assert fresh not in ("sea", "rock") and salt(update=True) == fresh
    delete(client, "soup")


def test_pipelines_are_listed_by_their_newest_version_and_as_a_commit_set_found_them(client: Client) -> None:
    new_repo(client, "grain", {"/a": b"1"})
    create(client, "mill", "true", glob("grain"))
    create(client, "oven", "true", glob("grain"), autoscaling=True)
    first = last_job(client, "mill").job.id
    client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("mill")))
    create(client, "mill", "exit 1", glob("grain"), update=True, reprocess=True)
    client.pps.StartPipeline(pps_pb2.StartPipelineRequest(pipeline=pipeline("mill")))
    second = last_job(client, "mill")
    assert second.state == pps_pb2.JOB_FAILURE

    def seen(**more: Any) -> list[tuple[str, int]]:
        return [(info.pipeline.name, info.version) for info in listed(client, **more)]

    assert seen() == [("mill", 2), ("oven", 1)]
    assert seen(history=-1) == [("mill", 2), ("oven", 1), ("mill", 1)]
    old = listed(client, history=1, pipeline=pipeline("mill"))[1]
    assert (old.state, old.stopped) == (pps_pb2.PIPELINE_PAUSED, True)
    assert not inspect(client, "mill").stopped
    then = listed(client, commit_set=pfs_pb2.CommitSet(id=first))
    assert [(info.pipeline.name, info.version, info.last_job_state) for info in then] == [
        ("mill", 1, pps_pb2.JOB_SUCCESS)
    ]
    assert ("mill", 2) in seen(commit_set=pfs_pb2.CommitSet(id=second.job.id))
    for name in ("mill", "oven"):
        delete(client, name)


def test_an_empty_name_is_no_pipeline(client: Client) -> None:
    for ask in (
        lambda: client.pps.ListJob(pps_pb2.ListJobRequest(pipeline=pps_pb2.Pipeline())),
        lambda: client.pps.ListPipeline(pps_pb2.ListPipelineRequest(pipeline=pps_pb2.Pipeline())),
    ):
        with pytest.raises(RpcError, match="invalid Pipeline.Name: value length must be at least 1 bytes") as raised:
            list(ask())
        assert raised.value.code == Status.INVALID_ARGUMENT


def test_jobs_of_one_commit(client: Client) -> None:
    """Lists have them by name, sets as they were made; one that is waited for holds up those after it."""
    new_repo(client, "brook")
    with Gate() as gate:
        create(client, "weir", f"test ! -e /pfs/brook/hold || {gate.shell}", glob("brook", "/"))
        create(client, "canal", "true", glob("brook", "/"))
        create(client, "basin", "true", glob("weir", "/"))
        put(client, "brook", {"/hold": b""})
        id = job_list(client, "weir", number=1)[0].job.id
        newest = [job.job.pipeline.name for job in client.pps.ListJob(pps_pb2.ListJobRequest(number=3))]
        assert newest == ["basin", "canal", "weir"]
        oldest_first = client.pps.ListJob(pps_pb2.ListJobRequest(reverse=True))
        assert [job.job.pipeline.name for job in oldest_first][-3:] == ["basin", "canal", "weir"]
        made = set_of(client, id)
        assert sorted(made) == ["basin", "canal", "weir"] and made.index("weir") < made.index("basin")
        sets = client.pps.ListJobSet(pps_pb2.ListJobSetRequest(number=1))
        assert [[job.job.pipeline.name for job in found.jobs] for found in sets] == [made]
        last_job(client, "canal")
        gate.open()
        assert set_of(client, id, wait=True) == made

    def reading(*commits: pfs_pb2.Commit) -> list[str]:
        found = client.pps.ListJob(pps_pb2.ListJobRequest(input_commit=commits))
        return [job.job.pipeline.name for job in found]

    source = commit_infos(client, "brook")[0].commit
    assert reading(source) == ["basin", "canal", "weir"]
    assert reading(commit_infos(client, "weir")[0].commit, source) == [
        "basin",
        "canal",
        "weir",
    ]  # those of the same set
    assert reading(pfs_pb2.Commit(repo=source.repo, id="0" * 32)) == []
    assert reading(source, pfs_pb2.Commit(repo=source.repo, id="0" * 32)) == []
    for name in ("basin", "canal", "weir"):
        delete(client, name)


def test_a_pipeline_that_cannot_be_deleted_has_been_stopped(client: Client) -> None:
    new_repo(client, "root", {"/a": b"1"})
    create(client, "stem", "true", glob("root"))
    create(client, "leaf", "true", glob("stem"))
    last_job(client, "leaf")
    with pytest.raises(RpcError):
        delete(client, "stem")
    left = inspect(client, "stem")
    assert (left.state, left.stopped) == (pps_pb2.PIPELINE_PAUSED, True)
    client.pps.StartPipeline(pps_pb2.StartPipelineRequest(pipeline=pipeline("stem")))
    put(client, "root", {"/b": b"2"})
    assert last_job(client, "leaf").state == pps_pb2.JOB_SUCCESS
    for name in ("leaf", "stem"):
        delete(client, name)


def test_defaults_that_no_spec_could_have_are_refused_and_change_nothing(client: Client) -> None:
    project = pfs_pb2.Project(name="default")
    new_repo(client, "seed")
    create(client, "bed", "true", glob("seed"))

    def replace(**defaults: Any) -> list[str]:
        request = pps_pb2.SetProjectDefaultsRequest(
            project=project,
            project_defaults_json=json.dumps({"createPipelineRequest": defaults}),
            regenerate=True,
        )
        return [found.name for found in client.pps.SetProjectDefaults(request).affected_pipelines]

    def fails(**defaults: Any) -> tuple[Status, str]:
        with pytest.raises(RpcError) as raised:
            replace(**defaults)
        return raised.value.code, str(raised.value)

    code, told = fails(reprocessSpec="never")
    assert code == Status.INVALID_ARGUMENT and told.startswith("could not merge project defaults ")
    code, told = fails(spout={})  # which may not have an input
    assert code == Status.UNKNOWN and told.startswith("unknown error: could not write project defaults")
    ask = pps_pb2.GetProjectDefaultsRequest(project=project)
    assert client.pps.GetProjectDefaults(ask).project_defaults_json == "{}"
    assert inspect(client, "bed").version == 1
    assert replace(datumTries="4") == ["bed"]
    assert replace(datumTries=4) == []  # the same, written otherwise
    assert inspect(client, "bed").version == 2
    with pytest.raises(RpcError) as raised:
        client.pps.GetProjectDefaults(pps_pb2.GetProjectDefaultsRequest(project=pfs_pb2.Project(name="nowhere")))
    assert raised.value.code == Status.NOT_FOUND
    with pytest.raises(RpcError, match="could not merge cluster defaults") as raised:
        text = json.dumps({"createPipelineRequest": {"podSpec": "{"}})
        client.pps.SetClusterDefaults(pps_pb2.SetClusterDefaultsRequest(cluster_defaults_json=text))
    assert raised.value.code == Status.INVALID_ARGUMENT
    delete(client, "bed")
