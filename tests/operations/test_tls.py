"""Encryption by certificate files: our client and both Python clients over it, and what goes wrong with files."""

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2
from tests.operations.certificates import Certificates, make
from tests.processes import ROOT, Pachd, free_port, running

HERE = Path(__file__).parent
TOKEN = "iamroot"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def encrypted(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pachd]:
    """A pachd that encrypts and asks for a token."""
    folder = tmp_path_factory.mktemp("encrypted")
    (folder / "token").write_text(TOKEN)
    server = Pachd(folder / "data")
    server.command += ["--tls-cert", str(certificates.cert), "--tls-key", str(certificates.key)]
    server.command += ["--token-file", str(folder / "token")]
    with running(server):
        yield server


def test_our_client(encrypted: Pachd, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"grpcs://{encrypted.address}"
    repo = pfs_pb2.Repo(name="sealed", type="user")
    big = os.urandom(3 << 20)
    with Client(address, token=TOKEN, timeout=30, ca_file=certificates.ca) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
        commit = pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name="master"))
        client.pfs.ModifyFile(
            [
                pfs_pb2.ModifyFileRequest(set_commit=commit),
                pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path="/big", raw={"value": big})),
            ]
        )
        file = pfs_pb2.File(commit=commit, path="/big")
        assert b"".join(m.value for m in client.pfs.GetFile(pfs_pb2.GetFileRequest(file=file))) == big
    monkeypatch.setenv("PACHD_CA_FILE", str(certificates.ca))
    with Client(address, token=TOKEN, timeout=30) as client:
        assert client.auth.WhoAmI().username == "pach:root"
    monkeypatch.setenv("PACHD_CA_FILE", str(certificates.key))
    with Client(address, timeout=30) as client, pytest.raises(RpcError, match="CA file .* is of no use"):
        client.auth.WhoAmI()
    monkeypatch.delenv("PACHD_CA_FILE")
    with Client(address, timeout=30) as client, pytest.raises(RpcError, match="(?i)certificate") as caught:
        client.auth.WhoAmI()  # nobody whom this machine trusts has signed it
    assert caught.value.code is Status.UNAVAILABLE
    with Client(encrypted.address, timeout=10) as client, pytest.raises(RpcError) as caught:
        client.version.GetVersion()  # in clear
    assert caught.value.code is Status.UNAVAILABLE


def test_old_protocols_are_refused(encrypted: Pachd, certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates.ca)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", encrypted.port), 10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            assert wrapped.selected_alpn_protocol() == "h2" and wrapped.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize("client", ["python-pachyderm", "pachyderm-sdk"])
def test_other_clients(encrypted: Pachd, certificates: Certificates, client: str) -> None:
    python = ROOT / f".venv-{client}" / "bin" / "python"
    if not python.exists():
        pytest.fail(f".venv-{client} is missing: run `make .venv-{client}/.stamp`")
    done = subprocess.run(
        [str(python), str(HERE / "tls_steps.py"), client, str(encrypted.port), str(certificates.ca)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "STEPS_TOKEN": TOKEN},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    assert seen == {"who": "pach:root", "read": "hello", "stranger": "UNAUTHENTICATED"}


def test_howdah(encrypted: Pachd, certificates: Certificates) -> None:
    environment = {**os.environ, "PACHD_CA_FILE": str(certificates.ca), "PACH_TOKEN": TOKEN}
    with Client(f"grpcs://{encrypted.address}", token=TOKEN, timeout=30, ca_file=certificates.ca) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=pfs_pb2.Repo(name="told", type="user")))
        branch = pfs_pb2.Branch(repo=pfs_pb2.Repo(name="told", type="user"), name="master")
        commit = client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=branch))
        client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=commit))
    ask = [sys.executable, "-m", "howdah", "lineage", "told@master", "--json"]
    ask += ["--pachd-address", f"grpcs://{encrypted.address}"]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment)
    assert done.returncode == 0 and "told" in done.stdout, done.stderr


def refuse(tmp_path: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pachd", "--data", str(tmp_path / "data"), "--address", f"0.0.0.0:{free_port()}"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_files_of_no_use(certificates: Certificates, tmp_path: Path) -> None:
    cert, key = ("--tls-cert", str(certificates.cert)), ("--tls-key", str(certificates.key))
    assert "give --tls-cert and --tls-key together" in refuse(tmp_path, *cert)
    assert "fit together" in refuse(tmp_path, *cert, "--tls-key", str(make(tmp_path / "other").key))
    assert "fit together" in refuse(tmp_path, "--tls-cert", str(certificates.key), *key)
    assert "does not exist" in refuse(tmp_path, *key, "--tls-cert", str(tmp_path / "none"))


def test_encryption_is_enough_to_listen_for_strangers(certificates: Certificates, tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    server.command[server.command.index("--address") + 1] = f"0.0.0.0:{server.port}"
    server.command += ["--tls-cert", str(certificates.cert), "--tls-key", str(certificates.key)]
    with running(server):
        with Client(f"grpcs://localhost:{server.port}", timeout=30, ca_file=certificates.ca) as client:
            assert client.version.GetVersion().major == 2


def test_code_of_pipelines_reaches_pachd_unencrypted_on_loopback(encrypted: Pachd, certificates: Certificates) -> None:
    """As in a cluster, where workers have a port of their own; the token is asked for there too."""
    from pachd.proto import pps_pb2

    say = 'python3 -c \'import os, socket; socket.create_connection((os.environ["PACHD_PEER_SERVICE_HOST"], '
    say += 'int(os.environ["PACHD_PEER_SERVICE_PORT"])), 10).close()\' && '
    say += "echo $PACHD_PEER_SERVICE_HOST:$PACHD_PEER_SERVICE_PORT > /pfs/out/address"
    repo = pfs_pb2.Repo(name="given", type="user")
    commit = pfs_pb2.Commit(repo=repo, branch=pfs_pb2.Branch(repo=repo, name="master"))
    with Client(f"grpcs://{encrypted.address}", token=TOKEN, timeout=60, ca_file=certificates.ca) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo))
        add = pfs_pb2.AddFile(path="/a", raw={"value": b"x"})
        client.pfs.ModifyFile([pfs_pb2.ModifyFileRequest(set_commit=commit), pfs_pb2.ModifyFileRequest(add_file=add)])
        spec = pps_pb2.CreatePipelineRequest(
            pipeline=pps_pb2.Pipeline(name="told-where", project=pfs_pb2.Project(name="default")),
            transform=pps_pb2.Transform(cmd=["sh"], stdin=[say]),
            input=pps_pb2.Input(pfs=pps_pb2.PFSInput(repo="given", glob="/*")),
        )
        client.pps.CreatePipeline(spec)
        job = next(iter(client.pps.ListJob(pps_pb2.ListJobRequest(pipeline=spec.pipeline)))).job
        done = client.pps.InspectJob(pps_pb2.InspectJobRequest(job=job, wait=True))
        assert done.state == pps_pb2.JOB_SUCCESS, done.reason
        out = pfs_pb2.Repo(name="told-where", type="user")
        file = pfs_pb2.File(
            commit=pfs_pb2.Commit(repo=out, branch=pfs_pb2.Branch(repo=out, name="master")), path="/address"
        )
        peer = b"".join(m.value for m in client.pfs.GetFile(pfs_pb2.GetFileRequest(file=file))).decode().strip()
    assert peer.startswith("127.0.0.1:") and peer != encrypted.address
    with Client(peer, timeout=30) as stranger, pytest.raises(RpcError, match="no authentication token"):
        list(stranger.pfs.ListRepo(pfs_pb2.ListRepoRequest()))
    with Client(peer, token=TOKEN, timeout=30) as client:
        assert client.auth.WhoAmI().username == "pach:root"
