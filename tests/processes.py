"""Real servers for tests: started on free ports, waited for, killed, started again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.sharing import free_port

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 480.0

__all__ = ["ROOT", "MountServer", "Pachd", "Server", "free_port", "running"]


class Server:
    """One server process, its output in a log file; started and ended as often as a test likes."""

    def __init__(self, command: list[str], log: Path, ready: str, env: dict[str, str] | None = None) -> None:
        self.command = command
        self.log = log
        self.ready = ready
        self.env = env or {}
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for it."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **self.env},
                start_new_session=True,
            )
        return self.process

    def start(self) -> "Server":
        """Start the process and wait for the line that says it listens."""
        seen = self.log.stat().st_size if self.log.exists() else 0
        process = self.spawn()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with self.log.open("rb") as log:
                log.seek(seen)
                if self.ready.encode() in log.read():
                    return self
            if process.poll() is not None:
                raise AssertionError(f"{self.command} ended with {process.returncode}:\n{self.text()}")
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"{self.command} was not ready after {START_SECONDS} s:\n{self.text()}")

    def kill(self) -> None:
        """kill -9 of the process alone, as the kernel does it to one that takes too much memory."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)

    def end_all(self) -> None:
        """kill -9 of the process and of all that it has started and not put into a session of its own."""
        self.kill()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def stop(self, seconds: float = 120) -> int:
        """End the process politely; its exit code. One that does not go within the time fails the test."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.command} did not end within {seconds} s:\n{self.text()}") from None
        return self.process.returncode

    def text(self) -> str:
        """Everything it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Pachd(Server):
    """An embedded pachd on a data folder; it keeps its port over restarts."""

    def __init__(self, data: Path, log: Path | None = None, port: int | None = None) -> None:
        self.data = data
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        super().__init__(
            # in the sandbox, even where there is a Docker engine that could have the images of specs
            [sys.executable, "-m", "pachd", "--data", str(data), "--address", self.address, "--executor", "process"],
            log or data.with_name(data.name + ".log"),
            "listening on",
        )

    def fsck(self) -> subprocess.CompletedProcess[str]:
        """`pachd fsck` on the folder of a pachd that does not run."""
        command = [sys.executable, "-m", "pachd", "fsck", "--data", str(self.data)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


class MountServer(Server):
    """A mount server below a folder of its own; its mount directory is unmounted at the end even after kill -9."""

    def __init__(self, folder: Path, pachd_address: str, state: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.mount_dir = folder / "pfs"
        self.state_dir = state or folder / "state"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            [sys.executable, "-m", "mount_server", "--pachd-address", pachd_address]
            + ["--mount-dir", str(self.mount_dir), "--state-dir", str(self.state_dir)]
            + ["--host", "127.0.0.1", "--port", str(self.port)],
            folder / "mount-server.log",
            str(self.port),
        )

    def call(self, method: str, path: str, body: Any = None, timeout: float = 60) -> tuple[int, Any]:
        """One HTTP exchange: status and parsed body (a list of objects for NDJSON)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, _parse(answer.read())
        except urllib.error.HTTPError as e:
            return e.code, _parse(e.read())

    def unmount(self) -> None:
        """Take the mount away that a killed server left behind."""
        subprocess.run(["fusermount", "-uz", str(self.mount_dir)], capture_output=True, timeout=30)


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        with contextlib.suppress(ValueError):
            return [json.loads(line) for line in raw.splitlines()]
        return raw.decode(errors="replace")


S = TypeVar("S", bound=Server)


@contextlib.contextmanager
def running(server: S) -> Iterator[S]:
    """Start a server, and make sure that it is gone afterwards."""
    try:
        server.start()
        yield server
    finally:
        server.end_all()
        if isinstance(server, MountServer):
            server.unmount()
