"""What a real Pachyderm 2.12.2 answered, asked again of ours: the same, or docs/differences.md says why not."""

import argparse
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.processes import ROOT, Pachd, running

HERE = Path(__file__).parent
RECORDINGS = sorted((HERE / "recordings").glob("*.jsonl"))

# Recording -> the steps in which an answer differs. docs/differences.md has the reason of each.
DIFFERENT: dict[str, set[int]] = {
    "put_file": {37, 39},
    "version": {1, 2},
}


def _player() -> ModuleType:
    spec = importlib.util.spec_from_file_location("replay", HERE / "replay.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def player() -> Any:
    """The player, with every message type of ours in the descriptor pool."""
    import pkgutil

    import pachd.proto

    for module in pkgutil.walk_packages(pachd.proto.__path__, "pachd.proto."):
        if module.name.endswith("_pb2"):
            importlib.import_module(module.name)
    return _player()


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda p: p.stem)
def test_recording(recording: Path, player: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from google.protobuf import descriptor_pool

    args = argparse.Namespace(settle=5.0, strict=False, quiet=False, show=6)
    with running(Pachd(tmp_path / "data")) as pachd:
        server = player.Server(pachd.address, descriptor_pool.Default())
        try:
            total, _, _ = player.replay(recording, server, args)
        finally:
            server.channel.close()
        pachd.stop()
    assert total > 0
    text = capsys.readouterr().out
    different = {int(step) for step in re.findall(r"^  step (\d+):", text, re.MULTILINE)}
    assert different <= DIFFERENT.get(recording.stem, set()), text


def test_differences_are_documented() -> None:
    text = (ROOT / "docs" / "differences.md").read_text()
    for recording, steps in DIFFERENT.items():
        for step in steps:
            assert re.search(rf"\| `{recording}` \|[^|]*\b{step}\b", text), (
                f"step {step} of {recording} is not in docs/differences.md"
            )
