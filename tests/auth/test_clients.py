"""Pachyderm's own Python clients, unchanged: activate, give roles, be refused, revoke, deactivate."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.processes import ROOT, Pachd, running


@pytest.mark.parametrize("client", ["python-pachyderm", "pachyderm-sdk"])
def test_client(client: str, tmp_path: Path) -> None:
    python = ROOT / f".venv-{client}" / "bin" / "python"
    if not python.exists():
        pytest.fail(f".venv-{client} is missing: run `make .venv-{client}/.stamp`")
    with running(Pachd(tmp_path / "data")) as server:
        command = [str(python), str(Path(__file__).with_name("client_steps.py")), client, str(server.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    before = {"python-pachyderm": ["UNIMPLEMENTED", "the auth service is not activated"]}
    assert seen.pop("before") == before.get(client, "AuthServiceNotActivated")  # the SDK knows the sentence
    assert seen.pop("refused") == [
        "PERMISSION_DENIED",
        "robot:alice is not authorized to perform this operation - needs permissions [REPO_LIST_FILE] on REPO "
        "default/guarded. Run `pachctl auth roles-for-permission` to find roles that grant a given permission.",
    ]
    assert seen.pop("revoked") == [
        "UNAUTHENTICATED",
        "provided auth token is corrupted or has expired (try logging in again)",
    ]
    assert seen == {
        "root": "pach:root",
        "robot": "robot:alice",
        "binding": {"pach:root": ["repoOwner"], "robot:alice": ["repoWriter"]},
        "read": "hello",
        "may": True,
        "roles": ["clusterAdmin", "projectOwner", "repoOwner", "repoWriter"],
        "after": ["free", "guarded"],
    }
