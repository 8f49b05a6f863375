"""Long-lived code of several workers: files that are put ready ahead, and datums that wait for nobody."""

import pytest

from pachd.client import Client
from tests.pps.helpers import Gate, create, job_list, last_job, names, new_repo, read, wait_for

BATCH = """
import os, sys
from pipelines.worker import each_datum

def work():
    found = sorted(os.path.join(top, name) for top, _, files in os.walk("/pfs/in") for name in files)
    assert sorted(os.listdir("/pfs")) == [".env", ".scratch", "in", "out"], os.listdir("/pfs")
    assert os.listdir("/pfs/out") == []
    variables = dict(line.split("=", 1) for line in open("/pfs/.env").read().splitlines())
    assert variables["PACH_DATUM_ID"] == os.environ["PACH_DATUM_ID"]
    {body}
    for path in found:
        with open(path) as file, open("/pfs/out/" + path[len("/pfs/in/"):].replace("/", "-"), "w") as out:
            out.write(file.read() + " seen")

each_datum(work)
"""


def batch(client: Client, name: str, repo: str, body: str, pattern: str = "/*", **spec: object) -> None:
    transform = {"cmd": ["python3", "-c", BATCH.replace("{body}", body)], "stdin": [], "datum_batching": True}
    source = {"pfs": {"repo": repo, "name": "in", "glob": pattern}}
    create(client, name, "", transform=transform, input=source, **spec)


@pytest.mark.parametrize("workers", [1, 3])
def test_each_datum_sees_its_own_files_and_no_others(client: Client, workers: int) -> None:
    repo = f"many-{workers}"
    files = {f"/d{i % 7}/f{i:03d}": b"%d" % i for i in range(150)}
    new_repo(client, repo, {**files, "/d0/large": b"x" * (2 << 20), "/d1/none": b""})
    name = f"seen-{workers}"
    more = {"parallelism_spec": {"constant": workers}}
    batch(client, name, repo, "assert len(found) == 1, found", "/*/*", **more)
    job = last_job(client, name)
    assert (job.data_processed, job.data_failed, job.reason) == (152, 0, "")
    assert len(names(client, name)) == 152
    for path, data in files.items():
        assert read(client, name, "/" + path[1:].replace("/", "-")) == data + b" seen"


def test_a_datum_that_fails_is_tried_again_and_the_next_one_is_as_it_was(client: Client) -> None:
    new_repo(client, "some", {f"/{i}/a": b"%d" % i for i in range(9)})
    again = 'if found[0] == "/pfs/in/4/a" and not os.path.exists("/tmp/again"): open("/tmp/again", "w"); raise OSError'
    batch(client, "tried", "some", again, parallelism_spec={"constant": 1}, datum_tries=2)
    job = last_job(client, "tried")
    assert (job.data_processed, job.data_failed, job.reason) == (9, 0, "")
    assert [read(client, "tried", f"/{i}-a") for i in range(9)] == [b"%d seen" % i for i in range(9)]


def test_no_datum_waits_for_a_slow_one(client: Client) -> None:
    new_repo(client, "mixed", {f"/{i}": b"%d" % i for i in range(8)})
    with Gate() as gate:
        batch(client, "slow", "mixed", f'if found == ["/pfs/in/0"]: {gate.python}', parallelism_spec={"constant": 2})
        gate.arrived()
        wait_for(lambda: job_list(client, "slow")[0].data_processed == 7, "all others are done")
        gate.open()
        assert last_job(client, "slow").data_processed == 8


def test_no_datum_waits_for_an_error_handler(client: Client) -> None:
    new_repo(client, "handled", {f"/{i}": b"%d" % i for i in range(8)})
    with Gate() as gate:
        body = 'assert found != ["/pfs/in/0"]'
        transform = {"cmd": ["python3", "-c", BATCH.replace("{body}", body)], "stdin": [], "datum_batching": True}
        transform |= {"err_cmd": ["python3", "-c", gate.python]}
        source = {"pfs": {"repo": "handled", "name": "in", "glob": "/*"}}
        more = {"parallelism_spec": {"constant": 2}, "datum_tries": 1}
        create(client, "handler", "", transform=transform, input=source, **more)
        gate.arrived()
        wait_for(lambda: job_list(client, "handler")[0].data_processed == 7, "all others are done")
        gate.open()
        job = last_job(client, "handler")
        assert (job.data_processed, job.data_recovered) == (7, 1)
