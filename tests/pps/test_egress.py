"""Egress: what a job made, copied to a folder or an object store."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from grpclib.const import Status

from pachd.client import Client, RpcError
from pachd.proto import pps_pb2
from tests.pps.helpers import create, delete, glob, job_list, last_job, new_repo, put, wait_for
from tests.processes import Pachd, running

SQL = {"url": "postgres://host/db", "file_format": {"type": "CSV"}, "secret": {"name": "s", "key": "k"}}


class Bucket(BaseHTTPRequestHandler):
    """The little of S3 that a writer uses: PUT of an object, and an upload in parts. Signatures are not checked."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes] = {}
    parts: dict[str, dict[int, bytes]] = {}
    failures = 0
    serves = threading.Event()  # until it is set whoever uploads has to wait
    serves.set()
    keys: set[str] = set()

    def log_message(self, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        body = self._body()
        self.keys.add(self.headers["Authorization"].split("Credential=")[1].split("/")[0])
        path, _, query = self.path.partition("?")
        Bucket.serves.wait(120)
        if Bucket.failures:
            Bucket.failures -= 1
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        elif "partNumber=" in query:
            number = int(query.split("partNumber=")[1].split("&")[0])
            self.parts.setdefault(path, {})[number] = body
            self._answer(200, ETag=f'"{number}"')
        else:
            self.objects[path] = body
            self._answer(200, ETag='"whole"')

    def do_POST(self) -> None:
        self._body()
        path, _, query = self.path.partition("?")
        if query.startswith("uploads"):
            self._answer(200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        else:
            parts = self.parts.pop(path)
            self.objects[path] = b"".join(parts[number] for number in sorted(parts))
            done = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
            self._answer(200, done.encode())


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, exports: Path, bucket: str) -> Iterator[Client]:
    server = Pachd(tmp_path_factory.mktemp("pachd") / "data")
    server.env = {"PACHD_URL_FOLDERS": str(exports), "AWS_ENDPOINT_URL": bucket, "AWS_REGION": "us-east-1"}
    server.env |= {"AWS_ACCESS_KEY_ID": "of-pachd", "AWS_SECRET_ACCESS_KEY": "x"}
    with running(server), Client(server.address) as client:
        new_repo(client, "in", {"/a": b"one", "/d/b": b"two", "/empty": b""})
        yield client


def test_to_a_folder(client: Client, exports: Path) -> None:
    target = exports / "some where"
    url = target.as_uri()
    create(client, "filed", "cp -r /pfs/in/* /pfs/out/", input=glob("in", "/"), egress={"URL": url})
    assert last_job(client, "filed").state == pps_pb2.JOB_SUCCESS
    found = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert found == {"a": b"one", "d/b": b"two", "empty": b""}
    put(client, "in", {"/a": b"changed"})
    assert last_job(client, "filed").state == pps_pb2.JOB_SUCCESS
    assert (target / "a").read_bytes() == b"changed"
    delete(client, "filed")


@pytest.mark.parametrize("url", ["file:///etc/howdah", "file:///{}/../elsewhere", "file://host/x"])
def test_a_folder_that_the_operator_did_not_open(client: Client, exports: Path, url: str) -> None:
    with pytest.raises(RpcError, match="PACHD_URL_FOLDERS"):
        create(client, "wild", "true", input=glob("in"), egress={"URL": url.format(exports)})


def test_to_an_object_store(client: Client) -> None:
    Bucket.objects.clear()
    script = "cp -r /pfs/in/* /pfs/out/\nhead -c 12000000 /dev/zero > /pfs/out/large"
    storage = {"object_storage": {"url": "s3://bucket/some/dir"}}
    create(client, "stored", script, input=glob("in", "/"), egress=storage)
    job = last_job(client, "stored")
    assert (job.state, job.reason) == (pps_pb2.JOB_SUCCESS, "")
    assert sorted(Bucket.objects) == [f"/bucket/some/dir/{name}" for name in ("a", "d/b", "empty", "large")]
    assert Bucket.objects["/bucket/some/dir/large"] == bytes(12_000_000)
    assert Bucket.keys == {"of-pachd"}
    delete(client, "stored")


def test_it_is_tried_again_while_the_job_is_egressing(client: Client) -> None:
    Bucket.objects.clear()
    Bucket.failures = 1
    more = {"input": glob("in", "/a"), "egress": {"URL": "s3://bucket"}}
    Bucket.serves.clear()
    try:
        create(client, "tried", "cp /pfs/in/a /pfs/out/", **more)
        wait_for(lambda: [j for j in job_list(client, "tried") if j.state == pps_pb2.JOB_EGRESSING], "EGRESSING")
    finally:
        Bucket.serves.set()
    assert last_job(client, "tried").state == pps_pb2.JOB_SUCCESS
    assert sorted(Bucket.objects) == ["/bucket/a"]
    delete(client, "tried")


def test_an_egress_that_fails_fails_the_job(client: Client) -> None:
    Bucket.failures = 3
    more = {"input": glob("in", "/a"), "egress": {"URL": "s3://bucket/x"}}
    create(client, "refused", "cp /pfs/in/a /pfs/out/", **more)
    job = last_job(client, "refused")
    assert job.state == pps_pb2.JOB_FAILURE and job.reason.startswith("egress to s3://bucket/x failed")
    delete(client, "refused")


def test_nothing_is_sent_of_a_failed_job(client: Client, exports: Path) -> None:
    egress = {"URL": (exports / "none").as_uri()}
    create(client, "failing", "exit 1", input=glob("in"), egress=egress, datum_tries=1)
    assert last_job(client, "failing").state == pps_pb2.JOB_FAILURE
    assert not list((exports / "none").iterdir())  # made when the spec was checked


def test_databases_and_other_urls_are_refused(client: Client) -> None:
    with pytest.raises(RpcError, match="cannot egress to SQL databases") as refused:
        create(client, "sql", "true", input=glob("in"), egress={"sql_database": SQL})
    assert refused.value.code == Status.UNIMPLEMENTED
    for url in ("ftp://host/x", "s3:///path", "nonsense"):
        with pytest.raises(RpcError, match="unrecognized object store|names no bucket"):
            create(client, "odd", "true", input=glob("in"), egress={"URL": url})


def test_an_egress_goes_on_after_a_kill(tmp_path: Path, bucket: str) -> None:
    Bucket.objects.clear()
    server = Pachd(tmp_path / "data")
    server.env = {"AWS_ENDPOINT_URL": bucket, "AWS_REGION": "us-east-1"}
    server.env |= {"AWS_ACCESS_KEY_ID": "of-pachd", "AWS_SECRET_ACCESS_KEY": "x"}
    with running(server):
        with Client(server.address) as client:
            new_repo(client, "in", {"/a": b"one"})
            Bucket.serves.clear()
            create(client, "killed", "cp /pfs/in/a /pfs/out/", input=glob("in"), egress={"URL": "s3://bucket"})
            wait_for(lambda: [j for j in job_list(client, "killed") if j.state == pps_pb2.JOB_EGRESSING], "EGRESSING")
        server.kill()
        Bucket.serves.set()
        server.start()
        with Client(server.address) as client:
            job = last_job(client, "killed")
            assert (job.state, job.data_processed) == (pps_pb2.JOB_SUCCESS, 1)
    assert Bucket.objects == {"/bucket/a": b"one"}
