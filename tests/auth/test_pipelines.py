"""Pipelines under access control: what they may do, and who may do something with them."""

import json
import time

from pachd.client import Client
from pachd.proto import auth_pb2, pfs_pb2, pps_pb2, transaction_pb2
from tests.auth.conftest import Guarded
from tests.auth.helpers import create, file, pipeline, put, refused


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
    versioned = pps_pb2.Pipeline(name="copy~0", project=named.project)
    refused(lambda: bob.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=versioned)), "REPO_WRITE", on=on)
    # it would be stopped before it is deleted
    refused(lambda: bob.pps.DeletePipeline(pps_pb2.DeletePipelineRequest(pipeline=named)), "REPO_WRITE", on=on)
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


def test_defaults_tell_who_set_them(guarded: Guarded) -> None:
    eve = guarded.robot("eve")
    for client, name in ((guarded.root, "of-root"), (eve, "of-eve")):
        project = pfs_pb2.Project(name=name)
        client.pfs.CreateProject(pfs_pb2.CreateProjectRequest(project=project))
        ask = pps_pb2.GetProjectDefaultsRequest(project=project)
        assert client.pps.GetProjectDefaults(ask).created_by == ""
        text = '{"createPipelineRequest": {"autoscaling": true}}'
        client.pps.SetProjectDefaults(pps_pb2.SetProjectDefaultsRequest(project=project, project_defaults_json=text))
        assert client.pps.GetProjectDefaults(ask).created_by == {"of-root": "pach:root", "of-eve": "robot:eve"}[name]


def test_a_transaction_cannot_make_what_its_text_does_not_say(guarded: Guarded) -> None:
    """What is made is the request itself, so that is what rights are asked for."""
    create(guarded.root, "vault")
    ivy = guarded.robot("ivy")
    request = pipeline("thief", "vault")
    request.pipeline.project.name = "default"
    for dry_run in (False, True):
        request.dry_run = dry_run
        made = pps_pb2.CreatePipelineTransaction(create_pipeline_request=request, user_json="{}", effective_json="{}")
        batch = transaction_pb2.BatchTransactionRequest()
        batch.requests.add().create_pipeline_v2.CopyFrom(made)
        refused(lambda: ivy.transaction.BatchTransaction(batch), "REPO_READ", on="REPO default/vault")  # noqa: B023


def test_who_makes_a_pipeline_in_a_batch_is_who_calls(guarded: Guarded) -> None:
    create(guarded.root, "forms")
    jan = guarded.robot("jan")
    guarded.bind("robot:jan", "repoReader", repo="default/forms")
    batch = transaction_pb2.BatchTransactionRequest()
    made = batch.requests.add().create_pipeline_v2
    made.create_pipeline_request.CopyFrom(pipeline("signed", "forms"))
    made.created_by = "pach:root"
    jan.transaction.BatchTransaction(batch)
    named = pps_pb2.Pipeline(name="signed", project=pfs_pb2.Project(name="default"))
    about = jan.pps.InspectPipeline(pps_pb2.InspectPipelineRequest(pipeline=named, details=True))
    assert about.details.created_by == "robot:jan"
