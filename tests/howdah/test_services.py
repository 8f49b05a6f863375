"""Starting, watching and stopping child processes; `howdah up` as a process."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from howdah import up
from howdah.services import Service, ServiceError, Services
from tests.processes import ROOT, Pachd, free_port


def sleeper(tmp_path: Path, name: str, code: str = "import time; time.sleep(60)", seconds: float = 120) -> Service:
    """A service that is ready when its file is there and writes a line to `order` when it is told to stop."""
    ready = tmp_path / name
    program = (
        f"import signal, sys, pathlib\n"
        f"def end(*_):\n    open({str(tmp_path / 'order')!r}, 'a').write({name!r} + ' ')\n    sys.exit(0)\n"
        f"signal.signal(signal.SIGTERM, end)\npathlib.Path({str(ready)!r}).touch()\n{code}"
    )
    command = [sys.executable, "-c", program]
    return Service(name, "http://127.0.0.1:1", command, tmp_path / f"{name}.log", ready.exists, seconds)


def test_stopped_in_reverse_order(tmp_path: Path) -> None:
    with Services() as running:
        for name in "abc":
            running.start(sleeper(tmp_path, name))
        pids = [s.process.pid for s in running.running if s.process]
    assert (tmp_path / "order").read_text() == "c b a "
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_children_of_children_are_gone_too(tmp_path: Path) -> None:
    code = (
        "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\nchild.wait()"
    )
    with Services() as running:
        running.start(sleeper(tmp_path, "a", code))
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            time.sleep(0.02)
    pid = int((tmp_path / "child").read_text())
    end = time.monotonic() + 60
    while _lives(pid):
        assert time.monotonic() < end, "the child of a stopped service lives on"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_death_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    end = tmp_path / "end"
    wait = f"import os, time\nwhile not os.path.exists({str(end)!r}):\n    time.sleep(0.02)\n"
    with Services() as running:
        running.start(sleeper(tmp_path, "a", wait + "raise SystemExit('no space left')"))
        end.touch()
        dead = running.watch(0.05)
        assert dead is not None and dead.name == "a" and "no space left" in dead.tail()


def test_one_that_ends_at_once_and_one_that_is_never_ready(tmp_path: Path) -> None:
    with Services() as running:
        service = sleeper(tmp_path, "a", "")
        service.command = [sys.executable, "-c", "raise SystemExit('bad option')"]
        with pytest.raises(ServiceError, match=r"(?s)a ended with exit code 1.*bad option"):
            running.start(service)
        slow = sleeper(tmp_path, "b", seconds=0.5)
        slow.ready = lambda: False
        with pytest.raises(ServiceError, match="not ready after"):
            running.start(slow)


def test_login_is_kept_and_private(tmp_path: Path) -> None:
    first = up.login(tmp_path / "login.json")
    assert up.login(tmp_path / "login.json") == first and len(first[1]) >= 12
    assert stat.S_IMODE((tmp_path / "login.json").stat().st_mode) == 0o600


def howdah(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "howdah", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_up_without_label_studio(tmp_path: Path, end: signal.Signals) -> None:
    pachd, mount = free_port(), free_port()
    ports = ["--pachd-port", str(pachd), "--mount-port", str(mount)]
    process = howdah("up", "--data", str(tmp_path / "data"), "--no-label-studio", "--json", *ports)
    try:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [line["service"] for line in lines] == ["pachd", "mount-server"]
        assert lines[0]["url"] == f"grpc://127.0.0.1:{pachd}"
        assert up.responds(f"http://127.0.0.1:{mount}/health")
        children = psutil.Process(process.pid).children(recursive=True)
        second = howdah("up", "--data", str(tmp_path / "other"), "--no-label-studio", *ports)
        _, error = second.communicate(timeout=240)
        assert second.returncode == 1 and f"listens on 127.0.0.1:{pachd} already" in error
        assert "choose another port with --pachd-port" in error
        process.send_signal(end)
        _, error = process.communicate(timeout=240)
        assert process.returncode == (130 if end == signal.SIGINT else 0), error
        assert not any(child.is_running() for child in children)
        assert not os.path.ismount(tmp_path / "data/pfs")
    finally:
        process.kill()


def test_up_on_another_pachd_and_death_of_a_child(tmp_path: Path, pachd_process: Pachd) -> None:
    arguments = ["--pachd-address", pachd_process.address, "--no-label-studio", "--mount-port", str(free_port())]
    process = howdah("up", "--data", str(tmp_path / "data"), *arguments)
    try:
        assert process.stdout is not None
        assert pachd_process.address in process.stdout.readline()
        assert "mount-server" in process.stdout.readline()
        (child,) = psutil.Process(process.pid).children()
        child.kill()
        _, error = process.communicate(timeout=240)
        assert process.returncode == 1 and "mount-server ended with exit code -9" in error
    finally:
        process.kill()
        subprocess.run(["fusermount", "-uz", str(tmp_path / "data/pfs")], capture_output=True, timeout=30)


def test_a_full_disk_leaves_no_half_login(tmp_path: Path) -> None:
    limited = (
        "import resource, sys, pathlib; from howdah.up import login;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); login(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", limited, str(tmp_path / "login.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 1 and "OSError" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pachd_whose_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "pachd", "--data", str(tmp_path / "file/data"), "--address"]
    done = subprocess.run([*command, f"127.0.0.1:{free_port()}"], capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == f"Error: the data folder cannot be used: {tmp_path}/file/data: Not a directory\n"


def test_a_data_folder_that_is_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    process = howdah("up", "--data", str(tmp_path), "--pachd-port", str(free_port()), "--mount-port", str(free_port()))
    _, error = process.communicate(timeout=240)
    assert process.returncode == 1 and f"Error: pachd has no log: {tmp_path}/logs/pachd.log" in error
    (tmp_path / "login.json").write_text("{}")
    process = howdah("up", "--data", str(tmp_path))
    _, error = process.communicate(timeout=240)
    assert process.returncode == 1 and f"Error: {tmp_path}/login.json does not hold a login" in error


def test_up_with_an_address_where_nothing_is(tmp_path: Path) -> None:
    process = howdah("up", "--data", str(tmp_path / "data"), "--pachd-address", f"127.0.0.1:{free_port()}")
    _, error = process.communicate(timeout=240)
    assert process.returncode == 1 and "no pachd answers" in error
