"""A container by itself, in a real Docker engine."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pachd.pps.container import Container
from pachd.pps.docker_engine import DockerEngine, EngineAway, NoImage
from pachd.pps.executor import Executor
from pachd.pps.limits import Limits
from pachd.pps.sandbox import Failed, Killed, NotReady
from pachd.proto import pps_pb2
from tests.docker.engine import IMAGE, Engine, missing

_MISSING = missing()
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=_MISSING or "there is an engine")


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
    info = pps_pb2.PipelineInfo(pipeline={"name": "p", "project": {"name": "default"}})
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
