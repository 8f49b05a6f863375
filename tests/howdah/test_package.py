"""What is installed from a wheel: the specs are in it, beside the code that reads them."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.processes import ROOT


def test_the_wheel_has_the_specs(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    for name in ("pyproject.toml", "README.md", "LICENSE", "howdah", "specs"):  # building writes into the folder
        subprocess.run(["cp", "-a", str(ROOT / name), str(tmp_path)], check=True)
    build = f"import setuptools.build_meta as b; print(b.build_wheel({str(tmp_path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", build], capture_output=True, text=True, timeout=120, cwd=tmp_path, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        for spec in (ROOT / "specs").glob("*.json"):
            assert wheel.read(f"howdah/specs/{spec.name}") == spec.read_bytes()
