"""Triggers: what makes a branch follow another, by size, number of commits, rate, time, in chains."""

import threading
import time

import pytest

from pachd.errors import NotFound, PachError
from pachd.pfs import branches, commits, refs, repos, schedule, triggers, writing, writing_together
from pachd.pfs.clock import Clock
from pachd.pfs.modify import Modification, modify_file
from pachd.proto import pfs_pb2
from pachd.store import Store, Txn, system
from pachd.types import Branch, Commit, Repo

DATA = Repo("default", "data")
STAGED, MASTER = Branch(DATA, "staged"), Branch(DATA, "master")
SECOND = 1_000_000_000


def put(store: Store, size: int, branch: Branch = STAGED) -> str:
    """One commit on a branch with `size` more bytes; its ID."""
    with Modification(store) as modification:
        modification.append("/f", b"x" * size)
        with writing(store) as txn:
            modify_file(txn, pfs_pb2.Commit(branch=refs.branch_pb(branch)), modification)
            return refs.resolve_commit(txn, (branch.repo, branch.name)).id


def head(store: Store, branch: Branch) -> str:
    with store.read() as txn:
        return refs.resolve_commit(txn, (branch.repo, branch.name)).id


def follow(store: Store, name: str, source: str = "staged", **conditions: object) -> Branch:
    branch = Branch(DATA, name)
    with writing(store) as txn:
        branches.create_branch(txn, branch, trigger=pfs_pb2.Trigger(branch=source, **conditions))  # type: ignore[arg-type]
    return branch


@pytest.fixture
def data(store: Store) -> Store:
    with writing(store) as txn:
        repos.create_repo(txn, DATA)
        branches.create_branch(txn, STAGED)
    return store


def test_size_counts_from_the_head_that_the_branch_has(data: Store) -> None:
    branch = follow(data, "master", size="3B")
    start = head(data, branch)
    put(data, 2)
    assert head(data, branch) == start
    moved = put(data, 1)
    assert head(data, branch) == moved
    put(data, 2)
    assert head(data, branch) == moved
    last = put(data, 1)
    assert head(data, branch) == last


def test_commits_all_and_any(data: Store) -> None:
    every2 = follow(data, "every2", commits=2)
    both = follow(data, "both", commits=2, size="10B", all=True)
    either = follow(data, "either", commits=3, size="10B")
    start = head(data, both)
    put(data, 1)
    second = put(data, 1)
    assert head(data, every2) == second
    assert head(data, both) == start and head(data, either) not in (start, second)
    third = put(data, 1)
    assert head(data, either) == third and head(data, every2) == second and head(data, both) == start
    fourth = put(data, 20)
    assert {head(data, b) for b in (every2, both, either)} == {fourth}


def test_chains_go_on_in_the_same_transaction_and_make_downstream_commits(data: Store) -> None:
    first = follow(data, "first", commits=1)
    second = follow(data, "second", source="first", commits=2)
    out = Branch(Repo("default", "out"), "master")
    with writing(data) as txn:
        repos.create_repo(txn, out.repo)
        branches.create_branch(txn, out, provenance=[second])
    one = put(data, 1)
    before = head(data, out)
    assert head(data, first) == one and head(data, second) != one
    two = put(data, 1)
    assert head(data, first) == head(data, second) == two
    assert head(data, out) not in (before, two)
    with data.read() as txn:
        made = commits.commit_info(txn, refs.resolve_commit(txn, (out.repo, "master")))
    assert [c.id for c in made.direct_provenance] == [two]


def test_triggers_fire_when_writes_share_a_transaction(data: Store) -> None:
    branch = follow(data, "master", commits=1)
    with writing(data) as txn:
        commits.start_commit(txn, STAGED)

    def finish(txn: Txn) -> str:
        row = refs.resolve_commit(txn, (DATA, "staged"))
        commits.finish_commit(txn, row.key)
        return row.id

    def fails(txn: Txn) -> None:
        repos.create_repo(txn, DATA)

    results = writing_together(data, [fails, finish, lambda txn: repos.create_repo(txn, Repo("default", "more"))])
    assert isinstance(results[0], PachError) and results[2] is None
    assert head(data, branch) == results[1]


def test_rate_limit(data: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_800_000_000 * SECOND]
    monkeypatch.setattr(system, "now_ns", lambda: clock[0])
    branch = follow(data, "hourly", rate_limit_spec="@every 1h")
    start = head(data, branch)
    clock[0] += 600 * SECOND
    put(data, 1)
    assert head(data, branch) == start
    clock[0] += 3600 * SECOND
    moved = put(data, 1)
    assert head(data, branch) == moved
    clock[0] += 3500 * SECOND
    put(data, 1)
    assert head(data, branch) == moved


def test_cron_moves_when_it_is_time_even_if_nothing_changed(data: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000 * SECOND]
    monkeypatch.setattr(system, "now_ns", lambda: now[0])
    branch = follow(data, "nightly", cron_spec="@daily", size="1B")
    out = Branch(Repo("default", "out"), "master")
    with writing(data) as txn:
        repos.create_repo(txn, out.repo)
        branches.create_branch(txn, out, provenance=[branch])
    put(data, 5)
    clock, start = Clock(data), head(data, branch)
    due = clock.tick()
    assert due == schedule.parse("@daily")(now[0]) and head(data, branch) == start != head(data, STAGED)
    now[0] = due + SECOND
    later = clock.tick()
    assert head(data, branch) == head(data, STAGED)
    below = head(data, out)
    now[0] = later + 5 * 86_400 * SECOND  # pachd slept over five of them
    assert clock.tick() > now[0]
    assert head(data, out) != below
    below = head(data, out)
    clock.tick()
    assert head(data, out) == below


def test_the_clock_hears_of_new_triggers(data: Store) -> None:
    clock, before = Clock(data), set(threading.enumerate())
    clock.start()
    try:
        branch = follow(data, "often", cron_spec="@every 1s")
        newest = put(data, 5)
        deadline = time.monotonic() + 120
        while head(data, branch) != newest and time.monotonic() < deadline:
            time.sleep(0.05)
        assert head(data, branch) == newest
    finally:
        clock.stop()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("trigger", "sentence"),
    [
        ({"branch": ""}, "triggers must specify a branch to trigger on"),
        ({"branch": "staged", "commits": -1}, "can't trigger on a negative number of commits"),
        ({"branch": "staged", "size": "9" * 400}, "invalid trigger size"),
        ({"branch": "staged", "cron_spec": "* * *"}, "invalid trigger cron spec: Expected exactly 5 fields, found 3"),
        ({"branch": "staged", "rate_limit_spec": "@soon"}, "invalid trigger rate limit spec: Unrecognized descriptor"),
        ({"branch": "master", "size": "1"}, "triggers cannot form a loop"),
    ],
)
def test_triggers_that_make_no_sense(data: Store, trigger: dict[str, object], sentence: str) -> None:
    with pytest.raises(PachError, match=sentence), writing(data) as txn:
        branches.create_branch(txn, MASTER, trigger=pfs_pb2.Trigger(**trigger))  # type: ignore[arg-type]
    with data.read() as txn:
        assert refs.find_branch(txn, MASTER) is None


def test_a_branch_to_follow_must_be_there(data: Store) -> None:
    with pytest.raises(NotFound), writing(data) as txn:
        branches.create_branch(txn, MASTER, trigger=pfs_pb2.Trigger(branch="nope", commits=1))


def test_branches_that_triggers_connect_are_deleted_by_force_only(data: Store) -> None:
    branch = follow(data, "master", commits=1)
    for each in (branch, STAGED):
        with pytest.raises(PachError, match="cannot be deleted because it"), writing(data) as txn:
            branches.delete_branch(txn, each)
    with pytest.raises(PachError, match="^delete branch"), writing(data) as txn:
        repos.delete_repo(txn, DATA)
    with writing(data) as txn:
        branches.delete_branch(txn, STAGED, force=True)
        assert not branches.inspect_branch(txn, branch).HasField("trigger")
    with writing(data) as txn:
        branches.delete_branch(txn, branch)


def test_a_head_given_keeps_the_trigger(data: Store) -> None:
    branch = follow(data, "master", commits=1)
    first = put(data, 1)
    put(data, 1)
    with writing(data) as txn:
        branches.create_branch(txn, branch, head=Commit(DATA, first))
    assert head(data, branch) == first
    third = put(data, 1)
    assert head(data, branch) == third


@pytest.mark.parametrize(
    ("spec", "after", "due"),
    [
        ("* * * * *", 30, 60),
        ("@hourly", 0, 3600),
        ("@every 1h30m", 5, 5405),
        ("@every 10ms", 5, 6),
        ("0 0 * * SUN", 0, 3 * 86_400),
        ("*/15 2 * * ?", 0, 7200),
    ],
)
def test_schedules(spec: str, after: int, due: int) -> None:
    assert schedule.parse(spec)(after * SECOND) == due * SECOND


def test_schedules_that_never_come() -> None:
    assert schedule.parse(" @never ")(0) == schedule.parse("0 0 30 2 *")(0) == schedule.NEVER


@pytest.mark.parametrize(
    "spec", ["", "@soon", "@every", "@every 1h x", "61 * * * *", "0 0 L * *", "R * * * *", "1#2 * * * *"]
)
def test_schedules_that_are_none(spec: str) -> None:
    with pytest.raises(PachError):
        schedule.parse(spec)


@pytest.mark.parametrize(
    ("text", "size"),
    [("3B", 3), ("10K", 10_000), ("1.5 GiB", 1_500_000_000), (".5kB", 500), ("1e3", 1000), ("2Tb", 2 * 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert triggers.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("lots", "invalid size: 'lots'"),
        ("", "invalid size: ''"),
        ("-1", "invalid size: '-1'"),
        ("1Ki", "invalid suffix: 'ki'"),
        ("1iB", "invalid suffix: 'ib'"),
        ("7 zebra", "invalid suffix: 'zebra'"),
        ("1.2.3", 'strconv.ParseFloat: parsing "1.2.3": invalid syntax'),
    ],
)
def test_sizes_that_are_none(text: str, error: str) -> None:
    with pytest.raises(PachError) as caught:
        triggers.parse_size(text)
    assert str(caught.value) == f"invalid trigger size: {error}"
