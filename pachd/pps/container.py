"""A sandbox that is a container: each start of the user's code is a container of the pipeline's image."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pachd.pps.docker_engine import LABEL, DockerEngine, EngineAway
from pachd.pps.limits import Limits
from pachd.pps.sandbox import Box, Failed, Killed, Process

if TYPE_CHECKING:
    import docker

_HEADER = struct.Struct(">BxxxL")  # of each piece of output: which stream, how many bytes
_END_SECONDS = 10.0  # that a killed container may take
_STOPPED = (137, 143)  # by SIGKILL, by SIGTERM
_GONE = 137  # the exit code of what was killed; also told when the engine cannot be asked


class Container(Box):
    """One worker's containers, one after the other.

    ``user`` is the name or ID in the image, "" for the image's own.  ``mounts``: (folder, where in the container),
    read-only.  ``labels`` are added to each container.  The network is the machine's: pachd and the worker's own
    service listen on loopback.
    """

    of_host = False

    def __init__(
        self,
        root: Path,
        engine: DockerEngine,
        image: str,
        user: str = "",
        limits: Limits | None = None,
        mounts: Sequence[tuple[str, str]] = (),
        labels: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(root)
        self._engine, self._image, self._user = engine, image, user
        self._limits = limits or Limits()
        self._mounts = [(str(self.pfs), "/pfs", False), (str(self.tmp), "/tmp", False)]
        self._mounts += [(source, target, True) for source, target in mounts]
        self._labels = {**(labels or {}), LABEL: engine.owner}
        self._client: docker.APIClient | None = None
        self._out_of_memory = False
        self._lost = ""  # why the last one's end is not known
        os.chmod(self.pfs, 0o777)  # the image's user need not be ours
        os.chmod(self.tmp, 0o1777)

    def check(self) -> None:
        """Raise EngineAway when no engine answers."""
        self._connect()

    def why(self, code: int) -> str:
        if self._lost:
            self._engine.forget()
            raise EngineAway(f"the Docker engine at {self._engine.address} went away while the code ran: {self._lost}")
        if self._out_of_memory:
            return self._limits.out_of_memory()
        if code in _STOPPED:  # an engine that ends takes its containers along
            self._engine.forget()
            if away := self._engine.problem():
                raise EngineAway(away)
        return super().why(code)

    def start(self, cmd: Sequence[str], stdin: bytes | None, env: Mapping[str, str], cwd: str) -> Process:
        from docker.errors import APIError, DockerException

        client = self._connect()
        self._out_of_memory, self._lost = False, ""
        out = self.pfs / "out"
        if out.is_symlink():
            out = self.root / os.readlink(out).lstrip("/")
        if out.is_dir():
            os.chmod(out, 0o777)
        made, process = "", None
        try:
            made = self._create(client, cmd, stdin is not None, env, cwd)
            process = _ContainerProcess(client, made, stdin)
            with self._lock:
                if self._killed:
                    raise Killed
                self._processes = [p for p in self._processes if p.returncode is None] + [process]
                client.start(made)
            process.follow(self._ended)
            return process
        except Exception as error:
            self._remove(made)
            if process is not None:
                process.abandon()
            if isinstance(error, APIError):
                raise _refused(cmd[0], error) from None
            if isinstance(error, (DockerException, OSError)):
                self._engine.forget()
                raise EngineAway(f"the Docker engine at {self._engine.address} failed: {error}") from None
            raise

    def stop(self, process: Process) -> None:
        assert isinstance(process, _ContainerProcess)
        process.kill()

    def close(self) -> None:
        self.kill()
        for process in self._processes:
            if isinstance(process, _ContainerProcess):
                process.over.wait(_END_SECONDS)
                self._remove(process.container)
        if self._client is not None:
            self._client.close()
        super().close()

    def _connect(self) -> docker.APIClient:
        if self._client is None:
            self._client = self._engine.client()
        return self._client

    def _create(
        self, client: docker.APIClient, cmd: Sequence[str], has_stdin: bool, env: Mapping[str, str], cwd: str
    ) -> str:
        from docker.types import DeviceRequest, LogConfig, Mount

        limits = self._limits
        more: dict[str, Any] = {}
        if limits.memory:
            more |= {"mem_limit": limits.memory, "memswap_limit": limits.memory}
        if limits.cpu:
            more["nano_cpus"] = int(min(max(limits.cpu, 0.01), os.cpu_count() or 1) * 1e9)  # else the engine refuses it
        if limits.gpus:
            more["device_requests"] = [DeviceRequest(count=limits.gpus, capabilities=[["gpu"]])]
        host = client.create_host_config(
            network_mode="host",
            mounts=[Mount(target, source, type="bind", read_only=fixed) for source, target, fixed in self._mounts],
            log_config=LogConfig(type=LogConfig.types.NONE),  # what it prints is read as it comes
            **more,
        )
        made = client.create_container(
            self._image,
            entrypoint=list(cmd),
            environment=dict(env),
            working_dir=cwd or None,
            user=self._user or None,
            stdin_open=has_stdin,
            labels=self._labels,
            host_config=host,
        )
        return str(made["Id"])

    def _ended(self, process: _ContainerProcess) -> None:
        self._out_of_memory, self._lost = process.out_of_memory, process.lost
        self._remove(process.container)

    def _remove(self, container: str) -> None:
        from docker.errors import DockerException

        if container and self._client is not None:
            try:
                self._client.remove_container(container, force=True, v=True)
            except (DockerException, OSError):
                pass  # gone already, or the engine is away: then the next start of pachd removes it


class _ContainerProcess:
    """A container as a process: its output comes out of a pipe, both streams in one."""

    def __init__(self, client: docker.APIClient, container: str, stdin: bytes | None) -> None:
        self.container = container
        self.returncode: int | None = None
        self.out_of_memory = False
        self.lost = ""  # why its end is not known
        self._client, self._input = client, stdin
        self._killed = False
        self.over = threading.Event()
        streams = {"stdout": 1, "stderr": 1, "stream": 1, **({"stdin": 1} if stdin is not None else {})}
        attached = client.attach_socket(container, params=streams)
        self._attached = attached
        self._socket: socket.socket = getattr(attached, "_sock", attached)
        self._socket.settimeout(None)
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self.stdout: IO[bytes] | None = os.fdopen(reading, "rb", buffering=0)

    def follow(self, ended: Any) -> None:
        """Hand on what it prints until it ends; then call `ended` with this process."""
        if self._input is not None:
            threading.Thread(target=self._feed, daemon=True).start()
        threading.Thread(target=self._follow, args=(ended,), daemon=True).start()

    def abandon(self) -> None:
        """It was never started."""
        self.returncode = _GONE
        self.over.set()
        os.close(self._pipe)
        self._attached.close()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self) -> int:
        self.over.wait()
        return _GONE if self.returncode is None else self.returncode

    def kill(self) -> None:
        """End all its processes; nothing if it has ended."""
        from docker.errors import DockerException

        self._killed = True
        try:
            self._client.kill(self.container)
        except (DockerException, OSError):
            pass

    def _feed(self) -> None:
        try:
            self._socket.sendall(self._input or b"")
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it does not read all of it

    def _follow(self, ended: Any) -> None:
        try:
            self._copy()
        except OSError:
            pass  # nobody reads any more, or the engine is gone
        code = self._result()
        ended(self)
        self.returncode = code
        self.over.set()
        os.close(self._pipe)
        self._attached.close()

    def _copy(self) -> None:
        while header := _exactly(self._socket, _HEADER.size):
            _, size = _HEADER.unpack(header)
            while size:
                data = self._socket.recv(min(size, 64 << 10))
                if not data:
                    return
                size -= len(data)
                self._write(data)

    def _write(self, data: bytes) -> None:
        """Into the pipe; what nobody reads of one that was killed is dropped."""
        while data:
            try:
                data = data[os.write(self._pipe, data) :]
            except BlockingIOError:
                if self._killed:
                    return
                select.select([], [self._pipe], [], 0.2)

    def _result(self) -> int:
        from docker.errors import DockerException

        try:
            code = int(self._client.wait(self.container, timeout=None)["StatusCode"])
            self.out_of_memory = bool(self._client.inspect_container(self.container)["State"]["OOMKilled"])
            return code
        except (DockerException, OSError) as error:
            self.lost = "" if self._killed else str(error)
            return _GONE


def _exactly(source: socket.socket, size: int) -> bytes:
    """So many bytes, or none when the stream has ended."""
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            return b""
        data += part
    return data


def _refused(program: str, error: Any) -> Exception:
    """What a user reads when the engine does not start the code."""
    words = str(error.explanation or error)
    if "executable file not found" in words:
        return Failed(f'exec: "{program}": executable file not found in $PATH')
    if "no such file or directory" in words and program in words:
        return Failed(f"fork/exec {program}: no such file or directory")
    if "permission denied" in words and program in words:
        return Failed(f"fork/exec {program}: permission denied")
    return Failed(f"the Docker engine did not start the code: {words}")
