"""Cron inputs: ticks by the clock, by hand, made up for, and what datums they make."""

import re
import time
from pathlib import Path

import pytest

from pachd.client import Client, RpcError
from pachd.proto import pps_pb2
from tests.pps.helpers import create, delete, inspect, job_list, last_job, log_lines, names, pipeline, wait_for
from tests.processes import Pachd, running

STAMP = re.compile(r"/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def test_a_clock_ticks(client: Client) -> None:
    create(client, "ticking", "ls /pfs/tick", input={"cron": {"name": "tick", "spec": "@every 1s"}})
    assert inspect(client, "ticking").details.input.cron.repo == "ticking_tick"
    assert inspect(client, "ticking").details.input.cron.HasField("start")
    ticks = wait_for(lambda: (found := names(client, "ticking_tick")) and len(found) >= 3 and found, "three ticks")
    assert all(STAMP.fullmatch(path) for path in ticks)
    client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("ticking"), must_exist=True))
    stopped = names(client, "ticking_tick")
    time.sleep(2.2)
    assert names(client, "ticking_tick") == stopped
    client.pps.StartPipeline(pps_pb2.StartPipelineRequest(pipeline=pipeline("ticking")))
    wait_for(lambda: len(names(client, "ticking_tick")) > len(stopped) + 1, "missed ticks are made up for")
    delete(client, "ticking")
    with pytest.raises(RpcError, match="ticking_tick"):
        names(client, "ticking_tick")


def test_run_cron_adds_a_datum_unless_overwrite(client: Client) -> None:
    never = {"name": "tick", "spec": "@never"}
    create(client, "kept", "ls /pfs/tick", input={"cron": never})
    create(client, "over", "ls /pfs/tick", input={"cron": {**never, "overwrite": True}})
    for name, total in (("kept", 2), ("over", 1)):
        for _ in range(2):
            client.pps.RunCron(pps_pb2.RunCronRequest(pipeline=pipeline(name)))
            last_job(client, name)
            time.sleep(1.05)  # ticks are named by the second
        job = last_job(client, name)
        assert (job.state, job.data_total, job.data_processed) == (pps_pb2.JOB_SUCCESS, total, 1)
        assert len(names(client, f"{name}_tick")) == total
        delete(client, name)


def test_a_start_in_the_past_is_made_up_for(client: Client) -> None:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3 * 3600))
    cron = {"name": "tick", "spec": "@every 1h", "start": started}
    create(client, "past", "true", input={"cron": cron})
    wait_for(lambda: len(names(client, "past_tick")) == 3, "three ticks of three hours")
    delete(client, "past")


def test_an_endless_past_holds_up_nobody(client: Client) -> None:
    ancient = {"name": "tick", "spec": "@every 1s", "start": "2020-01-01T00:00:00Z"}
    create(client, "ancient", "true", input={"cron": ancient}, autoscaling=True)
    create(client, "young", "true", input={"cron": {"name": "tick", "spec": "@every 1s"}})
    wait_for(lambda: len(names(client, "young_tick")) >= 2, "ticks of the other")
    wait_for(lambda: len(names(client, "ancient_tick")) > 1, "its own")
    client.pps.StopPipeline(pps_pb2.StopPipelineRequest(pipeline=pipeline("ancient"), must_exist=True))
    delete(client, "young")
    delete(client, "ancient")


def test_no_cron_input_and_a_bad_schedule(client: Client) -> None:
    create(client, "plain", "true")
    with pytest.raises(RpcError, match="pipeline doesn't have a cron input"):
        client.pps.RunCron(pps_pb2.RunCronRequest(pipeline=pipeline("plain")))
    with pytest.raises(RpcError, match="Expected exactly 5 fields, found 2"):
        create(client, "bad", "true", input={"cron": {"name": "tick", "spec": "* *"}})


def test_a_pipeline_without_input_has_a_job_with_nothing_to_do(client: Client) -> None:
    create(client, "nothing", "echo never")
    job = last_job(client, "nothing")
    assert (job.state, job.data_total) == (pps_pb2.JOB_SUCCESS, 0)
    assert [line.message for line in log_lines(client, "nothing") if line.user] == []


def test_ticks_go_on_after_a_kill(tmp_path: Path) -> None:
    with running(Pachd(tmp_path / "data")) as server:
        with Client(server.address) as client:
            create(client, "again", "true", input={"cron": {"name": "tick", "spec": "@every 1s"}})
            wait_for(lambda: names(client, "again_tick"), "a tick")
        server.kill()
        time.sleep(2)
        server.start()
        with Client(server.address) as client:
            before = names(client, "again_tick")
            wait_for(lambda: len(names(client, "again_tick")) >= len(before) + 1, "another tick")
            wait_for(lambda: len(job_list(client, "again")) >= 3, "jobs of the ticks")
