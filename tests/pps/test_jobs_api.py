"""Listings of jobs and pipelines, filters, templates, states, restarts, history, secrets, defaults."""

import base64
import json
import threading
import time
from collections.abc import Iterator

import pytest
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2, pps_pb2
from tests.pps.helpers import (
    Gate,
    create,
    delete,
    glob,
    inspect,
    job_list,
    last_job,
    log_lines,
    names,
    new_repo,
    pipeline,
    put,
    read,
    repo,
    wait_for,
)


@pytest.fixture(scope="module", autouse=True)
def some_jobs(client: Client) -> None:
    """`good` and `bad` with two jobs each over `many`."""
    new_repo(client, "many", {"/a": b"1"})
    create(client, "good", "cp /pfs/many/* /pfs/out/\necho said $many", input=glob("many"))
    create(client, "bad", "exit 1", input=glob("many"), datum_tries=1)
    last_job(client, "bad")
    put(client, "many", {"/b": b"2"})
    last_job(client, "good")
    last_job(client, "bad")


def pipelines(client: Client, **more: object) -> list[str]:
    return [i.pipeline.name for i in client.pps.ListPipeline(pps_pb2.ListPipelineRequest(**more))]  # type: ignore


def test_jq_filters_jobs(client: Client) -> None:
    def jobs_of(expression: str) -> list[pps_pb2.JobInfo]:
        return list(client.pps.ListJob(pps_pb2.ListJobRequest(jqFilter=expression, details=True)))

    assert {j.job.pipeline.name for j in jobs_of('.state == "JOB_FAILURE"')} == {"bad"}
    assert len(jobs_of('.state == "JOB_FAILURE" or .state == "JOB_SUCCESS"')) == 4
    assert len(jobs_of('.job.pipeline.name == "good" and (.data_total | tonumber) == 2')) == 1
    assert [j.job.pipeline.name for j in jobs_of('select(.data_failed == "2")')] == ["bad"]
    assert jobs_of("null") == [] and jobs_of("empty") == [] and len(jobs_of("0")) == 4


def test_jq_filters_pipelines_and_job_sets(client: Client) -> None:
    assert pipelines(client, jqFilter='.pipeline.name | startswith("ba")') == ["bad"]
    assert pipelines(client, jqFilter='.details.input.pfs.glob == "/*"') == ["bad", "good"]
    sets = list(client.pps.ListJobSet(pps_pb2.ListJobSetRequest(jqFilter='.state == "JOB_FAILURE"')))
    assert [[j.job.pipeline.name for j in s.jobs] for s in sets] == [["bad"], ["bad"]]
    first = list(client.pps.ListJobSet(pps_pb2.ListJobSetRequest(number=1, jqFilter='.job.pipeline.name == "good"')))
    assert len(first) == 1 and first[0].jobs[0].data_total == 2


def test_bad_and_hostile_filters(client: Client) -> None:
    with pytest.raises(RpcError, match="error parsing jq filter"):
        list(client.pps.ListJob(pps_pb2.ListJobRequest(jqFilter=".state ==")))
    with pytest.raises(RpcError, match="error applying jq filter"):
        list(client.pps.ListJob(pps_pb2.ListJobRequest(jqFilter=".state + 1")))
    seen: list[str] = []

    def endless() -> None:
        try:
            list(client.pps.ListJob(pps_pb2.ListJobRequest(jqFilter="[range(1e12)]")))
        except RpcError as error:
            seen.append(str(error))

    thread = threading.Thread(target=endless)
    thread.start()
    inspect(client, "good")
    assert not seen  # it does not hold up others
    thread.join(120)
    assert seen and "jq filter" in seen[0]


def test_list_job_sets_pages(client: Client) -> None:
    all_sets = [s.job_set.id for s in client.pps.ListJobSet(pps_pb2.ListJobSetRequest())]
    backwards = [s.job_set.id for s in client.pps.ListJobSet(pps_pb2.ListJobSetRequest(reverse=True))]
    assert backwards == all_sets[::-1] and len(all_sets) == 3
    request = pps_pb2.ListJobSetRequest(number=1)
    newest = list(client.pps.ListJobSet(request))
    request.paginationMarker.CopyFrom(max((j.created for j in newest[0].jobs), key=lambda t: t.ToNanoseconds()))
    assert [s.job_set.id for s in client.pps.ListJobSet(request)] == all_sets[1:2]
    with pytest.raises(RpcError, match="number must be non-negative"):
        list(client.pps.ListJobSet(pps_pb2.ListJobSetRequest(number=-1)))


def test_history_of_a_pipeline(client: Client) -> None:
    create(client, "versions", "echo 1", input=glob("many"))
    last_job(client, "versions")
    create(client, "versions", "echo 2", update=True, input=glob("many"))
    assert last_job(client, "versions").data_skipped == 2
    create(client, "versions", "echo 3", update=True, reprocess=True, input=glob("many"))
    assert last_job(client, "versions").data_processed == 2
    request = pps_pb2.ListPipelineRequest(pipeline=pipeline("versions"), history=-1)
    assert [i.version for i in client.pps.ListPipeline(request)] == [3, 2, 1]
    assert [j.pipeline_version for j in job_list(client, "versions")] == [3]
    assert [j.pipeline_version for j in job_list(client, "versions", history=1)] == [3, 2]
    assert [j.pipeline_version for j in job_list(client, "versions", history=-1)] == [3, 2, 1]
    assert inspect(client, "versions^").version == 2
    assert inspect(client, "versions~2").details.transform.stdin == ["echo 1"]
    with pytest.raises(RpcError):
        inspect(client, "versions^3")
    client.pps.RerunPipeline(pps_pb2.RerunPipelineRequest(pipeline=pipeline("versions"), reprocess=True))
    job = last_job(client, "versions")
    assert (job.pipeline_version, job.data_processed) == (4, 2)
    delete(client, "versions")


def test_subscribe_job_sends_each_job_once(client: Client) -> None:
    new_repo(client, "stream", {"/a": b""})
    with Gate() as gate:
        create(client, "watched", gate.shell, input=glob("stream"))
        stream = client.pps.SubscribeJob(pps_pb2.SubscribeJobRequest(pipeline=pipeline("watched"), details=True))
        got = [next(stream)]  # the job that waits
        gate.open()
        last_job(client, "watched")
        for path in ("/b", "/c"):
            put(client, "stream", {path: b""})
            last_job(client, "watched")
    got += [next(stream), next(stream)]
    stream.close()
    assert [j.job.id for j in got] == [j.job.id for j in job_list(client, "watched")][::-1]
    assert got[0].details.transform.cmd == ["bash", "-e"]


def test_update_job_state(client: Client) -> None:
    new_repo(client, "slow", {"/a": b""})
    create(client, "sleeper", "sleep 1000", input=glob("slow"))
    job = wait_for(lambda: [j for j in job_list(client, "sleeper") if j.state == pps_pb2.JOB_RUNNING], "running")[0].job
    update = pps_pb2.UpdateJobStateRequest(job=job, state=pps_pb2.JOB_KILLED, reason="enough", data_total=5)
    client.pps.UpdateJobState(update)
    info = last_job(client, "sleeper")
    assert (info.state, info.reason, info.data_total) == (pps_pb2.JOB_KILLED, "enough", 5)
    with pytest.raises(RpcError, match="has already finished"):
        client.pps.UpdateJobState(update)
    delete(client, "sleeper")


def test_stop_delete_and_restart(client: Client) -> None:
    new_repo(client, "work", {"/a": b"x"})
    create(client, "worker", "echo try\nsleep 1000", input=glob("work"))
    job = wait_for(lambda: [j for j in job_list(client, "worker") if j.state == pps_pb2.JOB_RUNNING], "running")[0].job

    def tries() -> int:
        return [line.message for line in log_lines(client, "worker")].count("try")

    wait_for(lambda: tries() == 1, "a datum that runs")
    info = client.pps.InspectJob(pps_pb2.InspectJobRequest(job=job, details=True))
    assert [data.path for data in info.details.worker_status[0].datum_status.data] == ["/a"]
    with pytest.raises(RpcError, match=r"datum matching filter \[/nope\] could not be found for job ID"):
        client.pps.RestartDatum(pps_pb2.RestartDatumRequest(job=job, data_filters=["/nope"]))
    client.pps.RestartDatum(pps_pb2.RestartDatumRequest(job=job, data_filters=["/a"]))
    wait_for(lambda: tries() == 2, "the datum again")
    client.pps.StopJob(pps_pb2.StopJobRequest(job=job, reason="not needed"))
    assert last_job(client, "worker").state == pps_pb2.JOB_KILLED
    client.pps.DeleteJob(pps_pb2.DeleteJobRequest(job=job))
    assert job_list(client, "worker") == []
    assert names(client, "worker") == []
    delete(client, "worker")


TEMPLATE = """
local squared(x) = { glob: "/*", repo: x };
function(name, repo, suffix="") {
  pipeline: { name: name + suffix },
  transform: { cmd: ["bash"], stdin: ["cp /pfs/%s/* /pfs/out/" % repo] },
  input: { pfs: squared(repo) },
}
"""


def test_render_template(client: Client) -> None:
    request = pps_pb2.RenderTemplateRequest(template=TEMPLATE, args={"name": "tpl", "repo": "many", "suffix": "-1"})
    response = client.pps.RenderTemplate(request)
    spec = json.loads(response.json)
    assert spec["pipeline"] == {"name": "tpl-1"} and spec["input"]["pfs"]["repo"] == "many"
    assert [s.pipeline.name for s in response.specs] == ["tpl-1"]
    client.pps.CreatePipelineV2(pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=response.json))
    assert last_job(client, "tpl-1").data_processed == 2
    several = client.pps.RenderTemplate(
        pps_pb2.RenderTemplateRequest(template='[{pipeline: {name: "p" + i}} for i in ["1", "2"]]')
    )
    assert [s.pipeline.name for s in several.specs] == ["p1", "p2"]
    delete(client, "tpl-1")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{ a: ", "template err"),
        ("function(name) name", "template err"),
        ('"text"', "not a json object or list"),
        ('import "/etc/hostname"', "only http and https"),
        ('importstr "/etc/passwd"', "only http and https"),
        ("local f(x) = f(x + 1) tailstrict; f(0)", "template err"),
        ('{pipeline: {name: "a"}, nonsense: 1}', "nonsense"),
    ],
)
def test_bad_and_hostile_templates(client: Client, template: str, words: str) -> None:
    with pytest.raises(RpcError, match=words):
        client.pps.RenderTemplate(pps_pb2.RenderTemplateRequest(template=template), timeout=60)


def test_create_datum_in_lots(client: Client) -> None:
    new_repo(client, "lots", {f"/{i:03}": b"" for i in range(230)})
    source = pps_pb2.Input(pfs=pps_pb2.PFSInput(repo="lots", glob="/*"))
    asked = threading.Semaphore(0)

    def requests() -> Iterator[pps_pb2.CreateDatumRequest]:
        yield pps_pb2.CreateDatumRequest(start=pps_pb2.StartCreateDatumRequest(input=source))
        for number in (20, 0, 100):
            asked.acquire(timeout=120)
            request = pps_pb2.CreateDatumRequest()
            getattr(request, "continue").number = number
            yield request

    stream = client.pps.CreateDatum(requests())
    seen = []
    for count in (100, 20, 100, 10):
        seen += [next(stream).datum.id for _ in range(count)]
        asked.release()
    assert list(stream) == [] and len(set(seen)) == 230


def secret(client: Client, name: str, **values: str) -> None:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    document = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}, "type": "Opaque", "data": data}
    client.pps.CreateSecret(pps_pb2.CreateSecretRequest(file=json.dumps(document).encode()))


def test_secrets_as_variables_and_files(client: Client) -> None:
    secret(client, "keys", token="s3cr3t", other="more")
    transform = {
        "secrets": [{"name": "keys", "key": "token", "env_var": "TOKEN"}, {"name": "keys", "mount_path": "/keys"}]
    }
    script = "echo $TOKEN > /pfs/out/env\ncat /keys/token /keys/other > /pfs/out/files"
    create(client, "secretive", script, transform=transform, input=glob("many", "/a"))
    assert last_job(client, "secretive").state == pps_pb2.JOB_SUCCESS
    assert read(client, "secretive", "/env") == b"s3cr3t\n"
    assert read(client, "secretive", "/files") == b"s3cr3tmore"
    info = client.pps.InspectSecret(pps_pb2.InspectSecretRequest(secret=pps_pb2.Secret(name="keys")))
    assert (info.secret.name, info.type) == ("keys", "Opaque") and b"s3cr3t" not in info.SerializeToString()
    from google.protobuf.empty_pb2 import Empty

    assert [s.secret.name for s in client.pps.ListSecret(Empty()).secret_info] == ["keys"]
    with pytest.raises(RpcError) as twice:
        secret(client, "keys", token="again")
    assert twice.value.code == Status.UNKNOWN
    client.pps.DeleteSecret(pps_pb2.DeleteSecretRequest(secret=pps_pb2.Secret(name="keys")))
    with pytest.raises(RpcError, match='secrets "keys" not found'):
        client.pps.InspectSecret(pps_pb2.InspectSecretRequest(secret=pps_pb2.Secret(name="keys")))
    with pytest.raises(RpcError, match="missing Kubernetes secret keys"):
        create(client, "secretless", script, transform=transform, input=glob("many", "/a"))


def test_logs_by_datum_time_and_tail(client: Client) -> None:
    job = last_job(client, "good").job
    said = [line.message for line in client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job)) if line.user]
    assert said == ["said /pfs/many/b"]
    lines = [line for line in log_lines(client, "good") if line.user]
    assert [line.message for line in lines] == ["said /pfs/many/a", "said /pfs/many/b"]
    assert [x.message for x in log_lines(client, "good", data_filters=["/a"]) if x.user] == ["said /pfs/many/a"]
    assert {x.datum_id for x in log_lines(client, "good", data_filters=["/a"])} == {lines[0].datum_id}
    assert [x.message for x in log_lines(client, "good", tail=1)] == [log_lines(client, "good")[-1].message]
    time.sleep(1.1)
    request = pps_pb2.GetLogsRequest(pipeline=pipeline("good"))
    request.since.FromSeconds(1)
    assert list(client.pps.GetLogs(request)) == []
    datum = pps_pb2.Datum(job=job, id=lines[1].datum_id)
    said = client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job, datum=datum))
    assert [x.message for x in said if x.user] == ["said /pfs/many/b"]
    with pytest.raises(RpcError, match="must specify the Job or Pipeline"):
        list(client.pps.GetLogs(pps_pb2.GetLogsRequest(datum=datum)))
    assert log_lines(client, "good", master=True) == []
    with pytest.raises(RpcError, match="could not get pipeline information for default/nope: ") as raised:
        log_lines(client, "nope")
    assert raised.value.code == Status.NOT_FOUND
    job.id = "0" * 32
    with pytest.raises(RpcError, match=f'could not get job information for "{job.id}": jobs default/good@') as raised:
        list(client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job)))
    assert raised.value.code == Status.NOT_FOUND


def test_logs_follow_a_running_job(client: Client) -> None:
    new_repo(client, "talk", {"/a": b""})
    with Gate() as gate:
        create(client, "talker", f"echo line 1; {gate.shell}; echo line 2; echo line 3", input=glob("talk"))
        job = job_list(client, "talker")[0].job
        stream = client.pps.GetLogs(pps_pb2.GetLogsRequest(job=job, follow=True))
        said = (line.message for line in stream if line.user)
        assert next(said) == "line 1"  # when it was printed, not at the end
    assert list(said) == ["line 2", "line 3"]


def test_defaults_of_cluster_and_project(client: Client) -> None:
    text = '{"createPipelineRequest": {"datumTries": "7", "resourceRequests": {"cpu": 2}}}'
    old = client.pps.GetClusterDefaults(pps_pb2.GetClusterDefaultsRequest()).cluster_defaults_json
    affected = client.pps.SetClusterDefaults(
        pps_pb2.SetClusterDefaultsRequest(cluster_defaults_json=text, regenerate=True, dry_run=True)
    ).affected_pipelines
    assert {p.name for p in affected} >= {"good"}
    client.pps.SetClusterDefaults(pps_pb2.SetClusterDefaultsRequest(cluster_defaults_json=text))
    client.pfs.CreateProject(pfs_pb2.CreateProjectRequest(project=pfs_pb2.Project(name="other")))
    client.pps.SetProjectDefaults(
        pps_pb2.SetProjectDefaultsRequest(
            project=pfs_pb2.Project(name="default"),
            project_defaults_json='{"createPipelineRequest": {"datumTries": "5"}}',
        )
    )
    try:
        create(client, "defaulted", "true", input=glob("many"))
        details = inspect(client, "defaulted").details
        assert (details.datum_tries, details.resource_requests.cpu) == (5, 2)
        with pytest.raises(RpcError) as wrong:
            client.pps.SetClusterDefaults(pps_pb2.SetClusterDefaultsRequest(cluster_defaults_json='{"nonsense": 1}'))
        assert wrong.value.code == Status.INVALID_ARGUMENT
        create(client, "defaulted", "true", update=True, input=glob("many"), datum_tries=2)
        assert inspect(client, "defaulted").details.datum_tries == 2
    finally:
        client.pps.SetProjectDefaults(
            pps_pb2.SetProjectDefaultsRequest(
                project=pfs_pb2.Project(name="default"), project_defaults_json='{"createPipelineRequest": {}}'
            )
        )
        client.pps.SetClusterDefaults(pps_pb2.SetClusterDefaultsRequest(cluster_defaults_json=old, regenerate=True))
    assert inspect(client, "good").details.datum_tries == 3
    delete(client, "defaulted")


def test_run_pipeline_is_what_it_is_in_pachyderm(client: Client) -> None:
    with pytest.raises(RpcError, match="unimplemented"):
        client.pps.RunPipeline(pps_pb2.RunPipelineRequest(pipeline=pipeline("good")))


def test_specs_nested_without_end(client: Client) -> None:
    for text in ("[" * 100_000, '{"input":' * 3000 + "1" + "}" * 3000):
        with pytest.raises(RpcError) as refused:
            client.pps.CreatePipelineV2(pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=text))
        assert refused.value.code == Status.INVALID_ARGUMENT
    nested = "{pipeline: std.foldl(function(a, b) {x: a}, std.range(1, 300), 1)}"
    with pytest.raises(RpcError):
        client.pps.RenderTemplate(pps_pb2.RenderTemplateRequest(template=nested), timeout=60)


def test_code_sees_links_into_a_scratch_folder(client: Client) -> None:
    script = """
cd /pfs
find . -maxdepth 1 | sort > out/found
for each in .env many out; do readlink $each; done > out/links
find /pfs -type f -path '*/many/*' > out/files
cat /pfs/many/* > out/read
"""
    create(client, "looks", script, input=glob("many", "/a"))
    assert last_job(client, "looks").state == pps_pb2.JOB_SUCCESS
    assert read(client, "looks", "/found").decode().split() == [".", "./.env", "./.scratch", "./many", "./out"]
    datum = next(iter(client.pps.ListDatum(pps_pb2.ListDatumRequest(job=last_job(client, "looks").job)))).datum.id
    links = read(client, "looks", "/links").decode().split()
    folder = links[0].removesuffix("/.env")
    assert links == [f"{folder}/{name}" for name in (".env", "many", "out")]
    assert folder.startswith("/pfs/.scratch/") and folder.endswith(f"/{datum}/pfs/{datum}")
    assert read(client, "looks", "/files").decode() == f"{folder}/many/a\n"
    assert read(client, "looks", "/read") == b"1"
    delete(client, "looks")


@pytest.mark.parametrize("recovered", [False, True])
def test_the_meta_repo_keeps_what_a_failed_datum_put_out(client: Client, recovered: bool) -> None:
    transform = {"err_cmd": ["true"]} if recovered else {}
    create(client, "half", "echo x > /pfs/out/x\nexit 1", input=glob("many", "/a"), datum_tries=1, transform=transform)
    job = last_job(client, "half")
    assert job.state == (pps_pb2.JOB_SUCCESS if recovered else pps_pb2.JOB_FAILURE)
    datum = next(iter(client.pps.ListDatum(pps_pb2.ListDatumRequest(job=job.job)))).datum.id
    expected = [f"/meta/{datum}/meta", *(f"/pfs/{datum}/{name}" for name in (".env", "many/a", "out/x"))]
    assert names(client, "half", "meta") == expected
    assert names(client, "half") == []
    delete(client, "half")


def test_lazy_and_empty_inputs_are_in_the_meta_repo_as_the_code_had_them(client: Client) -> None:
    create(client, "idle", "true", input=glob("many", "/a", lazy=True))
    create(client, "blank", "true", input=glob("many", "/a", empty_files=True))
    for name, expected in (("idle", []), ("blank", [("/many/a", 0)])):
        last_job(client, name)
        commit = pfs_pb2.Commit(repo=repo(name, "meta"), branch=pfs_pb2.Branch(repo=repo(name, "meta"), name="master"))
        files = client.pfs.GlobFile(pfs_pb2.GlobFileRequest(commit=commit, pattern="/pfs/*/many/*"))
        assert [(f.file.path[len("/pfs/") + 64 :], f.size_bytes) for f in files] == expected
        delete(client, name)


def test_starting_a_pipeline_that_was_not_stopped(client: Client) -> None:
    """Pachyderm makes a job when the input changed after the spec, else none."""
    new_repo(client, "again", {"/a": b"1"})
    create(client, "starts", "true", input=glob("again"))
    client.pps.StartPipeline(pps_pb2.StartPipelineRequest(pipeline=pipeline("starts")))
    assert len(job_list(client, "starts")) == 1
    put(client, "again", {"/b": b"1"})
    assert len(job_list(client, "starts")) == 2
    client.pps.StartPipeline(pps_pb2.StartPipelineRequest(pipeline=pipeline("starts")))
    assert len(job_list(client, "starts")) == 3
    last_job(client, "starts")
    assert inspect(client, "starts").version == 1
    delete(client, "starts")


def test_jobs_of_earlier_versions_are_listed_only_with_history(client: Client) -> None:
    create(client, "twice", "true", input=glob("many"))
    last_job(client, "twice")
    create(client, "twice", "true; true", update=True, input=glob("many"))
    last_job(client, "twice")

    def versions(history: int) -> list[int]:
        found = client.pps.ListJob(pps_pb2.ListJobRequest(history=history))
        return [job.pipeline_version for job in found if job.job.pipeline.name == "twice"]

    assert versions(0) == [2]
    assert versions(1) == versions(-1) == [2, 1]
    delete(client, "twice")


def test_list_pipeline_names_one_that_is_not_there(client: Client) -> None:
    with pytest.raises(RpcError, match='pipeline "default/nope" not found') as raised:
        pipelines(client, pipeline=pipeline("nope"))
    assert raised.value.code == Status.NOT_FOUND


def test_a_deleted_job_is_told_as_such(client: Client) -> None:
    gate = Gate()
    create(client, "gone", gate.shell, input=glob("many", "/"))
    job = job_list(client, "gone")[0].job
    answers: list[str] = []

    def wait() -> None:
        try:
            client.pps.InspectJob(pps_pb2.InspectJobRequest(job=job, wait=True), timeout=120)
        except RpcError as error:
            answers.append(str(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    client.pps.InspectJob(pps_pb2.InspectJobRequest(job=job))
    client.pps.DeleteJob(pps_pb2.DeleteJobRequest(job=job))
    waiter.join(120)
    assert len(answers) == 1 and ("was deleted" in answers[0] or "not found" in answers[0])
    commit = client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=pfs_pb2.Commit(repo=repo("gone"), id=job.id)))
    assert commit.error == "job deleted"
    gate.open()
    delete(client, "gone")


def test_requests_about_datums_that_say_too_little_or_too_much(client: Client) -> None:
    job = last_job(client, "good").job
    with pytest.raises(RpcError, match="cannot specify both job and input"):
        list(client.pps.ListDatum(pps_pb2.ListDatumRequest(job=job, input=pps_pb2.Input())))
    with pytest.raises(RpcError, match="number must be > 0 when reverse is set"):
        list(client.pps.ListDatum(pps_pb2.ListDatumRequest(job=job, reverse=True)))
    cron = pps_pb2.Input(cron=pps_pb2.CronInput(name="c", spec="@yearly"))
    with pytest.raises(RpcError, match="can't list datums with a cron input"):
        list(client.pps.ListDatum(pps_pb2.ListDatumRequest(input=cron)))
    assert len(list(client.pps.ListDatum(pps_pb2.ListDatumRequest(job=job, number=-1)))) == 2
    with pytest.raises(RpcError, match="must specify a datum"):
        client.pps.InspectDatum(pps_pb2.InspectDatumRequest(datum=pps_pb2.Datum(job=job)))
    with pytest.raises(RpcError, match="must specify a job"):
        client.pps.InspectDatum(pps_pb2.InspectDatumRequest(datum=pps_pb2.Datum(id="0" * 64)))
    with pytest.raises(RpcError, match=f"datum {'0' * 64} not found in job") as raised:
        client.pps.InspectDatum(pps_pb2.InspectDatumRequest(datum=pps_pb2.Datum(job=job, id="0" * 64)))
    assert raised.value.code == Status.UNKNOWN


def test_inspect_datum_says_where_its_files_are(client: Client) -> None:
    job = last_job(client, "good").job
    listed = next(iter(client.pps.ListDatum(pps_pb2.ListDatumRequest(job=job))))
    assert not listed.HasField("pfs_state")
    info = client.pps.InspectDatum(pps_pb2.InspectDatumRequest(datum=pps_pb2.Datum(job=job, id=listed.datum.id)))
    state = info.pfs_state
    assert (state.path, state.commit.id) == (f"/pfs/{info.datum.id}", job.id)
    assert state.commit.repo == repo("good", "meta") and state.commit.branch.name == "master"
    files = list(client.pfs.ListFile(pfs_pb2.ListFileRequest(file=state)))
    assert {f.file.path.rsplit("/", 1)[0].split("/")[2] for f in files} == {info.datum.id}


def test_summaries_and_alerts(client: Client) -> None:
    def summary(*names: str) -> list[tuple[str, int]]:
        pickers = [pfs_pb2.ProjectPicker(name=name) for name in names]
        found = client.pps.PipelinesSummary(pps_pb2.PipelinesSummaryRequest(projects=pickers)).summaries
        return [(each.project.name, each.active_pipelines) for each in found]

    client.pfs.CreateProject(pfs_pb2.CreateProjectRequest(project=pfs_pb2.Project(name="bare")))
    assert summary() == summary("default") == summary("bare", "default") and summary()[0][0] == "default"
    assert summary("bare") == []
    with pytest.raises(RpcError, match="project picker"):
        client.pps.PipelinesSummary(pps_pb2.PipelinesSummaryRequest(projects=[pfs_pb2.ProjectPicker()]))
    create(client, "calm", "true", input=glob("many"), maximum_expected_uptime="86400s")
    last_job(client, "calm")
    alerts = {a.pipeline.name: a.alerts for a in client.pps.CheckStatus(pps_pb2.CheckStatusRequest())}
    assert "calm" not in alerts and "exceeded maximum uptime by" in alerts["good"][0]
    delete(client, "calm")


def test_delete_pipelines_of_no_project_deletes_none(client: Client) -> None:
    before = pipelines(client)
    assert before and not client.pps.DeletePipelines(pps_pb2.DeletePipelinesRequest()).pipelines
    assert pipelines(client) == before


def test_a_secret_of_another_suite_is_refused(client: Client) -> None:
    document = {"metadata": {"name": "foreign", "labels": {"suite": "other"}}, "data": {}}
    with pytest.raises(RpcError, match="invalid suite label set on secret: suite=other"):
        client.pps.CreateSecret(pps_pb2.CreateSecretRequest(file=json.dumps(document).encode()))


def test_a_stopped_pipeline_says_how_many_workers_it_would_have(client: Client) -> None:
    create(client, "halted", "true", input=glob("many"), parallelism_spec={"constant": 2})
    client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("halted")))
    details = inspect(client, "halted").details
    assert (details.workers_requested, details.workers_available) == (2, 0)
    delete(client, "halted")
