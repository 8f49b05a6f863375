"""Workers in containers of a real Docker engine, which the tests start and stop themselves."""

import base64
import contextlib
import json
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pachd.client import Client
from pachd.pps.container import Container
from pachd.pps.docker_engine import DockerEngine, EngineAway, NoImage
from pachd.pps.executor import Executor
from pachd.pps.limits import Limits
from pachd.pps.sandbox import Failed, Killed, NotReady
from pachd.proto import pfs_pb2, pps_pb2
from tests.docker.engine import IMAGE, Engine, add_shell, make_image, missing
from tests.docker.registry import Registry
from tests.processes import Pachd, free_port, running

_MISSING = missing()
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=_MISSING or "there is an engine")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    folder = Path(tempfile.mkdtemp(prefix="howdah-docker-"))  # a socket's path must be short
    found = Engine(folder)
    try:
        found.start()
        make_image(found)
        yield found
    finally:
        found.remove()
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())]


# --- the container by itself ----------------------------------------------------------------------------------------


@pytest.fixture
def make(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Container]]:
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    made: list[Container] = []

    def make(**more: Any) -> Container:
        box = Container(tmp_path / f"box{len(made)}", DockerEngine("test"), IMAGE, **more)
        (box.pfs / "out").mkdir()
        made.append(box)
        return box

    yield make
    for box in made:
        box.close()
    assert not engine.containers()


def run(box: Container, script: str, timeout: float = 60.0, stdin: bytes | None = None, cwd: str = "") -> Any:
    lines: list[bytes] = []
    code = box.run(["sh", "-c", script], stdin, {"SAID": "by the spec"}, cwd, timeout, lines.append)
    return code, lines


def test_it_sees_the_image_its_own_pfs_and_nothing_of_ours(make: Callable[..., Container]) -> None:
    box = make()
    (box.pfs / "in").mkdir()
    (box.pfs / "in" / "f").write_text("input")
    script = "cat /pfs/in/f; echo; echo $OF_IMAGE $SAID; pwd; id -u; echo x >/pfs/out/f"
    script += "; [ -e /home ] || echo nothing else"
    assert run(box, script) == (0, [b"input", b"yes by the spec", b"/work", b"0", b"nothing else"])
    assert (box.pfs / "out" / "f").read_text() == "x\n"


def test_user_and_working_directory(make: Callable[..., Container]) -> None:
    box = make(user="guest")
    assert run(box, "id -u; pwd; echo mine >/pfs/out/f && echo t >/tmp/t && echo written", cwd="/pfs/out") == (
        0,
        [b"1234", b"/pfs/out", b"written"],
    )
    assert (box.pfs / "out" / "f").stat().st_uid == 1234


def test_exit_code_both_streams_and_stdin(make: Callable[..., Container]) -> None:
    box = make()
    code, lines = run(box, "cat; echo oops >&2; exit 3", stdin=b"hello\nthere\n")
    assert code == 3 and sorted(lines) == [b"hello", b"oops", b"there"]
    assert run(box, "wc -c", stdin=b"0123456789\n" * 100_000) == (0, [b"1100000"])
    assert run(box, "exit 0", stdin=b"0123456789\n" * 100_000) == (0, [])  # it does not read all
    code, lines = run(box, "seq 1 200000")
    assert (code, len(lines), lines[-1]) == (0, 200_000, b"200000")


def test_timeout_also_of_code_that_prints_without_end(make: Callable[..., Container]) -> None:
    box = make()
    for script in ("echo before; sleep 1000", "while :; do echo on and on; done"):
        began = time.monotonic()
        with pytest.raises(Failed, match="timed out after 1 seconds"):
            run(box, script, timeout=1.0)
        assert time.monotonic() - began < 200
    assert run(box, "echo again") == (0, [b"again"])


def test_kill_from_another_thread(make: Callable[..., Container], engine: Engine) -> None:
    box = make()
    threading.Timer(1.5, box.kill).start()
    with pytest.raises(Killed):
        run(box, "sleep 60")
    with pytest.raises(Killed):
        run(box, "echo no more")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["no-such-program"], 'exec: "no-such-program": executable file not found in $PATH'),
        (["/no/such"], "fork/exec /no/such: no such file or directory"),
        (["/etc/passwd"], "fork/exec /etc/passwd: permission denied"),
    ],
)
def test_what_cannot_start(make: Callable[..., Container], command: list[str], reason: str) -> None:
    with pytest.raises(Failed) as problem:
        make().run(command, None, {}, "", 30.0, lambda line: None)
    assert str(problem.value) == reason


def test_out_of_memory(make: Callable[..., Container]) -> None:
    box = make(limits=Limits(memory=64 << 20, memory_text="64Mi"))
    code = box.run(["python3", "-c", "bytearray(300 << 20)"], None, {}, "", 60.0, lambda line: None)
    assert code == 137
    assert box.why(code) == "out of memory: the code was killed at its limit of 64Mi (resourceLimits.memory)"
    assert run(box, "exit 5")[0] == 5 and box.why(5) == "exit status 5"


def test_limits_that_the_machine_does_not_have(make: Callable[..., Container]) -> None:
    assert run(make(limits=Limits(cpu=1000.0, memory=1 << 40)), "echo runs") == (0, [b"runs"])
    with pytest.raises(Failed, match="did not start the code: .*[Mm]inimum memory limit"):
        run(make(limits=Limits(memory=1 << 20)), "echo runs")


def test_no_engine_and_no_image(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    away = DockerEngine("test")
    assert "no Docker engine answers" in away.problem()
    with pytest.raises(EngineAway):
        away.client()
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert "must be on this machine" in DockerEngine("test").problem()
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    here = DockerEngine("test")
    assert here.problem() == ""
    here.ensure(IMAGE)
    with pytest.raises(NoImage, match="cannot pull the image localhost:1/no/image:1"):
        here.ensure("localhost:1/no/image:1")


def test_as_whom_code_runs(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    where = Executor(str(tmp_path / "data"), "127.0.0.1:1", "docker")
    info = pps_pb2.PipelineInfo(pipeline=pipeline("p"))
    info.details.transform.image = IMAGE

    def user() -> str:
        box = where.place(info).box(tmp_path / "box", [])
        (box.pfs / "out").mkdir(exist_ok=True)
        lines: list[bytes] = []
        box.run(["id", "-u"], None, {}, "", 60.0, lines.append)
        box.close()
        return lines[0].decode()

    assert user() == "0"
    monkeypatch.setattr(DockerEngine, "own_user", lambda self: "1234:1234")  # as if pachd were not root
    assert user() == "1234"
    info.details.transform.user = "root"
    with pytest.raises(NotReady, match="could not remove what another one writes"):
        user()


# --- pipelines ------------------------------------------------------------------------------------------------------


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
