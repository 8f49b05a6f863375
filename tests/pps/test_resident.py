"""Spouts and services: code that runs for ever."""

import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pachd.client import Client
from pachd.proto import pfs_pb2, pps_pb2
from tests.pps.helpers import (
    commit_infos,
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
    wait_for,
)
from tests.processes import Pachd, free_port, running


def get(port: int, path: str = "/") -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_spout_makes_commits_with_pachctl(client: Client) -> None:
    script = (
        "echo one > f\npachctl put file spring@master:/a -f f\necho two | pachctl put file spring@master:/d/b\necho did"
    )
    create(client, "spring", script + "\nsleep 1000", spout={})
    wait_for(lambda: names(client, "spring") == ["/a", "/d/b"], "the spout's files")
    assert read(client, "spring", "/d/b") == b"two\n"
    wait_for(lambda: [x.message for x in log_lines(client, "spring") if x.user] == ["did"], "its log")
    infos = commit_infos(client, "spring", all=True)
    assert [info.origin.kind for info in infos] == [pfs_pb2.USER, pfs_pb2.USER, pfs_pb2.AUTO]
    assert infos[-1].description == "close spout commit"
    wait_for(lambda: inspect(client, "spring").state == pps_pb2.PIPELINE_RUNNING, "RUNNING")
    assert job_list(client, "spring") == []
    delete(client, "spring")


def test_a_spout_stops_starts_and_is_updated(client: Client) -> None:
    put_line = "while true; do date +%N | pachctl put file geyser@master:/{}; sleep 0.2; done"
    create(client, "geyser", put_line.format("a"), spout={})
    wait_for(lambda: len(commit_infos(client, "geyser")) > 1, "commits")
    client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("geyser"), must_exist=True))
    assert inspect(client, "geyser").state == pps_pb2.PIPELINE_PAUSED
    # a commit may have been on its way when the code was killed
    wait_for(lambda: len(commit_infos(client, "geyser")) == (wait(1) or len(commit_infos(client, "geyser"))), "quiet")
    count = len(commit_infos(client, "geyser"))
    client.pps.StartPipeline(pps_pb2.StartPipelineRequest(pipeline=pipeline("geyser")))
    wait_for(lambda: len(commit_infos(client, "geyser")) > count, "commits after the start")
    create(client, "geyser", put_line.format("b"), update=True, spout={})
    wait_for(lambda: "/b" in names(client, "geyser"), "commits of the new version")
    delete(client, "geyser")


def wait(seconds: float) -> None:
    import time

    time.sleep(seconds)


def crashing(client: Client, name: str) -> str:
    """Why a pipeline is CRASHING, once it is."""

    def reason() -> str:
        info = inspect(client, name)
        return info.reason if info.state == pps_pb2.PIPELINE_CRASHING else ""

    return str(wait_for(reason, "CRASHING"))


def test_a_spout_that_fails_is_started_again(client: Client) -> None:
    create(client, "leaky", "echo try\nexit 7", spout={})
    assert "exit status 7" == crashing(client, "leaky")
    wait_for(lambda: [x.message for x in log_lines(client, "leaky")].count("try") >= 2, "a second try")
    delete(client, "leaky")


SERVER = """
import http.server, os
class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass
os.chdir("/pfs/{repo}")
http.server.HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""


def test_a_service_serves_its_input_and_follows_it(client: Client) -> None:
    new_repo(client, "pages")
    inside, outside = free_port(), free_port()
    service = {"internal_port": inside, "external_port": outside}
    script = f"exec python3 -c '{SERVER.format(repo='pages', port=inside)}'"
    create(client, "web", script, service=service, input=glob("pages", "/"))
    first = wait_for(lambda: [j for j in job_list(client, "web") if j.state == pps_pb2.JOB_RUNNING], "a job")[0]
    assert not first.HasField("started")
    assert inspect(client, "web").details.service.type == "NodePort"
    put(client, "pages", {"/index.html": b"first"})
    wait_for(lambda: get(outside) == "first", "the first page through the external port")
    wait_for(lambda: get(inside) == "first", "the first page past it")
    put(client, "pages", {"/index.html": b"second"})
    wait_for(lambda: get(outside) == "second", "the second page")
    states = [pps_pb2.JOB_RUNNING, pps_pb2.JOB_SUCCESS, pps_pb2.JOB_SUCCESS]
    wait_for(lambda: [job.state for job in job_list(client, "web")] == states, "the states of the three jobs")
    client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("web"), must_exist=True))
    wait_for(lambda: get(outside) == "", "nothing listens after the stop")
    wait_for(lambda: job_list(client, "web")[0].state == pps_pb2.JOB_KILLED, "the end of its job")
    delete(client, "web")


def test_a_service_whose_port_is_taken_says_so(client: Client) -> None:
    new_repo(client, "page", {"/index.html": b"x"})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        create(
            client, "late", "sleep 1000", service={"internal_port": 1, "external_port": port}, input=glob("page", "/")
        )
        assert f"external port {port}" in crashing(client, "late")
    wait_for(lambda: inspect(client, "late").state == pps_pb2.PIPELINE_RUNNING, "RUNNING once the port is free")
    delete(client, "late")


def test_a_service_has_one_datum(client: Client) -> None:
    new_repo(client, "two", {"/a": b"", "/b": b""})
    create(client, "double", "true", service={"internal_port": 1}, input=glob("two", "/*"))
    job = wait_for(lambda: [j for j in job_list(client, "double") if j.state == pps_pb2.JOB_FAILURE], "its failure")[0]
    assert "services must have a single datum" in job.reason


@pytest.mark.parametrize("kind", ["spout", "service"])
def test_code_that_does_not_exist(client: Client, kind: str) -> None:
    name = f"absent-{kind}"
    more: dict[str, Any] = {"spout": {}}
    if kind == "service":
        new_repo(client, name + "-in", {"/index.html": b"x"})
        more = {"service": {"internal_port": 1}, "input": glob(name + "-in", "/")}
    create(client, name, "", transform={"cmd": ["/no/such/thing"], "stdin": []}, **more)
    assert "/no/such/thing" in crashing(client, name)
    delete(client, name)


def test_a_pipeline_changes_its_kind(client: Client) -> None:
    new_repo(client, "kind", {"/a": b"x"})
    create(client, "chameleon", "cp /pfs/kind/a /pfs/out/", input=glob("kind"))
    assert last_job(client, "chameleon").state == pps_pb2.JOB_SUCCESS
    create(client, "chameleon", "echo y | pachctl put file chameleon@master:/b\nsleep 1000", update=True, spout={})
    wait_for(lambda: "/b" in names(client, "chameleon"), "the spout's file")
    put(client, "kind", {"/a": b"z"})
    assert inspect(client, "chameleon").type == pps_pb2.PipelineInfo.PIPELINE_TYPE_SPOUT
    create(client, "chameleon", "cp /pfs/kind/a /pfs/out/c", update=True, input=glob("kind"))
    assert last_job(client, "chameleon").state == pps_pb2.JOB_SUCCESS
    assert read(client, "chameleon", "/c") == b"z"
    create(client, "born", "sleep 1000", spout={})
    create(client, "born", "cp /pfs/kind/a /pfs/out/", update=True, input=glob("kind"))
    assert last_job(client, "born").state == pps_pb2.JOB_SUCCESS
    assert names(client, "born") == ["/a"]
    delete(client, "chameleon")
    delete(client, "born")


def test_code_that_runs_for_ever_goes_on_after_a_kill(tmp_path: Path) -> None:
    port = free_port()
    with running(Pachd(tmp_path / "data")) as server:
        with Client(server.address) as client:
            new_repo(client, "pages", {"/index.html": b"still here"})
            script = f"exec python3 -c '{SERVER.format(repo='pages', port=port)}'"
            create(client, "web", script, service={"internal_port": port}, input=glob("pages", "/"))
            beat = "while true; do date +%N | pachctl put file heart@master:/beat; sleep 0.3; done"
            create(client, "heart", beat, spout={})
            wait_for(lambda: get(port) == "still here", "the page")
            wait_for(lambda: names(client, "heart"), "a beat")
        server.kill()
        wait_for(lambda: get(port) == "", "the service dies with its pachd")
        server.start()
        with Client(server.address) as client:
            wait_for(lambda: get(port) == "still here", "the page again")
            count = len(commit_infos(client, "heart"))
            wait_for(lambda: len(commit_infos(client, "heart")) > count, "beats again")
            wait_for(lambda: [j.state for j in job_list(client, "web")] == [pps_pb2.JOB_RUNNING], "its job")


def test_a_spout_with_a_port(client: Client) -> None:
    inside, outside = free_port(), free_port()
    script = f"exec python3 -c '{SERVER.format(repo='out', port=inside)}'"
    service = {"internal_port": inside, "external_port": outside}
    create(client, "well", "echo water > /pfs/out/index.html\n" + script, spout={"service": service})
    wait_for(lambda: get(outside) == "water\n", "the page through the external port")
    assert inspect(client, "well").details.spout.service.type == "NodePort"
    delete(client, "well")
    wait_for(lambda: get(outside) == "", "nothing listens after the delete")
