"""`howdah up` with a pachd that encrypts and asks for a token."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.operations.certificates import Certificates, make
from tests.processes import ROOT, Pachd, free_port, running

TOKEN = "iamroot"


class Guarded(Pachd):
    """With the files that open it."""

    certificates: Certificates
    token_file: Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    server = Guarded(folder / "data")
    server.certificates, server.token_file = make(folder), folder / "token"
    server.token_file.write_text(TOKEN + "\n")
    server.command += ["--tls-cert", str(server.certificates.cert), "--tls-key", str(server.certificates.key)]
    server.command += ["--token-file", str(server.token_file)]
    with running(server):
        yield server


def up(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "howdah", "up", "--data", str(folder), "--no-label-studio", "--json", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, start_new_session=True)


def put(client: Client, text: bytes) -> None:
    repo = pfs_pb2.Repo(name="kept", type="user")
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
    commit = pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name="master"))
    add = pfs_pb2.AddFile(path="/f")
    add.raw.value = text
    client.pfs.ModifyFile([pfs_pb2.ModifyFileRequest(set_commit=commit), pfs_pb2.ModifyFileRequest(add_file=add)])


def mount(url: str, name: str) -> None:
    body = json.dumps({"mounts": [{"name": name, "repo": "kept", "branch": "master"}]}).encode()
    request = urllib.request.Request(f"{url}/_mount", body, {"Content-Type": "application/json"}, method="PUT")
    urllib.request.urlopen(request, timeout=60).read()


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=240)
    return process.returncode, error


def test_another_pachd(guarded: Guarded, tmp_path: Path) -> None:
    address = f"grpcs://{guarded.address}"
    ca, token = str(guarded.certificates.ca), str(guarded.token_file)
    with Client(address, token=TOKEN, ca_file=ca) as client:
        put(client, b"over TLS")
    port = free_port()
    options: list[Any] = ["--pachd-address", address, "--mount-port", str(port)]
    for more, reason in (([], "no pachd answers"), (["--pachd-ca-file", ca], "give a token with --pachd-token-file")):
        refused = up(tmp_path / "data", *options, *more)
        _, error = refused.communicate(timeout=240)
        assert refused.returncode == 1 and reason in error
    process = up(tmp_path / "data", *options, "--pachd-ca-file", ca, "--pachd-token-file", token)
    try:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert lines[0] == {"service": "pachd", "url": address, "started": False}
        mount(lines[1]["url"], "kept")
        assert (tmp_path / "data/pfs/kept/f").read_bytes() == b"over TLS"
        assert end(process) == (0, "")
    finally:
        process.kill()


def test_a_pachd_of_its_own(guarded: Guarded, tmp_path: Path) -> None:
    pachd, port = free_port(), free_port()
    options = ["--pachd-port", str(pachd), "--mount-port", str(port), "--pachd-token-file", str(guarded.token_file)]
    process = up(tmp_path / "data", *options)
    try:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        with Client(f"127.0.0.1:{pachd}", token=TOKEN) as client:
            put(client, b"with a token")
        mount(lines[1]["url"], "kept")
        assert (tmp_path / "data/pfs/kept/f").read_bytes() == b"with a token"
        assert end(process) == (0, "")
    finally:
        process.kill()


def test_questions(guarded: Guarded, tmp_path: Path) -> None:
    def ask(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [
            sys.executable,
            "-m",
            "howdah",
            "status",
            "--pachd-address",
            f"grpcs://{guarded.address}",
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)

    trusted = ["--pachd-ca-file", str(guarded.certificates.ca)]
    assert ask(*trusted, "--pachd-token-file", str(guarded.token_file)).returncode == 0
    (tmp_path / "token").write_text("another")
    for arguments in ([], ["--pachd-token-file", str(tmp_path / "token")]):
        done = ask(*trusted, *arguments)
        assert done.returncode == 1 and "Give a token of somebody who may with --pachd-token-file" in done.stderr
    done = ask("--pachd-token-file", str(guarded.token_file))
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and len(done.stderr.splitlines()) == 1
