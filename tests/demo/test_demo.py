"""The whole demo, and its report held against what Pachyderm's own client sees."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.sharing import locked

FIELDS = {"rounds", "who_labelled", "accuracy_before", "rollback", "seconds"}
ROUND = {"labels", "commit", "commits_on_labels", "sync_seconds", "jobs", "accuracy"}
JOB = {"pipeline", "state", "processed", "skipped", "failed", "total"}


@pytest.mark.timeout(2400)
def test_demo(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "howdah", "demo", "--report", str(report), "--data", str(tmp_path / "data")]
    with locked("usual-ports"):
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert set(found) == FIELDS
    first, second = found["rounds"]
    for entry in (first, second):
        assert set(entry) == ROUND and entry["commits_on_labels"] == 1
        assert [job["pipeline"] for job in entry["jobs"]] == ["preprocess", "train", "evaluate"]
        assert all(set(job) == JOB and job["state"] == "success" and not job["failed"] for job in entry["jobs"])
    assert first["labels"] == 600 and second["labels"] == 800
    changed = second["jobs"][0]["processed"]
    assert 200 < changed < 240 and second["jobs"][0]["skipped"] == 800 - changed == second["jobs"][0]["total"] - changed
    assert second["accuracy"] > 0.93
    who = found["who_labelled"]
    assert who["commit"] == second["commit"] and set(who["annotators"]) <= {"ada@example.com", "grace@example.com"}
    assert found["accuracy_before"] == first["accuracy"]
    back = found["rollback"]
    assert back["head"] == back["to"] == first["commit"] and back["history_kept"]
    assert back["accuracy"] == first["accuracy"]
