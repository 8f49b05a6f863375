"""A sandbox for the code of a pipeline: a mount namespace in which `/pfs` is as a worker on a cluster sees it.

Bubblewrap builds the root from read-only binds of the machine's top-level directories, so the host's Python and its
packages are there; `/pfs` and `/tmp` are the worker's own.  All processes live in a process namespace of their own that
ends with the command, whatever it left running.
"""

from __future__ import annotations

import functools
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from pachd.errors import PachError
from pachd.pps import watch
from pachd.pps.limits import Limits

MAX_LINE = 64 << 10  # bytes; a longer line is cut into several
_OWN = {"proc", "dev", "sys", "pfs", "tmp"}
_SECRET = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|_KEY$|^KEY_|CREDENTIAL", re.IGNORECASE)


class NoSandbox(PachError):
    """Workers cannot be started on this machine; str() says why and what to do."""


class NotReady(PachError):
    """Workers cannot be started now, but may later: after ``retry`` seconds it is worth trying again."""

    def __init__(self, reason: str, retry: float) -> None:
        super().__init__(reason)
        self.retry = retry

    def __reduce__(self) -> tuple[type[NotReady], tuple[str, float]]:
        return type(self), (str(self), self.retry)


class Failed(Exception):
    """The user's code did not succeed; str() is the reason as a datum shows it."""


class Killed(Exception):
    """The user's code was stopped by `Sandbox.kill`."""


def host_environment() -> dict[str, str]:
    """pachd's own environment without what looks like a secret, with the Python that runs pachd first on PATH."""
    env = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    own = str(Path(sys.executable).parent)
    env["PATH"] = own + os.pathsep + env.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    env["PACH_IN_WORKER"] = "true"
    return env


def bwrap_path() -> str:
    """Where bubblewrap is; NoSandbox when it is not installed."""
    found = shutil.which("bwrap")
    if found is None:
        raise NoSandbox(
            "cannot run workers: bubblewrap (the command bwrap) is not installed; install the package "
            "'bubblewrap' and restart the pipeline"
        )
    return found


@functools.cache
def _bwrap_version() -> tuple[int, ...]:
    said = subprocess.run([bwrap_path(), "--version"], capture_output=True, text=True, timeout=30).stdout
    return tuple(int(number) for number in re.findall(r"\d+", said))


def _root_arguments(hidden: str, pfs: Path, tmp: Path) -> list[str]:
    arguments: list[str] = []
    for entry in sorted(os.scandir("/"), key=lambda e: e.name):
        if entry.name in _OWN:
            continue
        if entry.is_symlink():
            arguments += ["--symlink", os.readlink(entry.path), entry.path]
        elif entry.is_dir() and os.access(entry.path, os.R_OK | os.X_OK):
            arguments += ["--ro-bind", entry.path, entry.path]
    if os.path.isdir("/sys"):
        arguments += ["--ro-bind-try", "/sys", "/sys"]
    arguments += ["--bind", str(tmp), "/tmp"]
    # a checkout or an environment below /tmp would vanish behind the worker's own /tmp
    for needed in {sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[2])}:
        if needed.startswith("/tmp/"):
            arguments += ["--ro-bind", needed, needed]
    if hidden and not hidden.startswith("/tmp/"):
        arguments += ["--tmpfs", hidden]
    return [*arguments, "--bind", str(pfs), "/pfs", "--dev", "/dev", "--proc", "/proc"]


def _room_for(targets: Sequence[str]) -> list[str]:
    """The folders of this machine in which something has to be made for these to be mounted, outer ones first."""
    found = set()
    for target in targets:
        folder = os.path.normpath(target)
        if os.path.exists(folder):
            continue
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        folder = os.path.realpath(folder)
        if folder != "/" and folder.split("/")[1] not in _OWN:
            found.add(folder)
    return sorted(found, key=len)


def _covered(folder: str) -> list[str]:
    """Put a folder of one's own in the place of one that cannot be written to, with all that is in that one."""
    arguments = ["--tmpfs", folder]
    for entry in os.scandir(folder):
        if entry.is_symlink():
            arguments += ["--symlink", os.readlink(entry.path), entry.path]
        else:
            arguments += ["--ro-bind-try", entry.path, entry.path]
    return arguments


class Process(Protocol):
    """A started command, as `subprocess.Popen` shows it."""

    stdout: IO[bytes] | None
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...


class Box:
    """What one worker runs commands in.

    ``root`` is its folder (made when missing): `pfs/` and `tmp/` in it are what the code sees.  Only `kill` and
    `interrupt` may be called from other threads.
    """

    of_host = True  # what lies outside of `/pfs` and `/tmp` is this machine's

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pfs = root / "pfs"
        self.tmp = root / "tmp"
        self.pfs.mkdir(parents=True, exist_ok=True)
        self.tmp.mkdir(exist_ok=True)
        self._lock = threading.Lock()
        self._processes: list[Process] = []  # batched code, and an error handler beside it
        self._killed = False

    def check(self) -> None:
        """Raise NoSandbox with the reason when nothing can run in here."""

    def start(self, cmd: Sequence[str], stdin: bytes | None, env: Mapping[str, str], cwd: str) -> Process:
        """Start the command; Failed when there is no such program."""
        raise NotImplementedError

    def stop(self, process: Process) -> None:
        """End a process that `start` gave, with everything it has started."""
        raise NotImplementedError

    def why(self, code: int) -> str:
        """The reason of a command that ended with an exit code that is not accepted; NotReady if it was not its own."""
        return f"exit status {code}"

    def run(
        self,
        cmd: Sequence[str],
        stdin: bytes | None,
        env: Mapping[str, str],
        cwd: str,
        timeout: float | None,
        output: Callable[[bytes], None],
    ) -> int:
        """Run the command to its end and return its exit code.

        ``output`` gets stdout and stderr line by line.  Raises Failed when it cannot start or runs for more than
        ``timeout`` seconds, Killed when `kill` was called.
        """
        process = self.start(cmd, stdin, env, cwd)
        in_time = False
        try:
            deadline = None if timeout is None else time.monotonic() + timeout
            in_time = pump(process, output, deadline)
            while deadline is not None and in_time and process.poll() is None:  # it closed its output and goes on
                in_time = time.monotonic() < deadline
                time.sleep(0.005)
        finally:
            if not in_time:
                self.stop(process)
            code = process.wait()
            if process.stdout:
                process.stdout.close()
            with self._lock:
                self._processes = [p for p in self._processes if p is not process]
        if self._killed:
            raise Killed
        if not in_time:
            raise Failed(f"datum timed out after {timeout:g} seconds")
        return code

    def kill(self) -> None:
        """Stop what runs now and refuse to start more, from any thread."""
        with self._lock:
            self._killed = True
            self._stop_all()

    def interrupt(self) -> None:
        """Stop what runs now, from any thread."""
        with self._lock:
            self._stop_all()

    def _stop_all(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                self.stop(process)

    def close(self) -> None:
        """Remove the folder."""
        self.kill()
        shutil.rmtree(self.root, ignore_errors=True)


class Sandbox(Box):
    """A mount and process namespace of this machine.

    ``hidden`` is a folder that the code must not see (pachd's data).  ``mounts``: (folder, where in the sandbox),
    read-only.  ``limits`` hold for each command with everything it starts.
    """

    def __init__(
        self, root: Path, hidden: str = "", mounts: Sequence[tuple[str, str]] = (), limits: Limits | None = None
    ) -> None:
        super().__init__(root)
        self._limits = limits or Limits()
        self._watch: watch.Watch | None = None
        self._kills = 0
        self._prefix = [
            bwrap_path(),
            "--die-with-parent",
            "--unshare-pid",
            *_root_arguments(os.path.realpath(hidden) if hidden else "", self.pfs, self.tmp),
        ]
        if self._limits.memory and _bwrap_version() >= (0, 8):  # older ones cannot give a size
            self._prefix += ["--size", str(self._limits.memory), "--tmpfs", "/dev/shm"]
        covered = _room_for([target for _source, target in mounts])
        for folder in covered:
            self._prefix += _covered(folder)
        if hidden and any(os.path.realpath(hidden).startswith(folder + "/") for folder in covered):
            self._prefix += ["--tmpfs", os.path.realpath(hidden)]
        for source, target in mounts:
            self._prefix += ["--ro-bind", source, target]
        for folder in covered:
            self._prefix += ["--remount-ro", folder]

    def check(self) -> None:
        """Raise NoSandbox with the reason when bubblewrap cannot build this sandbox here."""
        result = subprocess.run([*self._prefix, "--", "/bin/sh", "-c", "exit 0"], capture_output=True, timeout=30)
        if result.returncode:
            words = result.stderr.decode(errors="replace").strip()
            raise NoSandbox(
                f"cannot run workers: bubblewrap failed: {words or result.returncode}; unprivileged user "
                "namespaces must be allowed on this machine"
            )

    def start(self, cmd: Sequence[str], stdin: bytes | None, env: Mapping[str, str], cwd: str) -> Process:
        _check_program(cmd, env, cwd)
        arguments = [*self._prefix, "--chdir", cwd or "/", "--", *cmd]
        with self._lock:
            if self._killed:
                raise Killed
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )
            self._processes = [p for p in self._processes if p.returncode is None] + [process]
            self._kills = watch.kills()
            self._watch = watch.Watch(process.pid, self._limits)
            if self._limits.memory or self._limits.cpu:
                self._watch.start()
        if stdin is not None and process.stdin is not None:
            _feed(process.stdin, stdin)
        return process

    def why(self, code: int) -> str:
        if self._watch is not None and self._watch.out_of_memory:
            return self._limits.out_of_memory()
        if code == 128 + signal.SIGKILL and watch.kills() > self._kills:
            return Limits().out_of_memory()
        return super().why(code)

    def stop(self, process: Process) -> None:
        assert isinstance(process, subprocess.Popen)
        try:  # its first process takes the whole process namespace with it
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def _check_program(cmd: Sequence[str], env: Mapping[str, str], cwd: str) -> None:
    """Refuse a program that does not exist, in Go's words; what lies below /pfs only the sandbox can see."""
    program = cmd[0]
    if program.startswith(("/pfs/", "/tmp/")):
        return
    if "/" in program:
        where = os.path.join(cwd or "/", program)
        if where.startswith(("/pfs/", "/tmp/")):
            return
        if not os.path.exists(where):
            raise Failed(f"fork/exec {program}: no such file or directory")
        if os.path.isdir(where) or not os.access(where, os.X_OK):
            raise Failed(f"fork/exec {program}: permission denied")
    elif shutil.which(program, path=env.get("PATH")) is None:
        raise Failed(f'exec: "{program}": executable file not found in $PATH')


def _feed(pipe: object, data: bytes) -> None:
    """Write a command's stdin; one that does not read it all is no error."""

    def write() -> None:
        try:
            pipe.write(data)  # type: ignore[attr-defined]
        except OSError:
            pass
        try:
            pipe.close()  # type: ignore[attr-defined]
        except OSError:
            pass

    if len(data) < 32 << 10:  # fits the pipe's buffer: no thread needed
        write()
    else:
        threading.Thread(target=write, daemon=True).start()


def pump(process: Process, output: Callable[[bytes], None], deadline: float | None) -> bool:
    """Hand on lines until the process closes its output; False when the deadline (monotonic seconds) passes first."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    rest = b""
    while True:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                break
        data = os.read(fd, 64 << 10)
        if not data:
            if rest:
                output(rest)
            return True
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            output(line)
        while len(rest) >= MAX_LINE:
            output(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
    if rest:
        output(rest)
    return False
