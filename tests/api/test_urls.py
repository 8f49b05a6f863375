"""URLs that clients name: pachd fetches files from them and writes files to them, but not where it must not."""

import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.proto import pfs_pb2
from tests.processes import Pachd, running

REPO = pfs_pb2.Repo(name="urls", type="user", project=pfs_pb2.Project(name="default"))
MASTER = pfs_pb2.Commit(repo=REPO, branch=pfs_pb2.Branch(repo=REPO, name="master"))


class Site(http.server.BaseHTTPRequestHandler):
    """/big, /empty, /to?URL (a redirect), /slow (never ends), 404 for the rest."""

    def do_GET(self) -> None:
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        body = {"/big": b"0123456789" * 300_000, "/empty": b"", "/slow": b"x"}.get(self.path)
        self.send_response(404 if body is None else 200)
        if self.path != "/slow":
            self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")
        for _ in range(4000 if self.path == "/slow" else 0):
            time.sleep(0.05)
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Client]:
    pachd = Pachd(tmp_path_factory.mktemp("pachd") / "data")
    pachd.env = {"PACHD_URL_HOSTS": "localhost, 10.11.12.0/24", "PACHD_URL_FOLDERS": str(folder)}
    with running(pachd), Client(pachd.address) as client:
        client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=REPO))
        yield client
        assert "Traceback" not in pachd.text()
        pachd.stop()


def put(client: Client, path: str, url: str, recursive: bool = False, timeout: float = 60) -> None:
    source = pfs_pb2.AddFile.URLSource(URL=url, recursive=recursive)
    requests = [
        pfs_pb2.ModifyFileRequest(set_commit=MASTER),
        pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=path)),
        pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=path, url=source)),
        pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path="/after", raw={"value": b"."})),
    ]
    client.pfs.ModifyFile(requests, timeout=timeout)


def get(client: Client, path: str) -> bytes:
    file = pfs_pb2.File(commit=MASTER, path=path)
    return b"".join(m.value for m in client.pfs.GetFile(pfs_pb2.GetFileRequest(file=file)))


def test_a_file_is_fetched(client: Client, site: str) -> None:
    put(client, "/big", f"{site}/big")
    assert get(client, "/big") == b"0123456789" * 300_000
    put(client, "/empty", f"{site}/empty")
    assert get(client, "/empty") == b""
    put(client, "/redirected", f"{site}/to?/big")
    assert len(get(client, "/redirected")) == 3_000_000


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("SITE/nope", Status.UNKNOWN, "404"),
        ("http://127.0.0.1:PORT/big", Status.UNKNOWN, "127.0.0.1 is no public address"),
        ("http://[::ffff:127.0.0.1]:PORT/big", Status.UNKNOWN, "is no public address"),
        ("http://2130706433:PORT/big", Status.UNKNOWN, "127.0.0.1 is no public address"),
        ("SITE/to?http://127.0.0.1:PORT/big", Status.UNKNOWN, "127.0.0.1 is no public address"),
        ("http://169.254.169.254/latest/meta-data/", Status.UNKNOWN, "169.254.169.254"),
        ("http://10.0.0.1/", Status.UNKNOWN, "10.0.0.1"),
        ("SITE/to?file:///etc/passwd", Status.UNKNOWN, "error retrieving content"),
        ("file:///etc/passwd", Status.UNKNOWN, "PACHD_URL_FOLDERS"),
        ("file:/etc/passwd", Status.UNKNOWN, "error parsing url"),
        ("minio://127.0.0.1:9000/bucket/key", Status.UNKNOWN, "PACHD_URL_HOSTS"),
        ("s3://bucket/key?endpoint=http://169.254.169.254", Status.UNKNOWN, "PACHD_URL_HOSTS"),
        ("gopher://x/", Status.UNKNOWN, "unrecognized object store: gopher"),
        ("http://", Status.UNKNOWN, "it names no host"),
        ("s3://", Status.UNKNOWN, "it names no bucket"),
    ],
)
def test_what_is_refused_changes_nothing(client: Client, site: str, url: str, status: Status, words: str) -> None:
    def commits() -> int:
        return len(list(client.pfs.ListCommit(pfs_pb2.ListCommitRequest(repo=REPO))))

    before = commits()
    with pytest.raises(RpcError) as error:
        put(client, "/x", url.replace("SITE", site).replace("PORT", site.rpartition(":")[2]))
    assert error.value.code == status and words in error.value.message
    assert commits() == before


def test_egress_and_back(client: Client, folder: Path) -> None:
    requests = [pfs_pb2.ModifyFileRequest(set_commit=MASTER)]
    for path, content in (("/out/a", b"1"), ("/out/d/b", b"22"), ("/out/large", os.urandom(20_000_000))):
        requests.append(pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=path, raw={"value": content})))
    client.pfs.ModifyFile(requests)
    file = pfs_pb2.File(commit=MASTER, path="/out/")
    assert list(client.pfs.GetFile(pfs_pb2.GetFileRequest(file=file, URL=f"file://{folder}/some"))) == []
    found = {str(p.relative_to(folder / "some")): p.stat().st_size for p in (folder / "some").rglob("*") if p.is_file()}
    assert found == {"out/a": 1, "out/d/b": 2, "out/large": 20_000_000}
    request = pfs_pb2.EgressRequest(
        commit=MASTER, object_storage=pfs_pb2.ObjectStorageEgress(url=f"file://{folder}/all")
    )
    written = client.pfs.Egress(request).object_storage.bytes_written
    assert written == sum(p.stat().st_size for p in (folder / "all").rglob("*") if p.is_file())
    put(client, "/in", f"file://{folder}/some", recursive=True)
    assert get(client, "/in/out/d/b") == b"22"
    assert get(client, "/in/out/large") == (folder / "some/out/large").read_bytes()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (pfs_pb2.EgressRequest(), "commit cannot be nil"),
        (pfs_pb2.EgressRequest(commit=MASTER), "egress failed"),
        (pfs_pb2.EgressRequest(commit=MASTER, sql_database={"url": "x"}), "egress.sql_database.secret is required"),
        (pfs_pb2.EgressRequest(commit=MASTER, object_storage={"url": "file:///etc"}), "PACHD_URL_FOLDERS"),
        (pfs_pb2.EgressRequest(commit=MASTER, object_storage={"url": ""}), "unrecognized object store"),
    ],
)
def test_egress_that_cannot_be(client: Client, request_: pfs_pb2.EgressRequest, words: str) -> None:
    with pytest.raises(RpcError, match=words):
        client.pfs.Egress(request_)


def test_a_slow_server_keeps_nobody_waiting(client: Client, site: str) -> None:
    ends = [threading.Thread(target=_gives_up, args=(client, site)) for _ in range(4)]
    for each in ends:
        each.start()
    time.sleep(0.5)
    start = time.monotonic()
    put(client, "/quick", f"{site}/empty")
    client.pfs.ModifyFile(
        [pfs_pb2.ModifyFileRequest(set_commit=MASTER)]
        + [
            pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path="/large", raw={"value": b"x" * 1_000_000}))
            for _ in range(3)
        ]
    )
    for each in ends:
        each.join()
    assert len(get(client, "/large")) == 3_000_000
    assert time.monotonic() - start < 100  # /slow takes two hundred seconds


def _gives_up(client: Client, site: str) -> None:
    with pytest.raises(RpcError):
        put(client, "/slow", f"{site}/slow", timeout=2)


def test_addresses_are_checked_when_they_are_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public when it is asked for the first time and private the second time helps nobody."""
    from pachd.errors import PachError
    from pachd.pfs import web

    answers = [["8.8.8.8", "192.168.1.1"], ["192.168.1.1"]]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: [(0, 0, 0, "", (each, 80)) for each in answers.pop(0)])
    with pytest.raises(PachError, match="rebind.example: 192.168.1.1"):
        list(web.fetch("http://rebind.example/"))
    assert len(answers) == 1
