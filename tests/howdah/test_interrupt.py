"""Ctrl-C in a terminal: everything stops, nothing is left."""

import contextlib
import os
import pty
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes import ROOT, free_port
from tests.sharing import locked

STOP_SECONDS = 120.0  # on a machine that is busy with other things; alone it takes one or two


class Terminal:
    """A `howdah` that runs in the foreground of a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.seen = b""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
            os.execv(sys.executable, [sys.executable, "-m", "howdah", *arguments])

    def wait_for(self, text: str, seconds: float = 1200.0) -> None:
        """Read until it has printed something."""
        self._read(lambda: text.encode() in self.seen, seconds)
        assert text.encode() in self.seen, self.seen.decode()

    def press_ctrl_c(self) -> None:
        os.write(self._terminal, b"\x03")

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._terminal)
        self._terminal = -1

    def end(self, seconds: float = STOP_SECONDS) -> int:
        """Its exit code."""
        self._read(lambda: False, seconds)
        until = time.monotonic() + seconds
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0 and time.monotonic() < until:
            time.sleep(0.02)
        assert found[0] == self.pid, f"it still runs after {seconds} s: {self.seen.decode()}"
        self.pid = 0
        return os.waitstatus_to_exitcode(found[1])

    def close(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self._terminal >= 0:
            os.close(self._terminal)

    def _read(self, enough: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._terminal >= 0 and not enough() and (left := until - time.monotonic()) > 0:
            if select.select([self._terminal], [], [], left)[0]:
                try:
                    data = os.read(self._terminal, 4096)
                except OSError:  # the terminal's other end is closed: it has ended
                    return
                if not data:
                    return
                self.seen += data


@pytest.fixture
def usual_ports_taken() -> Iterator[None]:
    """The demo takes the usual ports only where they are free."""
    with locked("usual-ports"), contextlib.ExitStack() as stack:
        for port in (30650, 9002, 8080):
            holder = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                holder.bind(("127.0.0.1", port))
        yield


def assert_nothing_left(folder: Path) -> None:
    """No process that knows the folder, no mount in it."""
    left = [p.info for p in psutil.process_iter(["pid", "cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())]
    assert not left
    assert str(folder) not in Path("/proc/mounts").read_text()


@pytest.mark.parametrize("moment", ["grpc://", "Everything runs"])
def test_up(tmp_path: Path, moment: str) -> None:
    ports = ["--pachd-port", str(free_port()), "--mount-port", str(free_port())]
    terminal = Terminal("up", "--data", str(tmp_path / "data"), "--no-label-studio", *ports)
    try:
        terminal.wait_for(moment)
        for _ in range(3):  # an impatient hand
            terminal.press_ctrl_c()
            time.sleep(0.1)
        assert terminal.end() == 130
        assert_nothing_left(tmp_path)
    finally:
        terminal.close()


@pytest.mark.parametrize("how", ["closed terminal", "kill -9"])
def test_up_without_a_goodbye(tmp_path: Path, how: str) -> None:
    ports = ["--pachd-port", str(free_port()), "--mount-port", str(free_port())]
    terminal = Terminal("up", "--data", str(tmp_path / "data"), "--no-label-studio", *ports)
    try:
        terminal.wait_for("Everything runs")
        if how == "kill -9":
            os.kill(terminal.pid, signal.SIGKILL)
        else:
            terminal.hang_up()
        terminal.end()
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(AssertionError):
                assert_nothing_left(tmp_path)
                break
            time.sleep(0.1)
        assert_nothing_left(tmp_path)
    finally:
        terminal.close()


@pytest.mark.timeout(1800)  # Label Studio makes its database first
@pytest.mark.parametrize("moment", ["starting pachd", "starting mount-server: ", "digit scans into images@master: "])
def test_demo(tmp_path: Path, moment: str, usual_ports_taken: None) -> None:
    terminal = Terminal("demo", "--data", str(tmp_path / "data"), "--report", str(tmp_path / "report.json"))
    try:
        terminal.wait_for(moment)
        terminal.press_ctrl_c()
        assert terminal.end() == 130
        assert_nothing_left(tmp_path)
        assert "Stopped." in terminal.seen.decode() and "Traceback" not in terminal.seen.decode()
        assert not (tmp_path / "report.json").exists()
    finally:
        terminal.close()
