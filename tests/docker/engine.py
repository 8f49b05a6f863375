"""A Docker engine of a test's own, and an image made from this machine's files: nothing is pulled."""

import contextlib
import fcntl
import io
import itertools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ADD_BRIDGE, _REMOVE_BRIDGE, _SET_FLAGS = 0x89A0, 0x89A1, 0x8914  # of ioctl, from linux/sockios.h
_NUMBERS = itertools.count()
IMAGE = "howdah-test:1"
START_SECONDS = 240.0
PROGRAMS = ("dash", "cat", "env", "id", "ln", "ls", "mkdir", "pwd", "rm", "seq", "sleep", "tr", "wc")
_LEFT_OUT = {"__pycache__", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests", "tkinter"}


class Bridge:
    """A network bridge of one engine's own: else it would use, or remove, that of the machine's Docker."""

    def __init__(self) -> None:
        self.name = f"howdah{os.getpid() % 100000}{next(_NUMBERS)}"

    def add(self) -> None:
        with socket.socket() as control:
            fcntl.ioctl(control, _ADD_BRIDGE, self.name.encode() + b"\0")

    def remove(self) -> None:
        with socket.socket() as control, contextlib.suppress(OSError):
            fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", self.name.encode(), 0))  # down
            fcntl.ioctl(control, _REMOVE_BRIDGE, self.name.encode() + b"\0")


def missing() -> str:
    """Why no engine can be started here, "" when one can."""
    if os.geteuid() != 0:
        return "a Docker engine is started by root only"
    if not shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
        return "dockerd is not installed (the package docker.io)"
    bridge = Bridge()
    try:
        bridge.add()
    except OSError as error:
        return f"no network bridge can be made for a Docker engine (inside of a container?): {error.strerror}"
    bridge.remove()
    return ""


class Engine:
    """A dockerd with all of its files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix://{folder}/docker.sock"
        self.log = folder / "dockerd.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.bridge = Bridge()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["dockerd", "--host", self.address, "--data-root", f"{self.folder}/data"]
        command += ["--exec-root", f"{self.folder}/run", "--pidfile", f"{self.folder}/pid"]
        command += ["--bridge", self.bridge.name, "--iptables=false", "--ip6tables=false"]
        command += ["--ip-forward=false", "--ip-masq=false"]
        self.bridge.add()
        with self.log.open("ab") as log:
            path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "PATH": path}, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception), self.client() as client:
                client.ping()
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(f"dockerd was not ready: {self.log.read_text()[-2000:]}")

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A connection to it."""
        import docker

        client = docker.APIClient(base_url=self.address, version="auto", timeout=240)
        try:
            yield client
        finally:
            client.close()

    def containers(self) -> list[dict[str, Any]]:
        """All containers that pachds have made and not removed."""
        with self.client() as client:
            return list(client.containers(all=True, filters={"label": "howdah.pachd"}))

    def stop(self) -> None:
        """Stop it; it takes its containers and its containerd with it."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
            self.bridge.remove()

    def remove(self) -> None:
        """Stop it and remove all of its files."""
        self.stop()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def make_image(engine: Engine) -> None:
    """An image with a shell, a few programs, this Python with its standard library, and grpcio."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        added: set[str] = set()
        add_shell(tar, added)
        _add_python(tar, added)
        for name, text in (("etc/passwd", "root:x:0:0::/root:/bin/sh\nguest:x:1234:1234::/tmp:/bin/sh\n"),):
            _add_bytes(tar, name, text.encode())
    python = Path(sys.base_prefix) / "bin"
    changes = [f"ENV PATH={python}:/bin", "ENV OF_IMAGE=yes", "WORKDIR /work", 'ENTRYPOINT ["/bin/sh", "-c", "exit 9"]']
    repository, tag = IMAGE.split(":")
    with engine.client() as client:
        client.import_image_from_data(data.getvalue(), repository=repository, tag=tag, changes=changes)
        client.inspect_image(IMAGE)


def add_shell(tar: tarfile.TarFile, added: set[str]) -> None:
    """A shell, a few programs and the folders that they expect."""
    for program in PROGRAMS:
        _add_program(tar, added, shutil.which(program) or "", f"bin/{program}")
    _add_program(tar, added, shutil.which("dash") or "", "bin/sh")
    for folder in ("tmp", "root", "work", "pfs"):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(entry)


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))


def _add_file(tar: tarfile.TarFile, added: set[str], source: str, name: str) -> None:
    if name not in added:
        added.add(name)
        tar.add(os.path.realpath(source), name, recursive=False)


def _add_program(tar: tarfile.TarFile, added: set[str], source: str, name: str) -> None:
    _add_file(tar, added, source, name)
    _add_libraries(tar, added, source)


def _add_libraries(tar: tarfile.TarFile, added: set[str], source: str) -> None:
    """What the dynamic linker loads for a program or a library."""
    for library in re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", source], capture_output=True, text=True).stdout):
        _add_file(tar, added, library, library.lstrip("/"))


def _add_python(tar: tarfile.TarFile, added: set[str]) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    _add_program(tar, added, str(base / "bin" / version), f"{base}/bin/python3".lstrip("/"))
    standard = Path(os.__file__).parent
    _add_tree(tar, added, standard, str(standard).lstrip("/"))
    import grpc

    _add_tree(tar, added, Path(grpc.__file__).parent, f"{standard}/site-packages/grpc".lstrip("/"))
    import typing_extensions

    _add_file(tar, added, typing_extensions.__file__, f"{standard}/site-packages/typing_extensions.py".lstrip("/"))


def _add_tree(tar: tarfile.TarFile, added: set[str], folder: Path, name: str) -> None:
    for entry in sorted(folder.iterdir()):
        if entry.name in _LEFT_OUT or entry.name.startswith("config-"):
            continue
        if entry.is_dir():
            _add_tree(tar, added, entry, f"{name}/{entry.name}")
        elif entry.is_file():
            _add_file(tar, added, str(entry), f"{name}/{entry.name}")
            if ".so" in entry.name:
                _add_libraries(tar, added, str(entry))
