"""Child processes: started in order, waited for, stopped in reverse order."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STOP_SECONDS = 20.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal is closed
TAIL_LINES = 15


class ServiceError(Exception):
    """A service did not start or died; the message has the last lines of its log."""


@dataclass
class Service:
    """One process that we start, with what tells that it is ready.

    :param ready: called again and again until it returns true; it may raise OSError while nothing listens.
    :param seconds: how long the start may take.
    """

    name: str
    url: str
    command: list[str]
    log: Path
    ready: Callable[[], bool]
    seconds: float = 60.0
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self, stopping: threading.Event) -> None:
        """Start the process in a group of its own and wait until it is ready. Raises ServiceError."""
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            opened = self.log.open("ab")
        except OSError as e:
            raise ServiceError(f"{self.name} has no log: {self.log} cannot be written: {e.strerror or e}") from e
        with opened as log:
            self.process = subprocess.Popen(
                [*_end_with_us(), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": _path(), "PYTHONUNBUFFERED": "1", **self.env},
                start_new_session=True,  # Ctrl-C in the terminal reaches us alone: we stop them in order
            )
        deadline = time.monotonic() + self.seconds
        while not stopping.is_set():
            if self.process.poll() is not None:
                raise ServiceError(f"{self.name} ended with exit code {self.process.returncode}{self.tail()}")
            with contextlib.suppress(OSError):
                if self.ready():
                    return
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} was not ready after {self.seconds:.0f} s{self.tail()}")
            stopping.wait(0.05)

    def stop(self) -> None:
        """End the process and everything it started; one that does not go in time is killed."""
        process = self.process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def tail(self) -> str:
        """The end of the log, to be put behind a sentence."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:] if self.log.exists() else []
        return "".join(f"\n  | {line}" for line in lines) + f"\n  log: {self.log}"


class Services:
    """Several services as one context: entering starts none, leaving stops all in reverse order."""

    def __init__(self) -> None:
        self.running: list[Service] = []
        self.stopping = threading.Event()
        self.interrupted = False  # by Ctrl-C
        self._raise = False
        self._starting = False

    def start(self, service: Service) -> None:
        """Start one more and wait until it is ready. Raises ServiceError."""
        self.running.append(service)
        self._starting = True  # an exception while a process is made could leave one that nobody knows
        try:
            service.start(self.stopping)
        finally:
            self._starting = False
        if self._raise and self.stopping.is_set():
            raise KeyboardInterrupt

    def watch(self, seconds: float = 0.5) -> Service | None:
        """Wait until told to stop (None) or until one of them has died (which is returned)."""
        while not self.stopping.is_set():
            for service in self.running:
                if service.process is not None and service.process.poll() is not None:
                    return service
            self.stopping.wait(seconds)
        return None

    def stop_on_signals(self, raising: bool = False) -> None:
        """Let SIGINT, SIGTERM and SIGHUP end `watch` and any start under way; `raising`: also what else is done."""
        self._raise = raising
        for number in _SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as it is under nohup
                signal.signal(number, self._told)

    def _told(self, number: int, frame: object) -> None:
        self.interrupted = self.interrupted or number == signal.SIGINT
        self.stopping.set()
        if self._raise and not self._starting:
            raise KeyboardInterrupt

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *exc: Any) -> None:
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:  # an impatient second Ctrl-C must leave nothing behind
                before[number] = signal.signal(number, signal.SIG_IGN)
        try:
            while self.running:
                self.running.pop().stop()
        finally:
            # Once told to stop, this process is about to end, and Python gives handlers back to the system before it
            # does: a signal in that moment would still change the exit code. Ignored ones stay ignored.
            if not self.stopping.is_set():
                for number, handler in before.items():
                    signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _end_with_us() -> list[str]:
    """The beginning of a command that is told to stop when whoever started it is gone, even by kill -9."""
    setpriv = shutil.which("setpriv")  # of util-linux
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def _path() -> str:
    """PATH with our own Python first: a pipeline's `python3` is then the one that has the packages."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
