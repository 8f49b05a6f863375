"""Pipelines whose workers are containers of a real Docker engine."""

import base64
import contextlib
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pachd.client import Client
from pachd.proto import pfs_pb2, pps_pb2
from tests.docker.engine import IMAGE, Engine, add_shell, make_image, missing
from tests.docker.registry import Registry
from tests.processes import Pachd, free_port, running

_MISSING = missing()
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=_MISSING or "there is an engine")


class Loop:
    """A pachd with a client and what the tests say to it."""

    def __init__(self, pachd: Pachd) -> None:
        self.pachd, self.client = pachd, Client(pachd.address)

    def put(self, name: str, files: dict[str, bytes]) -> None:
        self.client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo(name)))
        requests = [pfs_pb2.ModifyFileRequest(set_commit=head(name))]
        for path, data in files.items():
            add = pfs_pb2.AddFile(path=path)
            add.raw.value = data
            requests.append(pfs_pb2.ModifyFileRequest(add_file=add))
        self.client.pfs.ModifyFile(iter(requests))

    def create(self, name: str, source: str, transform: dict[str, Any], glob: str = "/*", **more: Any) -> None:
        spec = {
            "pipeline": {"name": name},
            "transform": {"image": IMAGE, **transform},
            "input": {"pfs": {"repo": source, "glob": glob}},
            **more,
        }
        text = json.dumps(spec)
        self.client.pps.CreatePipelineV2(pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=text))

    def newest(self, name: str) -> pps_pb2.JobInfo:
        return next(iter(self.client.pps.ListJob(pps_pb2.ListJobRequest(pipeline=pipeline(name)))))

    def job(self, name: str, timeout: float = 240) -> pps_pb2.JobInfo:
        request = pps_pb2.InspectJobRequest(job=self.newest(name).job, wait=True, details=True)
        return self.client.pps.InspectJob(request, timeout=timeout)

    def pipeline(self, name: str) -> pps_pb2.PipelineInfo:
        return self.client.pps.InspectPipeline(pps_pb2.InspectPipelineRequest(pipeline=pipeline(name)))

    def wait_for(self, name: str, state: int, seconds: float = 240) -> pps_pb2.PipelineInfo:
        until = time.monotonic() + seconds
        while (info := self.pipeline(name)).state != state:
            assert time.monotonic() < until, (pps_pb2.PipelineState.Name(info.state), info.reason)
            time.sleep(0.1)
        return info

    def read(self, name: str, path: str) -> bytes:
        file = pfs_pb2.File(commit=head(name), path=path)
        return b"".join(part.value for part in self.client.pfs.GetFile(pfs_pb2.GetFileRequest(file=file)))

    def log(self, name: str) -> str:
        request = pps_pb2.GetLogsRequest(job=self.newest(name).job)
        return "\n".join(message.message for message in self.client.pps.GetLogs(request))


def wait_until(done: Callable[[], Any], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.1)


def repo(name: str) -> pfs_pb2.Repo:
    return pfs_pb2.Repo(name=name, type="user", project=pfs_pb2.Project(name="default"))


def head(name: str) -> pfs_pb2.Commit:
    return pfs_pb2.Commit(repo=repo(name), branch=pfs_pb2.Branch(repo=repo(name), name="master"))


def pipeline(name: str) -> pps_pb2.Pipeline:
    return pps_pb2.Pipeline(name=name, project=pfs_pb2.Project(name="default"))


def pachd_on(engine: Engine, folder: Path, mode: str) -> Pachd:
    server = Pachd(folder / "data")
    server.command += ["--executor", mode]
    server.env["DOCKER_HOST"] = engine.address
    return server


@pytest.fixture(scope="module")
def loop(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with running(pachd_on(engine, tmp_path_factory.mktemp("docker"), "auto")) as server:
        loop = Loop(server)
        yield loop
        loop.client.close()
        server.stop()
    assert not engine.containers()


def test_a_pipeline_in_its_image(loop: Loop, engine: Engine) -> None:
    loop.put("in", {"/a": b"1", "/b": b"22"})
    script = [
        "cat /pfs/in/* >/pfs/out/$(ls /pfs/in)",
        "echo $OF_IMAGE $MINE $PPS_PIPELINE_NAME $PACH_JOB_ID $PACH_IN_WORKER $in >/pfs/out/$(ls /pfs/in).env",
        "echo $PATH; pwd",
    ]
    transform = {"cmd": ["sh", "-e"], "stdin": script, "env": {"MINE": "set"}}
    loop.create("first", "in", transform, parallelismSpec={"constant": 2})
    job = loop.job("first")
    assert (job.state, job.data_processed) == (pps_pb2.JOB_SUCCESS, 2), job.reason
    assert loop.read("first", "/b") == b"22"
    assert loop.read("first", "/a.env").decode().split() == ["yes", "set", "first", job.job.id, "true", "/pfs/in/a"]
    log = loop.log("first")
    assert f"container of the image {IMAGE}" in log and "/work" in log and ".venv" not in log
    assert not engine.containers()


BATCH = """
import os, grpc
channel = grpc.insecure_channel("127.0.0.1:" + os.environ["PPS_WORKER_GRPC_PORT"])
next_datum = channel.unary_unary("/pachyderm.worker.Worker/NextDatum", bytes, bytes)
while True:
    next_datum(b"")
    name, = os.listdir("/pfs/many")
    open("/pfs/out/" + name, "w").write(f"{name} {os.getpid()} {os.uname().nodename}")
"""


def test_datum_batching(loop: Loop, engine: Engine) -> None:
    loop.put("many", {f"/{i}": b"%d" % i for i in range(60)})
    loop.create("batch", "many", {"cmd": ["python3", "-c", BATCH], "datumBatching": True})
    job = loop.job("batch")
    assert (job.state, job.data_processed) == (pps_pb2.JOB_SUCCESS, 60), job.reason
    said = {loop.read("batch", f"/{i}").split()[1] for i in (0, 30, 59)}
    assert said == {b"1"}  # one process, the first of its container
    assert not engine.containers()


def test_reasons_of_a_job(loop: Loop, engine: Engine) -> None:
    limits = {"memory": "64M", "cpu": 0.5}
    eat = {"cmd": ["python3", "-c", "bytearray(300 << 20)"]}
    loop.put("one", {"/x": b"1"})
    loop.create("hungry", "one", eat, resourceLimits=limits, datumTries=1)
    assert "out of memory: the code was killed at its limit of 64M" in (job := loop.job("hungry")).reason
    assert job.state == pps_pb2.JOB_FAILURE
    eat = {"cmd": ["python3", "-c", BATCH.replace("many", "one").replace("open(", "bytearray(300 << 20); open(", 1)]}
    loop.create("greedy", "one", {**eat, "datumBatching": True}, resourceLimits=limits, datumTries=1)
    assert "out of memory" in loop.job("greedy").reason
    loop.create("steal", "one", {"cmd": ["ln", "-s", "/etc/passwd", "/pfs/out/p"]}, datumTries=1)
    assert loop.job("steal").state == pps_pb2.JOB_FAILURE
    assert "only what is in /pfs and /tmp can be read" in loop.log("steal")
    detour = "ln -s /etc /tmp/e; ln -s /tmp/e/passwd /pfs/out/p"
    loop.create("detour", "one", {"cmd": ["sh", "-c", detour]}, datumTries=1)
    assert loop.job("detour").state == pps_pb2.JOB_FAILURE
    loop.create("inside", "one", {"cmd": ["sh", "-c", "echo 7 >/tmp/t; ln -s /tmp/t /pfs/out/t"]})
    assert loop.job("inside").state == pps_pb2.JOB_SUCCESS and loop.read("inside", "/t") == b"7\n"
    assert not engine.containers()


def test_stopping_a_job_removes_its_container(loop: Loop, engine: Engine) -> None:
    loop.put("slow-in", {"/x": b"1"})
    loop.create("slow", "slow-in", {"cmd": ["sleep", "300"]})
    wait_until(lambda: [c for c in engine.containers() if c["State"] == "running"])
    (found,) = engine.containers()
    assert found["Labels"]["howdah.pipeline"] == "default/slow"
    loop.client.pps.StopJob(pps_pb2.StopJobRequest(job=loop.newest("slow").job))
    wait_until(lambda: not engine.containers())


def test_a_service_and_a_spout(loop: Loop, engine: Engine) -> None:
    loop.put("served", {"/page": b"from a container"})
    inside, outside = free_port(), free_port()
    command = ["python3", "-m", "http.server", str(inside), "--bind", "127.0.0.1", "--directory", "/pfs/served"]
    loop.create("web", "served", {"cmd": command}, "/", service={"internal_port": inside, "external_port": outside})

    def page() -> bytes:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{outside}/page", timeout=5) as got:
            return bytes(got.read())
        return b""

    wait_until(lambda: page() == b"from a container")
    assert [c["Labels"]["howdah.pipeline"] for c in engine.containers()] == ["default/web"]
    delete = pps_pb2.DeletePipelineRequest(pipeline=pipeline("web"), force=True)
    loop.client.pps.DeletePipeline(delete)
    wait_until(lambda: not engine.containers())

    spec = {
        "pipeline": {"name": "talks"},
        "transform": {"image": IMAGE, "cmd": ["sh", "-c", "echo $OF_IMAGE $PPS_PIPELINE_NAME >/tmp/t; sleep 300"]},
        "spout": {},
    }
    text = json.dumps(spec)
    loop.client.pps.CreatePipelineV2(pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=text))
    wait_until(lambda: [c for c in engine.containers() if c["State"] == "running"])
    assert loop.wait_for("talks", pps_pb2.PIPELINE_RUNNING).reason == ""
    loop.client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("talks")))
    wait_until(lambda: not engine.containers())


def test_auto_falls_back_to_the_sandbox_and_says_so(loop: Loop) -> None:
    loop.put("plain", {"/x": b"1"})
    loop.create("elsewhere", "plain", {"image": "localhost:1/no/image:1", "cmd": ["cp", "/pfs/plain/x", "/pfs/out/x"]})
    assert loop.job("elsewhere").state == pps_pb2.JOB_SUCCESS
    assert "the image localhost:1/no/image:1 is not used: cannot pull the image" in loop.log("elsewhere")
    loop.create("unnamed", "plain", {"image": "", "cmd": ["cp", "/pfs/plain/x", "/pfs/out/x"]})
    assert loop.job("unnamed").state == pps_pb2.JOB_SUCCESS
    assert "image" not in loop.log("unnamed")


def test_an_image_is_pulled_with_a_login(loop: Loop) -> None:
    registry = Registry(lambda tar: add_shell(tar, set()))
    try:
        loop.put("p", {"/x": b"1"})
        transform = {"image": registry.image, "cmd": ["sh", "-c", "echo ${OF_IMAGE:-none} >/pfs/out/x"]}
        loop.create("stranger", "p", transform)
        assert loop.job("stranger").state == pps_pb2.JOB_SUCCESS
        assert loop.read("stranger", "/x") == b"none\n"
        assert f"cannot pull the image {registry.image}" in loop.log("stranger")
        login = base64.b64encode(registry.login.encode()).decode()
        secret = {"metadata": {"name": "login"}, "type": "kubernetes.io/dockerconfigjson"}
        document = json.dumps({**secret, "data": {".dockerconfigjson": login}}).encode()
        loop.client.pps.CreateSecret(pps_pb2.CreateSecretRequest(file=document))
        loop.create("friend", "p", {**transform, "imagePullSecrets": ["login"]})
        assert loop.job("friend").state == pps_pb2.JOB_SUCCESS
        assert loop.read("friend", "/x") == b"pulled\n", loop.log("friend")
    finally:
        registry.close()


def test_killed_pachd_leaves_no_container_behind(engine: Engine, tmp_path: Path) -> None:
    flag = "[ -e /pfs/once/done ] || sleep 300"
    with running(pachd_on(engine, tmp_path, "docker")) as server:
        loop = Loop(server)
        loop.put("once", {"/x": b"1"})
        loop.create("long", "once", {"cmd": ["sh", "-c", flag + "; cat /pfs/once/x >/pfs/out/x"]})
        wait_until(lambda: [c for c in engine.containers() if c["State"] == "running"])
        (left,) = engine.containers()
        server.kill()
        assert [c["Id"] for c in engine.containers()] == [left["Id"]]
        server.start()
        wait_until(lambda: left["Id"] not in [c["Id"] for c in engine.containers()])
        server.stop()  # its job runs again now: that container ends with it
        assert not engine.containers()


def test_docker_only_waits_for_the_engine_and_for_the_image(engine: Engine, tmp_path: Path) -> None:
    own = Engine(engine.folder / "second")
    server = pachd_on(own, tmp_path, "docker")
    try:
        with running(server):
            loop = Loop(server)
            loop.put("w", {"/x": b"1"})
            loop.create("wait", "w", {"cmd": ["sh", "-c", "cat /pfs/w/x >/pfs/out/x"]})
            info = loop.wait_for("wait", pps_pb2.PIPELINE_CRASHING)
            assert "no Docker engine answers" in info.reason
            assert loop.newest("wait").state not in (pps_pb2.JOB_FAILURE, pps_pb2.JOB_SUCCESS)
            own.start()
            until = time.monotonic() + 240
            while "cannot pull the image" not in (info := loop.pipeline("wait")).reason:
                assert time.monotonic() < until, info.reason
                time.sleep(0.1)
            assert info.state == pps_pb2.PIPELINE_CRASHING
            make_image(own)
            assert loop.job("wait").state == pps_pb2.JOB_SUCCESS
            assert loop.wait_for("wait", pps_pb2.PIPELINE_RUNNING).reason == ""
            slow = "sleep 4; cat /pfs/w/x >/pfs/out/x"
            loop.create("torn", "w", {"cmd": ["sh", "-c", slow]}, datumTries=1)
            wait_until(lambda: [c for c in own.containers() if c["State"] == "running"])
            own.stop()  # under the code; with nothing to do the pipeline says it as well
            loop.wait_for("torn", pps_pb2.PIPELINE_CRASHING)
            assert "no Docker engine answers" in loop.wait_for("wait", pps_pb2.PIPELINE_CRASHING).reason
            own.start()
            loop.wait_for("wait", pps_pb2.PIPELINE_RUNNING)
            assert loop.job("torn").state == pps_pb2.JOB_SUCCESS
            server.stop()
    finally:
        own.remove()
