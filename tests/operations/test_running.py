"""Running pachd: its logs, its monitoring address, how it stops, and what a debug dump holds."""

import io
import json
import re
import signal
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpclib.const import Status

from pachd import logs
from pachd.client import Client, RpcError
from pachd.proto import auth_pb2, debug_pb2, pfs_pb2, pps_pb2
from tests.processes import Pachd, free_port, running

TOKEN = "a-root-token-that-nobody-may-see"
REPO = pfs_pb2.Repo(name="images", type="user", project=pfs_pb2.Project(name="default"))
BRANCH = pfs_pb2.Branch(repo=REPO, name="master")
HEAD = pfs_pb2.Commit(repo=REPO, branch=BRANCH)


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def lines_with(server: Pachd, word: str, count: int) -> list[str]:
    """The lines of the log with a word once there are so many: a call is logged after it was answered."""
    until = time.monotonic() + 120
    while len(found := [line for line in server.text().splitlines() if word in line]) < count:
        assert time.monotonic() < until, server.text()
        time.sleep(0.02)
    return found


def rpcs_running(port: int, count: int) -> None:
    """Wait until so many calls are under way."""
    until = time.monotonic() + 120
    while f"\npachd_rpcs_running {count}.0\n" not in get(port, "/metrics")[1]:
        assert time.monotonic() < until, get(port, "/metrics")[1]
        time.sleep(0.02)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pachd, int]]:
    """A pachd with access control, logs as JSON and a monitoring address, after a few calls; and the port of that."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "token").write_text(TOKEN)
    port = free_port()
    server = Pachd(folder / "data")
    server.command += ["--token-file", str(folder / "token"), "--metrics-address", f"127.0.0.1:{port}"]
    server.command += ["--log-format", "json", "--log-level", "info"]
    with running(server):
        with Client(server.address, token=TOKEN, timeout=30) as client:
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=REPO))
            with pytest.raises(RpcError):
                client.pfs.InspectRepo(pfs_pb2.InspectRepoRequest(repo=pfs_pb2.Repo(name="none", type="user")))
            client.auth.GetRobotToken(auth_pb2.GetRobotTokenRequest(robot="r2"))
            list(client.pfs.ListRepo(pfs_pb2.ListRepoRequest()))
        with Client(server.address, timeout=30) as stranger, pytest.raises(RpcError):
            list(stranger.pfs.ListRepo(pfs_pb2.ListRepoRequest()))
        lines_with(server, '"event": "call"', 5)  # counted, too
        yield server, port


def test_each_call_is_a_line_of_json(watched: tuple[Pachd, int]) -> None:
    server, _ = watched
    calls = [json.loads(line) for line in lines_with(server, '"event": "call"', 5)]
    found = {(call["rpc"], call["code"], call.get("principal")) for call in calls}
    assert ("/pfs_v2.API/CreateRepo", "OK", "pach:root") in found
    assert ("/pfs_v2.API/InspectRepo", "NOT_FOUND", "pach:root") in found
    assert ("/pfs_v2.API/ListRepo", "UNAUTHENTICATED", None) in found
    assert all(call["ms"] > 0 and call["level"] == "info" and call["timestamp"].endswith("Z") for call in calls)
    assert TOKEN not in server.text()


def test_metrics(watched: tuple[Pachd, int]) -> None:
    _, port = watched
    status, text = get(port, "/metrics")
    assert status == 200
    values = {m[1]: float(m[2]) for m in re.finditer(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)}
    assert values['pachd_rpcs_total{code="OK",rpc="/pfs_v2.API/CreateRepo"}'] == 1
    assert values['pachd_rpcs_total{code="UNAUTHENTICATED",rpc="/pfs_v2.API/ListRepo"}'] == 1
    assert values['pachd_rpc_seconds_count{rpc="/pfs_v2.API/ListRepo"}'] == 2
    assert values["pachd_repos"] == 1 and values["pachd_projects"] == 1 and values["pachd_auth_active"] == 1
    assert values["pachd_writes_total"] >= 2 and values["pachd_database_bytes"] > 1000
    assert values["pachd_rpcs_running"] == 0 and values["process_resident_memory_bytes"] > 1 << 20
    assert TOKEN not in text


def test_health(watched: tuple[Pachd, int]) -> None:
    _, port = watched
    assert get(port, "/healthz") == (200, "ok\n")
    assert get(port, "/readyz") == (200, "ready\n")
    assert get(port, "/secrets")[0] == 404


def members(archive: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name: tar.extractfile(m).read().decode() for m in tar}  # type: ignore[union-attr]


def test_debug_dump(watched: tuple[Pachd, int]) -> None:
    server, _ = watched
    with Client(server.address, token=TOKEN, timeout=30) as client:
        secret = {"kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "c2VjcmV0LXZhbHVl"}}
        client.pps.CreateSecret(pps_pb2.CreateSecretRequest(file=json.dumps(secret).encode()))
        chunks = list(client.debug.DumpV2(debug_pb2.DumpV2Request()))
        assert chunks[0].HasField("progress") and chunks[-1].HasField("content")
        tasks = [chunk.progress.task for chunk in chunks if chunk.HasField("progress")]
        assert tasks == ["version", "logs", "rpcs", "stacks", "metrics", "database"]
        found = members(b"".join(chunk.content.content for chunk in chunks))
        old = members(b"".join(piece.value for piece in client.debug.Dump(debug_pb2.DumpRequest())))
        assert set(old) == set(found) == {f"pachd/{task}.txt" for task in tasks}
        profile = debug_pb2.ProfileRequest(profile=debug_pb2.Profile(name="cpu"))
        profile.profile.duration.FromMilliseconds(300)
        stacks = members(b"".join(piece.value for piece in client.debug.Profile(profile)))["pachd/profile.txt"]
        assert re.search(r"MainThread;.* \d+$", stacks, re.MULTILINE)
    assert "python 3" in found["pachd/version.txt"]
    assert '"rpc": "/pfs_v2.API/CreateRepo"' in found["pachd/logs.txt"]
    assert re.search(r"/pfs_v2.API/CreateRepo OK \d+\.\d+ ms pach:root", found["pachd/rpcs.txt"])
    assert "thread MainThread" in found["pachd/stacks.txt"] and "thread read_0" in found["pachd/stacks.txt"]
    assert "pachd_rpcs_total" in found["pachd/metrics.txt"]
    assert re.search(r"^repos 1$", found["pachd/database.txt"], re.MULTILINE)
    for hidden in (TOKEN, "secret-value", "c2VjcmV0LXZhbHVl"):
        assert hidden not in "".join(found.values())


def test_the_log_level_is_set_for_a_while(watched: tuple[Pachd, int]) -> None:
    server, _ = watched
    with Client(server.address, token=TOKEN, timeout=30) as client:
        for seconds in (0.5, 2, 8, 32):  # a call that is answered within them was made while the level was set
            said, began = server.text().count("GetVersion"), time.monotonic()
            request = debug_pb2.SetLogLevelRequest(pachyderm="ERROR")
            request.duration.FromMilliseconds(int(seconds * 1000))
            assert list(client.debug.SetLogLevel(request).affected_pods) == ["pachd"]
            client.version.GetVersion()
            in_time = time.monotonic() < began + seconds
            back = server.text().count("WhoAmI")
            while server.text().count("WhoAmI") == back:
                assert time.monotonic() < began + seconds + 120, "the level is not set back"
                client.auth.WhoAmI()
            if in_time:
                break
        assert in_time and server.text().count("GetVersion") == said


def test_logs_for_people(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    server.command.append("--verbose")
    with running(server), Client(server.address, timeout=30) as client:
        client.version.GetVersion()
        line = lines_with(server, "GetVersion", 1)[0]
        assert re.match(r"\d{4}-\d\d-\d\dT\S+Z \[info +\] call +\[pachd.rpc\] code=OK ms=\S+ rpc=/versionpb_v2", line)


def test_secrets_are_masked() -> None:
    import logging

    import structlog

    out = io.StringIO()
    saved = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.configure("info", as_json=True, stream=out)
        structlog.get_logger("t").info("in", root_token="abc", repo="images", Authorization="Bearer abc")
        logging.getLogger("t").warning("an old %s", "line", extra={"password": "abc"})
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("t").exception("it failed")
    finally:
        logging.getLogger().handlers[:], level = saved
        logging.getLogger().setLevel(level)
    first, second, third = (json.loads(line) for line in out.getvalue().splitlines())
    assert first["root_token"] == first["Authorization"] == second["password"] == "***" and first["repo"] == "images"
    assert second["event"] == "an old line" and "ValueError: why" in third["exception"]


def upload(client: Client, go_on: threading.Event, began: threading.Event) -> None:
    """One ModifyFile stream that takes its time."""

    def requests() -> Iterator[pfs_pb2.ModifyFileRequest]:
        yield pfs_pb2.ModifyFileRequest(set_commit=HEAD)
        for number in range(20):
            content = {"value": b"x" * 100_000}
            yield pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=f"/{number}", raw=content))
        began.set()
        assert go_on.wait(200)
        yield pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path="/last", raw={"value": b"x"}))

    client.pfs.ModifyFile(requests())


def test_stopping_lets_calls_end_and_ends_those_that_wait(tmp_path: Path) -> None:
    port = free_port()
    server = Pachd(tmp_path / "data")
    server.command += ["--metrics-address", f"127.0.0.1:{port}", "--drain-seconds", "120"]
    outcome: list[object] = []
    go_on, began = threading.Event(), threading.Event()
    with running(server), Client(server.address, timeout=60) as client, Client(server.address, timeout=60) as other:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=REPO))

        def run() -> None:
            try:
                upload(client, go_on, began)
                outcome.append("done")
            except RpcError as error:
                outcome.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert began.wait(120)
        subscribed = client.pfs.SubscribeCommit(pfs_pb2.SubscribeCommitRequest(repo=REPO, branch="master"))
        rpcs_running(port, 2)
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(RpcError, match="pachd is stopping") as caught:
            next(subscribed)
        assert caught.value.code is Status.UNAVAILABLE
        with pytest.raises(RpcError, match="pachd is stopping"):
            client.version.GetVersion()  # on a connection that is open
        with pytest.raises(RpcError):
            other.version.GetVersion()  # on a new one
        assert get(port, "/readyz") == (503, "stopping\n") and get(port, "/healthz")[0] == 200
        assert server.process.poll() is None
        go_on.set()
        thread.join(120)
        assert outcome == ["done"]
        assert server.stop(120) == 0
        server.start()
        with Client(server.address, timeout=30) as again:
            file = pfs_pb2.File(commit=HEAD, path="/")
            paths = [f.file.path for f in again.pfs.ListFile(pfs_pb2.ListFileRequest(file=file))]
            assert len(paths) == 21 and "/last" in paths


def test_stopping_does_not_wait_for_ever(tmp_path: Path) -> None:
    port = free_port()
    server = Pachd(tmp_path / "data")
    server.command += ["--metrics-address", f"127.0.0.1:{port}", "--drain-seconds", "0.5"]
    go_on, began = threading.Event(), threading.Event()
    failed: list[RpcError] = []
    with running(server), Client(server.address, timeout=60) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=REPO))

        def run() -> None:
            try:
                upload(client, go_on, began)
            except RpcError as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert began.wait(120)
        rpcs_running(port, 1)
        assert server.stop(120) == 0
        assert "1 calls did not end within 0.5 seconds" in server.text()
        go_on.set()
        thread.join(120)
        assert failed
        server.start()
        with Client(server.address, timeout=30) as again, pytest.raises(RpcError, match="not found"):
            file = pfs_pb2.File(commit=HEAD, path="/")
            list(again.pfs.ListFile(pfs_pb2.ListFileRequest(file=file)))  # nothing of it


def test_a_job_goes_on_after_a_stop(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    with running(server):
        with Client(server.address, timeout=30) as client:
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=REPO))
            add = pfs_pb2.AddFile(path="/a", raw={"value": b"x"})
            client.pfs.ModifyFile([pfs_pb2.ModifyFileRequest(set_commit=HEAD), pfs_pb2.ModifyFileRequest(add_file=add)])
            spec = pps_pb2.CreatePipelineRequest(
                pipeline=pps_pb2.Pipeline(name="slow", project=pfs_pb2.Project(name="default")),
                transform=pps_pb2.Transform(cmd=["sh"], stdin=["sleep 4", "cp /pfs/images/a /pfs/out/"]),
                input=pps_pb2.Input(pfs=pps_pb2.PFSInput(repo="images", glob="/*")),
            )
            client.pps.CreatePipeline(spec)
            jobs = pps_pb2.ListJobRequest(pipeline=spec.pipeline)

            def state() -> int:
                return int(next(iter(client.pps.ListJob(jobs))).state)

            until = time.monotonic() + 60
            while state() != pps_pb2.JOB_RUNNING and time.monotonic() < until:
                time.sleep(0.05)
            assert state() == pps_pb2.JOB_RUNNING
            assert server.stop() == 0
        server.start()
        with Client(server.address, timeout=60) as client:
            job = next(iter(client.pps.ListJob(jobs))).job
            done = client.pps.InspectJob(pps_pb2.InspectJobRequest(job=job, wait=True), timeout=60)
            assert done.state == pps_pb2.JOB_SUCCESS and done.data_processed == 1


def test_a_monitoring_address_that_is_taken(tmp_path: Path, watched: tuple[Pachd, int]) -> None:
    import subprocess

    command = [sys.executable, "-m", "pachd", "--data", str(tmp_path / "data")]
    command += ["--address", f"127.0.0.1:{free_port()}", "--metrics-address", f"127.0.0.1:{watched[1]}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"cannot listen on 127.0.0.1:{watched[1]}: Address already in use" in done.stderr
