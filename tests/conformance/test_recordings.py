"""What a real Pachyderm 2.12.2 answered, asked again of ours: the same, or docs/differences.md says why not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

HERE = Path(__file__).parent
RECORDINGS = sorted(path.stem for path in (HERE / "recordings").glob("*.jsonl"))
PACHD = f"{sys.executable} -m pachd --data {{data}} --address {{address}}"

# Recording -> step -> the RPCs whose answer differs. docs/differences.md has the reason of each.
DIFFERENT: dict[str, dict[int, set[str]]] = {
    "jobs_walk_1": {
        1: {
            "pfs_v2.API/GlobFile",
            "pfs_v2.API/InspectCommit",
            "pfs_v2.API/ListCommit",
            "pps_v2.API/ListDatum",
            "pps_v2.API/ListJob",
        }
    },
    "pipelines": {
        14: {"pfs_v2.API/ListCommitSet"},
        29: {"pps_v2.API/ListJobSet"},
        31: {"pps_v2.API/InspectPipeline"},
        32: {"pps_v2.API/ListPipeline"},
        41: {"pfs_v2.API/ModifyFile"},
    },
    "put_file": {37: {"pfs_v2.API/InspectRepo"}, 39: {"pfs_v2.API/InspectRepo"}},
    "rpc_filesets": {1: {"pfs_v2.API/ShardFileSet"}},
    "rpc_modify": {1: {"pfs_v2.API/GetFile"}},
    "version": {1: {"admin_v2.API/InspectCluster"}, 2: {"admin_v2.API/InspectCluster"}},
    "walk_2": {1: {"pfs_v2.API/ListCommit"}},
}


def settle(recording: str) -> str:
    """Seconds for which a read that differs is asked again: until a job has ended, unless reads differ for good."""
    if recording == "jobs_walk_1":
        return "0.5"  # much of it does
    return "5" if recording in DIFFERENT else "60"


def play(name: str) -> str:
    """Play one recording against a pachd of its own; what the player says."""
    command = [sys.executable, str(HERE / "replay.py"), "--spawn", PACHD, "--show", "6"]
    command += ["--settle", settle(name), str(HERE / "recordings" / f"{name}.jsonl")]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return ran.stdout + ran.stderr


def differing(text: str) -> dict[int, set[str]]:
    """Step -> the RPCs that the player found to differ."""
    found: dict[int, set[str]] = {}
    step = 0
    for line in text.splitlines():
        if match := re.match(r"  step (\d+):", line):
            step = int(match[1])
            found[step] = set()
        elif match := re.match(r"    /(\S+) ", line):
            found[step].add(match[1])
    return found


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", RECORDINGS)
def test_recording(name: str) -> None:
    text = play(name)
    assert re.search(rf"^{name} +\d+/[1-9]\d* +the same", text, re.MULTILINE), text
    known = DIFFERENT.get(name, {})
    new = {step: rpcs - known.get(step, set()) for step, rpcs in differing(text).items()}
    assert not any(new.values()), text
    assert all(step in known for step in new), text


def test_differences_are_documented() -> None:
    text = (ROOT / "docs" / "differences.md").read_text()
    for recording, steps in DIFFERENT.items():
        for step, rpcs in steps.items():
            row = next((r for r in text.splitlines() if re.match(rf"\| `{recording}` \|[^|]*\b{step}\b", r)), None)
            assert row is not None, f"step {step} of {recording} is not in docs/differences.md"
            assert rpcs


def test_the_player_is_understood() -> None:
    text = "  step 3: pachctl x\n    /a.API/Get [{}]\n      code\n  step 12: y\nname 4/6 the same\n"
    assert differing(text) == {3: {"a.API/Get"}, 12: set()}
