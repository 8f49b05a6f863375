"""`pachctl` for the code of spouts and services: the file commands of the real one, against the worker's own pachd.

A worker of Pachyderm finds a `pachctl` on its PATH.  Where the machine has the real one, that comes first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from pachd.client import Client, RpcError, parse_ref
from pachd.proto import pfs_pb2

PIECE = 1 << 20  # bytes of a file sent in one message


def _client() -> Client:
    host = os.environ.get("PACHD_PEER_SERVICE_HOST", "127.0.0.1")
    port = os.environ.get("PACHD_PEER_SERVICE_PORT", "30650")
    return Client(os.environ.get("PACHD_ADDRESS") or f"{host}:{port}", token=os.environ.get("PACH_TOKEN") or None)


def _file(reference: str) -> pfs_pb2.File:
    project = os.environ.get("PPS_PROJECT_NAME", "default")
    found = parse_ref(reference if "/" in reference.split("@")[0] else f"{project}/{reference}")
    file = pfs_pb2.File()
    if isinstance(found, pfs_pb2.File):
        file.CopyFrom(found)
    else:
        file.commit.CopyFrom(found)
        file.path = "/"
    return file


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Write to and read from the pachd that this worker belongs to."""


@main.group()
def put() -> None:
    """Put files."""


@main.group()
def get() -> None:
    """Get files."""


@main.group("list")
def list_() -> None:
    """List files."""


@main.group()
def delete() -> None:
    """Delete files."""


@put.command("file")
@click.argument("target")
@click.option(
    "-f", "--file", "sources", multiple=True, default=("-",), help="A file or, with -r, a folder; - is stdin."
)
@click.option("-r", "--recursive", is_flag=True, help="Put all files below a folder.")
@click.option("-a", "--append", is_flag=True, help="Append to what is there.")
def put_file(target: str, sources: tuple[str, ...], recursive: bool, append: bool) -> None:
    """Put files at REPO@BRANCH[:PATH], all in one commit."""
    file = _file(target)

    def requests() -> Iterator[pfs_pb2.ModifyFileRequest]:
        yield pfs_pb2.ModifyFileRequest(set_commit=file.commit)
        for source, path in _sources(file.path, sources, recursive):
            if not append:
                yield pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=path))
            stream = sys.stdin.buffer if source == "-" else open(source, "rb")
            with stream:
                data = stream.read(PIECE)
                while True:  # an empty file is one message too
                    add = pfs_pb2.AddFile(path=path)
                    add.raw.value = data
                    yield pfs_pb2.ModifyFileRequest(add_file=add)
                    if not (data := stream.read(PIECE)):
                        break

    with _client() as client:
        client.pfs.ModifyFile(requests())


def _sources(path: str, sources: tuple[str, ...], recursive: bool) -> Iterator[tuple[str, str]]:
    """(file or `-`, its path in the repo)."""
    at = path.strip("/")
    for source in sources:
        if source == "-":
            if not at:
                raise click.ClickException("must specify filename when reading data from stdin")
            yield source, f"/{at}"
        elif os.path.isdir(source):
            if not recursive:
                raise click.ClickException(f"{source} is a folder: use -r to put all files below it")
            for found in sorted(Path(source).rglob("*")):
                if found.is_file():
                    yield str(found), "/".join(["", *filter(None, [at]), str(found.relative_to(source))])
        elif not os.path.exists(source):
            raise click.ClickException(f"{source}: no such file or directory")
        else:
            many = len(sources) > 1 or not at or path.endswith("/")
            yield source, "/".join(["", *filter(None, [at]), *([Path(source).name] if many else [])])


@get.command("file")
@click.argument("source")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Where to write it; stdout by default.")
def get_file(source: str, output: str | None) -> None:
    """Get REPO@BRANCH:PATH."""
    with _client() as client:
        parts = client.pfs.GetFile(pfs_pb2.GetFileRequest(file=_file(source)))
        target = open(output, "wb") if output else sys.stdout.buffer
        for part in parts:
            target.write(part.value)
        target.flush()


@list_.command("file")
@click.argument("source")
def list_file(source: str) -> None:
    """List what is at REPO@BRANCH[:PATH]."""
    with _client() as client:
        for info in client.pfs.ListFile(pfs_pb2.ListFileRequest(file=_file(source))):
            click.echo(f"{info.size_bytes}B\t{info.file.path}")


@delete.command("file")
@click.argument("target")
@click.option("-r", "--recursive", is_flag=True, help="Delete a folder.")
def delete_file(target: str, recursive: bool) -> None:
    """Delete REPO@BRANCH:PATH."""
    file = _file(target)
    path = file.path.rstrip("/") + "/" if recursive else file.path
    requests = [
        pfs_pb2.ModifyFileRequest(set_commit=file.commit),
        pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=path)),
    ]
    with _client() as client:
        client.pfs.ModifyFile(iter(requests))


def run() -> None:
    """The command: errors of pachd are one line on stderr and exit code 1."""
    try:
        main()
    except RpcError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    run()
