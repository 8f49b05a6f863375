"""What test processes share: ports that no two of them get, locks by name, and what is left of a run."""

import contextlib
import fcntl
import os
import random
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

# Below the ports that the kernel gives to outgoing connections: those come and go while a server is down for a moment.
PORTS = range(10_000, 30_000)
RUN = "HOWDAH_TEST_RUN"  # set in the environment of every process that a run starts

_held: dict[int, int] = {}  # the process -> its open file of ports; a fork gets a file of its own
_given: set[int] = set()


def folder() -> Path:
    """Where this user's test processes meet."""
    made = Path(tempfile.gettempdir()) / f"howdah-tests-{os.getuid()}"
    made.mkdir(parents=True, exist_ok=True)
    return made


def free_port() -> int:
    """A TCP port on loopback that nobody listens on, and that no other test is given until this process ends."""
    if os.getpid() not in _held:
        _held[os.getpid()] = os.open(folder() / "ports.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    first = random.SystemRandom().randrange(len(PORTS))
    for n in range(len(PORTS)):
        port = PORTS[(first + n) % len(PORTS)]
        if port not in _given and _take(port) and _nobody_listens(port):
            _given.add(port)
            return port
    raise AssertionError(f"no port of {PORTS} is free")


def _take(port: int) -> bool:
    """A lock on one byte of the file, which the kernel drops when the process ends, however it ends."""
    try:
        fcntl.lockf(_held[os.getpid()], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _nobody_listens(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Be the only test on this machine that does this."""
    with open(folder() / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def clean_up(run: str, base: Path | None) -> list[str]:
    """End the processes that a run has left, unmount what it left below its folder; what that was."""
    left = [process for process in psutil.process_iter() if _belongs(process, run)]
    said = [f"{process.pid} {_command(process)}" for process in left]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(left, timeout=20)[1]:
        with contextlib.suppress(psutil.Error):
            process.kill()
    if base is not None:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{base}/")), reverse=True):
            said.append(f"mount {mount}")
            for command in (["fusermount", "-uz", mount], ["umount", "-l", mount]):
                if subprocess.run(command, capture_output=True, timeout=30).returncode == 0:
                    break
    return said


def _belongs(process: psutil.Process, run: str) -> bool:
    try:
        return process.environ().get(RUN) == run and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200]
    except psutil.Error:
        return "(gone)"
