"""What tests of pipelines share: repos, files, specs and waiting, over the wire."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from pachd.client import Client
from pachd.proto import pfs_pb2, pps_pb2

# Code that is given one datum after another.
BATCH = """
import os, sys
from pachd.client import Client
from pachd.proto import worker_pb2
print("started")
error = ""
with Client("127.0.0.1:" + os.environ["PPS_WORKER_GRPC_PORT"]) as client:
    while True:
        answer = client.worker.NextDatum(worker_pb2.NextDatumRequest(error=error), timeout=None)
        error = ""
        env = dict(line.split("=", 1) for line in answer.env)
        data = open(env["h"]).read()
        if data == "bad":
            error = "cannot"
            continue
        with open("/pfs/out/" + os.path.basename(env["h"]), "w") as out:
            out.write(data * 2)
"""


def repo(name: str, type: str = "user") -> pfs_pb2.Repo:
    return pfs_pb2.Repo(name=name, type=type, project=pfs_pb2.Project(name="default"))


def head(name: str, type: str = "user", branch: str = "master") -> pfs_pb2.Commit:
    of = repo(name, type)
    return pfs_pb2.Commit(repo=of, branch=pfs_pb2.Branch(repo=of, name=branch))


def new_repo(client: Client, name: str, files: dict[str, bytes] | None = None) -> None:
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo(name)))
    if files:
        put(client, name, files)


def put(client: Client, name: str, files: dict[str, bytes], delete: Iterable[str] = ()) -> None:
    requests = [pfs_pb2.ModifyFileRequest(set_commit=head(name))]
    requests += [pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=path)) for path in delete]
    for path, data in files.items():
        requests.append(pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=path)))
        add = pfs_pb2.AddFile(path=path)
        add.raw.value = data
        requests.append(pfs_pb2.ModifyFileRequest(add_file=add))
    client.pfs.ModifyFile(iter(requests))


def pipeline(name: str) -> pps_pb2.Pipeline:
    return pps_pb2.Pipeline(name=name, project=pfs_pb2.Project(name="default"))


def create(
    client: Client,
    name: str,
    script: str,
    input: dict[str, Any] | None = None,
    update: bool = False,
    reprocess: bool = False,
    **spec: Any,
) -> None:
    if input is not None:
        spec["input"] = input
    transform = {"cmd": ["bash", "-e"], "stdin": script.splitlines(), **spec.pop("transform", {})}
    text = json.dumps({"pipeline": {"name": name}, "transform": transform, **spec})
    client.pps.CreatePipelineV2(
        pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=text, update=update, reprocess=reprocess)
    )


def delete(client: Client, name: str) -> None:
    client.pps.DeletePipeline(pps_pb2.DeletePipelineRequest(pipeline=pipeline(name), must_exist=True))


def glob(name: str, pattern: str = "/*", **more: Any) -> dict[str, Any]:
    return {"pfs": {"repo": name, "glob": pattern, **more}}


def inspect(client: Client, name: str) -> pps_pb2.PipelineInfo:
    return client.pps.InspectPipeline(pps_pb2.InspectPipelineRequest(pipeline=pipeline(name), details=True))


def job_list(client: Client, name: str, **more: Any) -> list[pps_pb2.JobInfo]:
    return list(client.pps.ListJob(pps_pb2.ListJobRequest(pipeline=pipeline(name), **more)))


def last_job(client: Client, name: str) -> pps_pb2.JobInfo:
    """The newest job, when it has ended."""
    newest = job_list(client, name, number=1)[0]
    return client.pps.InspectJob(pps_pb2.InspectJobRequest(job=newest.job, wait=True, details=True), timeout=240)


def counts(job: pps_pb2.JobInfo) -> tuple[int, int, int, int, int]:
    return job.data_processed, job.data_skipped, job.data_failed, job.data_recovered, job.data_total


def names(client: Client, name: str, type: str = "user") -> list[str]:
    request = pfs_pb2.GlobFileRequest(commit=head(name, type), pattern="/**")
    return [info.file.path for info in client.pfs.GlobFile(request) if info.file_type == pfs_pb2.FILE]


def read(client: Client, name: str, path: str) -> bytes:
    file = pfs_pb2.File(commit=head(name), path=path)
    return b"".join(part.value for part in client.pfs.GetFile(pfs_pb2.GetFileRequest(file=file)))


def log_lines(client: Client, name: str, **more: Any) -> list[pps_pb2.LogMessage]:
    return list(client.pps.GetLogs(pps_pb2.GetLogsRequest(pipeline=pipeline(name), **more)))


def commit_infos(client: Client, name: str, all: bool = False) -> list[pfs_pb2.CommitInfo]:
    return list(client.pfs.ListCommit(pfs_pb2.ListCommitRequest(repo=repo(name), all=all)))


class Gate:
    """Where code in a sandbox waits until the test lets it go on, so that no test guesses how long something takes.

    `shell` (of bash) and `python` are the lines that wait.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.shell = f"cat < /dev/tcp/127.0.0.1/{port}"
        self.python = f"__import__('socket').create_connection(('127.0.0.1', {port})).recv(1)"
        self._changed = threading.Condition()
        self._waiting: list[socket.socket] = []
        self._arrived = 0
        self._opened = False
        threading.Thread(target=self._accept, daemon=True).start()

    def arrived(self, count: int = 1, seconds: float = 120) -> None:
        """Wait until code has come here so many times."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._arrived >= count, seconds), f"{self._arrived} of {count} came"

    def open(self) -> None:
        """Let everybody go on who is here and who will come."""
        with self._changed:
            self._opened = True
            self._let_go()

    def shut(self) -> None:
        """Let those who come from now on wait again."""
        with self._changed:
            self._opened = False

    def close(self) -> None:
        self.open()
        self._listener.close()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _let_go(self) -> None:
        for connection in self._waiting:
            connection.close()
        self._waiting.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self._waiting.append(connection)
                self._arrived += 1
                self._changed.notify_all()
                if self._opened:
                    self._let_go()


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """What the condition gives, once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return found
