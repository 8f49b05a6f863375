"""Repos and files: ingest, one change among many, listings, differences, reads."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.wrappers_pb2 import BytesValue

from benchmarks.result import Row, median, row, seconds
from benchmarks.servers import pachd, peak_memory
from pachd.client import Client
from pachd.proto import pfs_pb2

DVC = Path(__file__).resolve().parents[1] / ".venv-dvc" / "bin" / "dvc"
LABEL = b'{"annotations":[{"result":[{"value":{"choices":["7"]}}]}],"data":{"image":"%d"}}'


def content(n: int, size: int = 1200) -> bytes:
    """The nth file: no two are equal."""
    return (LABEL % n).ljust(size, b" ")


def block(n: int) -> bytes:
    """The nth megabyte of a large file."""
    return (b"%08d" % n) * (1 << 17)


def path(n: int) -> str:
    """The nth path: a thousand files in a folder."""
    return f"/d{n // 1000:04d}/f{n:07d}.json"


def commit_of(repo: str, ref: str = "master") -> pfs_pb2.Commit:
    """A branch's head, or a commit by its ID."""
    r = pfs_pb2.Repo(project=pfs_pb2.Project(name="default"), name=repo, type="user")
    if len(ref) == 32:
        return pfs_pb2.Commit(repo=r, id=ref)
    return pfs_pb2.Commit(repo=r, branch=pfs_pb2.Branch(repo=r, name=ref))


def file_of(repo: str, name: str, ref: str = "master") -> pfs_pb2.File:
    return pfs_pb2.File(commit=commit_of(repo, ref), path=name)


def stream(repo: str, files: Iterable[tuple[str, bytes]]) -> Iterator[pfs_pb2.ModifyFileRequest]:
    """One ModifyFile stream that adds files."""
    yield pfs_pb2.ModifyFileRequest(set_commit=commit_of(repo))
    for name, raw in files:
        yield pfs_pb2.ModifyFileRequest(add_file=pfs_pb2.AddFile(path=name, raw=BytesValue(value=raw)))


def create_repo(client: Client, repo: str) -> None:
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=commit_of(repo).repo))


def wait(client: Client, repo: str, ref: str = "master") -> pfs_pb2.CommitInfo:
    """The commit, once it is finished."""
    request = pfs_pb2.InspectCommitRequest(commit=commit_of(repo, ref), wait=pfs_pb2.FINISHED)
    info: pfs_pb2.CommitInfo = client.pfs.InspectCommit(request, timeout=300)
    return info


def fill(client: Client, repo: str, count: int, size: int = 1200) -> float:
    """A new repo of `count` files in one stream; seconds from the first message until the commit is finished."""
    create_repo(client, repo)
    # made beforehand: the client's work on its messages is not the server's
    requests = list(stream(repo, ((path(n), content(n, size)) for n in range(count))))

    def work() -> None:
        client.pfs.ModifyFile(iter(requests))
        wait(client, repo)

    return seconds(work)


def change_one(client: Client, repo: str, times: int = 15) -> float:
    """Seconds from putting one changed file until its commit is finished; the median of some."""
    taken = []
    for i in range(times):
        changed = [(path(7), content(10_000_000 + i))]
        name = path(7)

        def work(name: str = name, changed: list[tuple[str, bytes]] = changed) -> None:
            messages = list(stream(repo, changed))
            messages.insert(1, pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=name)))
            client.pfs.ModifyFile(iter(messages))
            wait(client, repo)

        taken.append(seconds(work))
    return median(taken)


def diff_one(client: Client, repo: str, times: int = 9) -> float:
    """Seconds for DiffFile of a head against its parent, which differ in one file."""
    info = wait(client, repo)
    request = pfs_pb2.DiffFileRequest(
        new_file=file_of(repo, "/", info.commit.id), old_file=file_of(repo, "/", info.parent_commit.id)
    )
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        found = list(client.pfs.DiffFile(request))
        taken.append(time.perf_counter() - started)
        assert any(d.new_file.file.path == path(7) for d in found), found
    return median(taken)


def drain(replies: Iterable[object]) -> tuple[int, float, float]:
    """How many came, seconds to the first, seconds to the last."""
    started = time.perf_counter()
    first = 0.0
    count = 0
    for _ in replies:
        if not count:
            first = time.perf_counter() - started
        count += 1
    return count, first, time.perf_counter() - started


def loop(client: Client, repo: str, count: int) -> tuple[float, float]:
    """One stream per file into an open commit, as the SDK's loop does: files per second, and seconds to finish."""
    create_repo(client, repo)
    branch = pfs_pb2.Branch(repo=commit_of(repo).repo, name="master")
    commit = client.pfs.StartCommit(pfs_pb2.StartCommitRequest(branch=branch))
    started = time.perf_counter()
    for n in range(count):
        messages = list(stream(repo, [(path(n), content(n))]))
        messages[0] = pfs_pb2.ModifyFileRequest(set_commit=commit)
        client.pfs.ModifyFile(iter(messages))
    rate = count / (time.perf_counter() - started)

    def finish() -> None:
        client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=commit))
        wait(client, repo)

    return rate, seconds(finish)


def plain_copy(folder: Path, count: int) -> float:
    """Files per second of writing, and syncing, as many files into a plain folder."""
    target = folder / "plain"

    def work() -> None:
        for n in range(count):
            p = target / path(n)[1:]
            if n % 1000 == 0:
                p.parent.mkdir(parents=True)
            p.write_bytes(content(n))
        os.sync()

    rate = count / seconds(work)
    return rate


def dvc_add(folder: Path, count: int) -> float | None:
    """Files per second of `dvc add` on a folder of as many files, or None where dvc is not installed."""
    if not DVC.exists():
        return None
    work = folder / "dvc"
    work.mkdir()
    for n in range(count):
        p = work / "data" / path(n)[1:]
        if n % 1000 == 0:
            p.parent.mkdir(parents=True)
        p.write_bytes(content(n))
    env = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / "dvc-site")}
    command = [str(DVC), "init", "--no-scm", "-q"]
    subprocess.run(command, cwd=work, env=env, check=True, capture_output=True)
    command = [str(DVC), "add", "-q", "data"]
    taken = seconds(lambda: subprocess.run(command, cwd=work, env=env, check=True, capture_output=True))
    shutil.rmtree(work)
    return count / taken


def run(folder: Path, quick: bool = False) -> list[Row]:
    """All rows about repos and files.

    :param folder: an empty folder to work in.
    :param quick: a hundredth of the files.
    """
    shrink = 100 if quick else 1
    small, middle, large = (max(100, n // shrink) for n in (10_000, 100_000, 1_000_000))
    rows: list[Row] = []
    with pachd(folder / "data") as client:
        fill(client, "warm-up", 100)
        taken = median([fill(client, f"ingest-{i}", small) for i in range(3)])
        name = f"commit of {small} files of 1.2 kB in one stream, durable"
        copied = plain_copy(folder, small)
        rate = small / taken
        rows.append(row(name, rate, "files/s", 20_000, at_least=True, peer="plain files, sync", peer_value=copied))
        rows.append({**rows[-1], "peer": "dvc add", "peer_value": dvc_add(folder, small)})
        os.sync()  # what the peers have left to write is not to be waited for by what follows

        rate, finishing = loop(client, "loop", small // 4)
        rows.append(row("one stream per file, client's loop", rate, "files/s", 1_000, at_least=True))
        rows.append(row("… then finish", finishing, "s", 0.2))

        for count in (small // 10, middle, large):
            repo = f"tree-{count}"
            peak_memory(folder / "data", reset=True)
            fill(client, repo, count, 1200 if count < large else 120)
            if count == large:
                rows.append(
                    row(f"memory of pachd while it commits {count} files", peak_memory(folder / "data"), "MB", 300)
                )
            rows.append(row(f"one changed file among {count}, until finished", change_one(client, repo), "s", 0.015))
            if count >= middle:
                rows.append(row(f"diff of one change among {count}", diff_one(client, repo), "s", 0.005))

        repo = f"tree-{middle}"
        for what, call in (
            ("glob", lambda: client.pfs.GlobFile(pfs_pb2.GlobFileRequest(commit=commit_of(repo), pattern="/*/*"))),
            ("walk", lambda: client.pfs.WalkFile(pfs_pb2.WalkFileRequest(file=file_of(repo, "/")))),
        ):
            runs = [drain(call()) for _ in range(3)]
            count = runs[0][0]
            assert count >= middle, f"{what} gave {count} entries"
            rate = count / median([r[2] for r in runs])
            rows.append(row(f"{what} of {middle} files", rate, "entries/s", 80_000, at_least=True))
            rows.append(row(f"{what} of {middle} files: first entry", median([r[1] for r in runs]), "s", 0.02))

        def get(n: int) -> None:
            request = pfs_pb2.GetFileRequest(file=file_of(repo, path(n)))
            got = b"".join(part.value for part in client.pfs.GetFile(request))
            assert got.rstrip() == content(n).rstrip(), (n, got[:200])

        numbers = [(n * 7919) % middle for n in range(100, 300)]
        taken = median([seconds(lambda n=n: get(n)) for n in numbers if n != 7])  # type: ignore[misc]
        rows.append(row("GetFile of one small file", taken, "s", 0.003))
    with pachd(folder / "data") as client:  # anew, as taking in a million files leaves its own traces in memory
        repo = f"tree-{large}"
        walk = pfs_pb2.WalkFileRequest(file=file_of(repo, "/"))
        count, first, taken = drain(client.pfs.WalkFile(walk))
        assert count >= large, f"walk gave {count} entries"
        rows.append(
            row(f"walk of {large} files, pachd just started", count / taken, "entries/s", 80_000, at_least=True)
        )
        rows.append(row(f"walk of {large} files: first entry", first, "s", 0.05))
        rows.append(row("… memory of pachd meanwhile", peak_memory(folder / "data"), "MB", 300))
    with pachd(folder / "data") as client:
        megabytes = 5120 // shrink
        create_repo(client, "big")
        client.pfs.ModifyFile(stream("big", (("/big", block(n)) for n in range(megabytes))))
        name = f"memory of pachd while it takes in one file of {megabytes} MB"
        rows.append(row(name, peak_memory(folder / "data"), "MB", 300))
    return rows
