"""The mount's rows of the speed table, on a real pachd, a real mount-server and a real FUSE mount.

`run(folder)` returns `[{"name", "value", "unit", "bar", "met", "peer", "peer_value"}]`. Peers are what Pachyderm's own
mount server needed for the same job where it was measured.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pachd.client import Client
from pachd.proto import pfs_pb2

FILES = 10_000
LARGE = 500_000_000  # bytes


def run(folder: Path) -> list[dict[str, Any]]:
    """Measure all rows in an empty folder."""
    pachd_port, http_port = _free_port(), _free_port()
    address, mounted = f"127.0.0.1:{pachd_port}", folder / "pfs"
    pachd = _start(["pachd", "--data", str(folder / "data"), "--address", address], "listening", folder / "pachd.log")
    command = ["mount_server", "--pachd-address", address, "--mount-dir", str(mounted)]
    command += ["--state-dir", str(folder / "state"), "--port", str(http_port)]
    server = None
    try:
        with Client(address, timeout=600) as client:
            _fill(client)
        server = _start(command, "mounted", folder / "mount-server.log")
        return _measure(mounted, f"http://127.0.0.1:{http_port}")
    finally:
        for process in (server, pachd):
            if process is not None:
                process.terminate()
                process.wait(30)


def _measure(mounted: Path, url: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def row(name: str, value: float, unit: str, bar: float, more: bool, peer: float | None) -> None:
        met = value >= bar if more else value <= bar
        rows.append(
            {"name": f"mount: {name}", "value": round(value, 4), "unit": unit, "bar": bar, "met": met}
            | {"peer": "Pachyderm's mount server" if peer is not None else None, "peer_value": peer}
        )

    def mount(name: str, repo: str, mode: str = "ro") -> None:
        _put(url, "/_mount", {"mounts": [{"name": name, "repo": repo, "mode": mode}]})

    mount("many", "many")
    many = mounted / "many"
    row(f"ls -l of {FILES}, cold", _timed(lambda: _ls_l(many)), "s", 1.5, False, 11.6)
    row(f"ls -l of {FILES}, again", _timed(lambda: _ls_l(many)), "s", 0.5, False, 8.0)
    row(
        "ls of names, warm",
        FILES / min(_timed(lambda: os.listdir(many)) for _ in range(5)),
        "names/s",
        200_000,
        True,
        53_000,
    )
    mount("some", "some")
    row("1,000 small files one by one, cold", _timed(lambda: _read_all(mounted / "some")), "s", 1.0, False, 54.8)
    row("1,000 small files one by one, warm", _timed(lambda: _read_all(mounted / "some")), "s", 0.79, False, 0.79)
    mount("large", "large")
    large = mounted / "large" / "f"
    os.stat(large)
    row("first 10 bytes of 500 MB", _timed(lambda: _head(large)), "s", 0.03, False, 5.9)
    row("500 MB, cold", LARGE / 1e6 / _timed(lambda: _read(large)), "MB/s", 250, True, 77)
    row("500 MB, warm", LARGE / 1e6 / _timed(lambda: _read(large)), "MB/s", 1000, True, 1500)
    mount("written", "written", "rw")
    row(f"write {FILES} small files", _timed(lambda: _write(mounted / "written", FILES)), "s", 3.0, False, 7.0)
    commit = {"mount": "written"}
    row(f"commit of {FILES} files", _timed(lambda: _put(url, "/_commit", commit)), "s", 1.0, False, 11.9)
    (mounted / "written" / "one-more").write_text("x")
    row("commit of one more file", _timed(lambda: _put(url, "/_commit", commit)), "s", 0.05, False, 12.1)
    return rows


def _fill(client: Client) -> None:
    for repo in ("many", "some", "large", "written"):
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=_repo(repo)))
    _put_files(client, "many", ((f"/f{i:05}.json", str(i).encode() * 10) for i in range(FILES)))
    _put_files(client, "some", ((f"/f{i:05}.json", str(i).encode() * 300) for i in range(1000)))
    block = os.urandom(1_000_000)
    pieces = (("/f", block[i % 1000 :] + block[: i % 1000]) for i in range(LARGE // 1_000_000))
    _put_files(client, "large", pieces)


def _put_files(client: Client, repo: str, files: Iterator[tuple[str, bytes]]) -> None:
    def requests() -> Iterator[pfs_pb2.ModifyFileRequest]:
        branch = pfs_pb2.Branch(repo=_repo(repo), name="master")
        yield pfs_pb2.ModifyFileRequest(set_commit=pfs_pb2.Commit(repo=_repo(repo), branch=branch))
        for path, data in files:
            add = pfs_pb2.AddFile(path=path)
            add.raw.value = data
            yield pfs_pb2.ModifyFileRequest(add_file=add)

    client.pfs.ModifyFile(requests())


def _repo(name: str) -> pfs_pb2.Repo:
    return pfs_pb2.Repo(name=name, type="user", project=pfs_pb2.Project(name="default"))


def _timed(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _ls_l(directory: Path) -> None:
    subprocess.run(["ls", "-l", str(directory)], stdout=subprocess.DEVNULL, check=True)


def _read_all(directory: Path) -> None:
    for i in range(1000):
        assert (directory / f"f{i:05}.json").read_bytes() == str(i).encode() * 300


def _head(path: Path) -> None:
    with open(path, "rb", buffering=0) as f:
        assert len(f.read(10)) == 10


def _read(path: Path) -> None:
    with open(path, "rb", buffering=0) as f:
        size, buffer = 0, bytearray(1 << 20)
        while n := f.readinto(buffer):
            size += n
    assert size == LARGE


def _write(directory: Path, count: int) -> None:
    for i in range(count):
        with open(directory / f"f{i:05}.json", "wb") as f:
            f.write(str(i).encode() * 240)


def _put(url: str, path: str, body: object) -> None:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), method="PUT")
    with urllib.request.urlopen(request, timeout=600) as answer:
        answer.read()


def _start(command: list[str], ready: str, log: Path) -> subprocess.Popen[bytes]:
    with open(log, "wb") as out:
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=out, stderr=out)
    deadline = time.monotonic() + 60
    while ready not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"{command[0]} did not start: {log.read_text()}")
        time.sleep(0.05)
    return process


def _free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for result in run(Path(scratch)):
            print(json.dumps(result))
