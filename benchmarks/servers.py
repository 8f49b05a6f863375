"""The servers that are measured: each benchmark starts its own, on its own folder."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pachd.client import Client
from tests.processes import free_port


def wait_for_line(process: subprocess.Popen[str], word: str, limit: float = 60.0) -> None:
    """Read a server's output until it says `word`.

    :raises RuntimeError: it ended before, with what it said.
    """
    out: IO[str] | None = process.stdout
    assert out is not None
    said: list[str] = []
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        line = out.readline()
        if not line:
            break
        said.append(line)
        if word in line:
            return
    process.kill()
    raise RuntimeError(f"{process.args!r} did not start: {''.join(said)}")


@contextlib.contextmanager
def pachd(data: Path) -> Iterator[Client]:
    """An embedded pachd on `data` and a client of it; both are gone at the end."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "pachd", "--data", str(data), "--address", address],
        stdout=subprocess.PIPE,
        stderr=(data.parent / "pachd.err").open("w"),
        text=True,
    )
    try:
        wait_for_line(process, "listening on")
        with Client(address) as client:
            yield client
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


def peak_memory(data: Path, reset: bool = False) -> float:
    """The most memory that the pachd on `data` has had at once, in MB; `reset`: from now on."""
    pid = int((data / "lock").read_text())
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    status = Path(f"/proc/{pid}/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1024
