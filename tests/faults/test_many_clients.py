"""A hundred clients at once: nobody gets an error, nobody hangs, and every head is what its writer made it.

HOWDAH_MANY_SECONDS sets how long they go on (20 by default).
"""

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.faults import helpers
from tests.processes import Pachd, running

SECONDS = float(os.environ.get("HOWDAH_MANY_SECONDS") or 20)
WRITERS, READERS, SUBSCRIBERS, WAITERS, LISTERS = 40, 25, 15, 15, 5
REPO = "shared"
LAST = "the last one"
FILES = 3  # written by every commit with the same number in each


def head(client: Client, branch: str) -> pfs_pb2.CommitInfo:
    request = pfs_pb2.InspectCommitRequest(commit=helpers.commit_of(REPO, branch))
    info: pfs_pb2.CommitInfo = client.pfs.InspectCommit(request, timeout=60)
    return info


class Branch:
    """What a writer has done to its branch, for everybody to hold the server against.

    `begun` grows before a write is sent, `done` when it is acknowledged: what a reader sees must be a number between
    the `done` from before it asked and the `begun` from after it was answered.
    """

    def __init__(self, number: int) -> None:
        self.name = f"b{number}"
        self.begun = 0
        self.done = 0
        self.heads: dict[str, int] = {}  # commit ID -> number


class Crowd:
    """Clients of all kinds on one server, each in a thread of its own."""

    def __init__(self, address: str, chance: random.Random) -> None:
        self.address = address
        self.branches = [Branch(i) for i in range(WRITERS)]
        self.over = threading.Event()
        self.errors: list[str] = []
        self.counts: dict[str, int] = {}
        self._chance = chance
        self._lock = threading.Lock()

    def run(self, seconds: float) -> None:
        """Let everybody work for a while, then make one more commit for those who wait to be told.

        Threads that have not come to an end three minutes after that hang.
        """
        kinds: list[tuple[int, Callable[[Client, int, random.Random], None]]] = [
            (WRITERS, self.write),
            (READERS, self.read),
            (SUBSCRIBERS, self.subscribe),
            (WAITERS, self.wait),
            (LISTERS, self.list),
        ]
        threads = []
        for count, work in kinds:
            for i in range(count):
                seed = self._chance.randrange(1 << 32)
                name = f"{work.__name__} {i}"
                threads.append(threading.Thread(target=self._guard, args=(work, i, seed), name=name, daemon=True))
        for thread in threads:
            thread.start()
        self.over.wait(seconds)  # set early by the first error
        self.over.set()
        deadline = time.monotonic() + 180
        subscribers = [thread for thread in threads if thread.name.startswith("subscribe")]
        for thread in threads:
            if thread not in subscribers:
                thread.join(max(0.0, deadline - time.monotonic()))
        with Client(self.address) as client:
            for branch in self.branches[:SUBSCRIBERS]:
                self._put(client, branch, by_hand=True, description=LAST)
        for thread in subscribers:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.errors += [f"{thread.name} hangs" for thread in threads if thread.is_alive()]

    def _guard(self, work: Callable[[Client, int, random.Random], None], i: int, seed: int) -> None:
        try:
            with Client(self.address) as client:
                work(client, i, random.Random(seed))
        except Exception as error:
            self.errors.append(f"{threading.current_thread().name}: {type(error).__name__}: {error}")
            self.over.set()

    def count(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] = self.counts.get(kind, 0) + 1

    # -- the kinds -------------------------------------------------------------------------------------------------

    def write(self, client: Client, i: int, chance: random.Random) -> None:
        """Write one number after another to a branch that is this writer's own, by each of the ways there are."""
        while not self.over.is_set():
            self._put(client, self.branches[i], by_hand=chance.random() < 0.3)

    def _put(self, client: Client, branch: Branch, by_hand: bool, description: str = "") -> None:
        number = branch.begun = branch.done + 1
        files = [(f"/{branch.name}/{n}", b"%d" % number) for n in range(FILES)]
        if by_hand:
            key = pfs_pb2.Branch(repo=helpers.repo_of(REPO), name=branch.name)
            request = pfs_pb2.StartCommitRequest(branch=key, description=description)
            commit = client.pfs.StartCommit(request, timeout=60)
            for file in files:
                self._stream(client, commit, [file])
            client.pfs.FinishCommit(pfs_pb2.FinishCommitRequest(commit=commit), timeout=60)
        else:
            self._stream(client, helpers.commit_of(REPO, branch.name), files)
        branch.done = number
        info = head(client, branch.name)
        assert info.HasField("finished") and info.commit.id not in branch.heads, f"{branch.name}: no new head"
        branch.heads[info.commit.id] = number
        self.count("commits")

    def _stream(self, client: Client, commit: pfs_pb2.Commit, files: list[tuple[str, bytes]]) -> None:
        messages = [pfs_pb2.ModifyFileRequest(set_commit=commit)]
        for path, data in files:
            messages.append(pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=path)))
            add = pfs_pb2.AddFile(path=path)
            add.raw.value = data
            messages.append(pfs_pb2.ModifyFileRequest(add_file=add))
        client.pfs.ModifyFile(messages, timeout=60)

    def read(self, client: Client, i: int, chance: random.Random) -> None:
        """Read finished heads: whole commits, never older than what was acknowledged before the reader asked."""
        while not self.over.is_set():
            branch = chance.choice(self.branches)
            done = branch.done
            if not done:
                time.sleep(0.01)
                continue
            info = head(client, branch.name)
            begun = branch.begun
            if not info.HasField("finished"):
                continue  # its writer is at work on it
            found = {helpers.get(client, REPO, f"/{branch.name}/{n}", info.commit.id) for n in range(FILES)}
            assert len(found) == 1, f"{branch.name}: half a commit: {found}"
            number = int(found.pop())
            assert done <= number <= begun, f"{branch.name}: {number} is not between {done} and {begun}"
            known = branch.heads.get(info.commit.id, number)
            assert known == number, f"{branch.name}: commit {info.commit.id} changed from {known} to {number}"
            self.count("reads")

    def subscribe(self, client: Client, i: int, chance: random.Random) -> None:
        """Be told of every commit of a branch, once, each a child of the one before."""
        branch = self.branches[i % WRITERS]
        request = pfs_pb2.SubscribeCommitRequest(
            repo=helpers.repo_of(REPO), branch=branch.name, state=pfs_pb2.FINISHED, all=True
        )
        told: list[str] = [""]
        with client.pfs.SubscribeCommit(request) as replies:
            for info in replies:
                assert info.parent_commit.id == told[-1], f"{branch.name}: {info.commit.id} is no child of {told[-1]}"
                told.append(info.commit.id)
                self.count("told")
                if info.description == LAST:
                    break
        end = time.monotonic() + 60
        while told[-1] not in branch.heads and time.monotonic() < end:
            time.sleep(0.01)  # the last head is noted after it is told
        assert told[1:] == list(branch.heads), f"{branch.name}: told of {len(told)} commits of {len(branch.heads)}"

    def wait(self, client: Client, i: int, chance: random.Random) -> None:
        """Wait for heads to finish; an acknowledged commit is never waited for in vain."""
        while not self.over.is_set():
            branch = chance.choice(self.branches)
            if not branch.done:
                time.sleep(0.01)
                continue
            request = pfs_pb2.InspectCommitRequest(commit=helpers.commit_of(REPO, branch.name), wait=pfs_pb2.FINISHED)
            info = client.pfs.InspectCommit(request, timeout=60)
            assert info.HasField("finished")
            self.count("waits")

    def list(self, client: Client, i: int, chance: random.Random) -> None:
        """Look at everything there is."""
        while not self.over.is_set():
            done = sum(branch.done for branch in self.branches)
            infos = helpers.commits(client, REPO)
            finished = sum(info.HasField("finished") for info in infos)
            assert finished >= done, f"{finished} commits are listed, {done} were acknowledged"
            ids = [info.commit.id for info in infos]
            assert len(ids) == len(set(ids))
            self.count("lists")


@pytest.mark.timeout(SECONDS + 500)
def test_a_hundred_clients(tmp_path: Path) -> None:
    server = Pachd(tmp_path / "data")
    with running(server):
        with Client(server.address, timeout=60) as client:
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=helpers.repo_of(REPO)))
        crowd = Crowd(server.address, helpers.chance())
        crowd.run(SECONDS)
        print(crowd.counts)
        assert not crowd.errors, "\n".join(crowd.errors[:20])
        for kind in ("commits", "reads", "told", "waits", "lists"):
            assert crowd.counts.get(kind), f"no {kind} in {SECONDS} s"
        with Client(server.address, timeout=60) as client:
            for branch in crowd.branches:
                assert branch.done == branch.begun == len(branch.heads)
                assert branch.heads[head(client, branch.name).commit.id] == branch.done
        assert server.stop() == 0
        checked = server.fsck()
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "Traceback" not in server.text()
