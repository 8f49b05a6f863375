"""A secret that was there when the pipeline was made, and is gone when its job begins."""

import json

from pachd.client import Client
from pachd.proto import pps_pb2
from tests.pps.helpers import create, glob, inspect, job_list, last_job, new_repo, put, read, wait_for


def keep(client: Client, name: str, value: str) -> None:
    document = {"kind": "Secret", "metadata": {"name": name}, "stringData": {"word": value}}
    client.pps.CreateSecret(pps_pb2.CreateSecretRequest(file=json.dumps(document).encode()))


def test_the_job_waits_for_the_secret_and_the_pipeline_says_so(client: Client) -> None:
    keep(client, "password", "sesame")
    new_repo(client, "doors", {"/front": b"1"})
    secret = {"name": "password", "key": "word", "envVar": "WORD"}
    create(client, "opener", "echo $WORD > /pfs/out/word", glob("doors", "/"), transform={"secrets": [secret]})
    assert last_job(client, "opener").state == pps_pb2.JOB_SUCCESS

    client.pps.DeleteSecret(pps_pb2.DeleteSecretRequest(secret=pps_pb2.Secret(name="password")))
    put(client, "doors", {"/back": b"2"})
    wait_for(lambda: inspect(client, "opener").state == pps_pb2.PIPELINE_CRASHING, "the pipeline crashes")
    assert 'secrets "password" not found' in inspect(client, "opener").reason
    assert not job_list(client, "opener", number=1)[0].HasField("finished")

    keep(client, "password", "abracadabra")
    assert last_job(client, "opener").state == pps_pb2.JOB_SUCCESS
    assert read(client, "opener", "/word") == b"abracadabra\n"
    wait_for(lambda: inspect(client, "opener").state == pps_pb2.PIPELINE_RUNNING, "the pipeline runs again")
