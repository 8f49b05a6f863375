"""The files that logs are kept in."""

from pathlib import Path

import pytest

from pachd.pps import logs


def test_an_endless_log_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_ENDLESS", 10_000)
    where = tmp_path / "1" / "spout.jsonl"
    log = logs.JobLog(where, endless=True)
    offset = 0
    seen: list[str] = []
    for number in range(1000):
        log.write(f"line {number}", None, "w")
        log.flush()
        for after, value in list(logs.read(where, offset)):
            offset = after
            seen.append(value["m"])
    log.close()
    assert seen == [f"line {number}" for number in range(1000)]
    assert sum(file.stat().st_size for file in where.parent.iterdir()) <= 20_000


def test_a_log_of_a_job_ends_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_JOB", 5_000)
    where = tmp_path / "1" / "job.jsonl"
    log = logs.JobLog(where)
    for number in range(1000):
        log.write(f"line {number}", None, "w")
    log.close()
    lines = [value["m"] for _, value in logs.read(where)]
    assert lines[0] == "line 0" and "the log of this job ends here" in lines[-1]
    assert where.stat().st_size < 6_000
