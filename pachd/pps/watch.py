"""Holds the code of a sandbox to its limits of memory and CPU, as any user and without control groups.

What is limited is the whole tree of processes.  A tree that has more memory than it may is killed, as the kernel would
kill a container; one that has used more CPU time than its share is stopped until it is due again.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from typing import NamedTuple

from pachd.pps.limits import Limits
from pachd.store import system

_TICK = 0.05  # seconds between looks
_CLOSE = 0.005  # seconds, once more than half of the memory is taken
_BURST = 0.1  # seconds of its share that a tree may save up, as with the kernel's own quotas
_CLOCK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_OWN = re.compile(rb"^Pss_(?:Anon|Shmem):\s+([0-9]+) kB", re.MULTILINE)
_PSS = re.compile(rb"^Pss:\s+([0-9]+) kB", re.MULTILINE)


class _Use(NamedTuple):
    pids: list[int]
    seconds: float  # of CPU
    memory: int  # bytes; pages that processes share count for each of them


class Watch:
    """Watches the process ``pid`` and all that it has started, until it is over; `start` it.

    ``out_of_memory`` says whether it was killed for its memory.
    """

    def __init__(self, pid: int, limits: Limits) -> None:
        self._pid, self._limits = pid, limits
        self.out_of_memory = False
        self._thread = threading.Thread(target=self._run, name=f"limits-{pid}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        limits = self._limits
        pause = threading.Event()
        saved, used, before = limits.cpu * _BURST, 0.0, system.monotonic()
        wait = _CLOSE
        while not pause.wait(wait):
            use = _look(self._pid)
            if use is None:
                return
            wait = _TICK
            if limits.memory and use.memory > limits.memory // 2:
                wait = _CLOSE
                if use.memory > limits.memory and _memory(use.pids) > limits.memory:
                    self.out_of_memory = True
                    _signal([self._pid], signal.SIGKILL)
                    return
            if limits.cpu:
                now = system.monotonic()
                saved = min(saved + (now - before) * limits.cpu, limits.cpu * _BURST) - max(0.0, use.seconds - used)
                used, before = use.seconds, now
                if saved < 0:
                    stopped = [pid for pid in use.pids if pid != self._pid]
                    _signal(stopped, signal.SIGSTOP)
                    pause.wait(min(1.0, -saved / limits.cpu))
                    _signal(stopped, signal.SIGCONT)
                    wait = min(wait, 0.02)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def _look(pid: int) -> _Use | None:
    """What a tree of processes has used; None when its first process is over."""
    pids, seconds, memory = [], 0.0, 0
    todo = [pid]
    while todo:
        one = todo.pop()
        try:
            with open(f"/proc/{one}/stat", "rb", buffering=0) as file:
                fields = file.read(4096).rpartition(b")")[2].split()
            with open(f"/proc/{one}/statm", "rb", buffering=0) as file:
                pages = file.read(256).split()
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children", "rb", buffering=0) as file:
                    todo += map(int, file.read(1 << 20).split())
        except (OSError, IndexError):
            if one == pid:
                return None
            continue
        if fields[0] in b"ZX":
            if one == pid:
                return None
            continue
        pids.append(one)
        seconds += sum(int(value) for value in fields[11:15]) / _CLOCK
        memory += max(0, int(pages[1]) - int(pages[2])) * _PAGE + _shared(one)
    return _Use(pids, seconds, memory)


def _shared(pid: int) -> int:
    """Bytes of memory that is neither a file's nor the process's own: shared with others."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            for line in file.read(8192).splitlines():
                if line.startswith(b"RssShmem:"):
                    return int(line.split()[1]) << 10
    except (OSError, IndexError, ValueError):
        pass
    return 0


def _memory(pids: list[int]) -> int:
    """Bytes that processes have together; a page that several share counts once."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                data = file.read()
        except OSError:
            continue
        found = _OWN.findall(data) or _PSS.findall(data)
        total += sum(map(int, found)) << 10
    return total


def kills() -> int:
    """How many processes the kernel has killed since the machine started because there was no memory."""
    try:
        with open("/proc/vmstat", "rb") as file:
            found = re.search(rb"^oom_kill ([0-9]+)", file.read(), re.MULTILINE)
    except OSError:
        return 0
    return int(found.group(1)) if found else 0
