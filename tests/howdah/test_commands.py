"""The commands' answers, errors and exit codes, against a real pachd."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from howdah.cli import main
from pachd.client import Client, parse_ref
from pachd.proto import pfs_pb2, pps_pb2
from tests.processes import ROOT, Pachd, free_port


def label(*annotations: tuple[int, str, str, str]) -> str:
    """A label file: (annotation ID, annotator, answer, time) each."""
    made = [
        {
            "id": number,
            "completed_by": {"id": 1, "email": who},
            "result": [{"type": "choices", "value": {"choices": [answer]}}],
            "created_at": time,
            "updated_at": time,
        }
        for number, who, answer, time in annotations
    ]
    return json.dumps({"id": 1, "annotations": made}, sort_keys=True)


def put(client: Client, repo: str, files: dict[str, str | None]) -> str:
    """One commit on master; its ID."""

    def requests() -> Iterator[pfs_pb2.ModifyFileRequest]:
        yield pfs_pb2.ModifyFileRequest(set_commit=parse_ref(f"{repo}@master").commit)
        for path, text in files.items():
            yield pfs_pb2.ModifyFileRequest(delete_file=pfs_pb2.DeleteFile(path=path))
            if text is not None:
                add = pfs_pb2.AddFile(path=path)
                add.raw.value = text.encode()
                yield pfs_pb2.ModifyFileRequest(add_file=add)

    client.pfs.ModifyFile(requests())
    branch = parse_ref(f"{repo}@master").commit.branch
    return str(client.pfs.InspectBranch(pfs_pb2.InspectBranchRequest(branch=branch)).head.id)


def create_repo(client: Client, name: str) -> None:
    client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=parse_ref(f"{name}@master").commit.repo))


@pytest.fixture(scope="module")
def history(pachd_process: Pachd) -> dict[str, Any]:
    """Labels in four commits, and a pipeline `evaluate` that copies them."""
    with Client(pachd_process.address, timeout=60) as client:
        create_repo(client, "images")
        create_repo(client, "labels")
        put(client, "images", {"/a.png": "x", "/b.png": "y"})
        spec = {
            "pipeline": {"name": "evaluate"},
            "input": {"pfs": {"repo": "labels", "glob": "/"}},
            "transform": {
                "cmd": ["sh"],
                "stdin": [
                    "cd /pfs/out; n=$(ls /pfs/labels | wc -l)",
                    'echo "{\\"accuracy\\": 0.$n, \\"held_out\\": $n}" > metrics.json',
                    'echo \'[{"item": "a", "label": "N", "predicted": "N"}]\' | sed s/N/$n/g > predictions.json',
                ],
            },
        }
        client.pps.CreatePipelineV2(pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=json.dumps(spec)))
        ada, grace = "ada@x.org", "grace@x.org"
        one = put(client, "labels", {"/a.png.json": label((1, ada, "3", "2024-01-01"))})
        two = put(client, "labels", {"/b.png.json": label((2, grace, "5", "2024-01-02"))})
        three = put(
            client, "labels", {"/a.png.json": label((1, ada, "3", "2024-01-01"), (3, grace, "8", "2024-01-03"))}
        )
        four = put(client, "labels", {"/b.png.json": None})
        wait = pfs_pb2.InspectCommitRequest(commit=parse_ref(f"evaluate@{four}").commit, wait=pfs_pb2.FINISHED)
        client.pfs.InspectCommit(wait, timeout=60)
    return {"commits": [one, two, three, four], "address": pachd_process.address}


@pytest.fixture
def ask(history: dict[str, Any]) -> Any:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments], env={"PACHD_ADDRESS": history["address"]})

    return run


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


class TestBlame:
    def test_each_annotation_with_the_commit_that_brought_it(self, ask: Any, history: dict[str, Any]) -> None:
        one, _, three, _ = history["commits"]
        found = answer(ask("blame", "labels@master:/a.png.json", "--json"))
        assert [(a["annotator"], a["answer"], a["commit"]) for a in found["annotations"]] == [
            ("ada@x.org", ["3"], one),
            ("grace@x.org", ["8"], three),
        ]
        assert [(v["commit"], v["change"]) for v in found["history"]] == [(three, "changed"), (one, "added")]
        assert [a["annotator"] for a in found["history"][0]["annotations"]] == ["grace@x.org"]
        assert found["annotations"][0]["time"] == "2024-01-01" and found["path"] == "/a.png.json"

    @pytest.mark.parametrize("ref", ["images@master:/a.png", "labels:a.png", "default/labels@master:/a.png"])
    def test_the_image_leads_to_its_label(self, ask: Any, ref: str) -> None:
        assert answer(ask("blame", ref, "--json"))["path"] == "/a.png.json"

    def test_an_older_commit_is_asked_as_it_was(self, ask: Any, history: dict[str, Any]) -> None:
        two = history["commits"][1]
        found = answer(ask("blame", f"labels@{two}:/a.png", "--json"))
        assert [a["annotator"] for a in found["annotations"]] == ["ada@x.org"]

    def test_a_deleted_label_has_its_history(self, ask: Any, history: dict[str, Any]) -> None:
        _, two, _, four = history["commits"]
        found = answer(ask("blame", "labels@master:/b.png.json", "--json"))
        assert found["deleted"] and found["annotations"] == []
        assert [(v["commit"], v["change"]) for v in found["history"]] == [(four, "deleted"), (two, "added")]

    def test_shown_to_a_person(self, ask: Any) -> None:
        shown = ask("blame", "labels@master:/a.png")
        assert shown.exit_code == 0 and "ada@x.org" in shown.output and "2024-01-03" in shown.output


class TestLineage:
    def test_downstream(self, ask: Any, history: dict[str, Any]) -> None:
        found = answer(ask("lineage", f"labels@{history['commits'][0]}", "--json"))
        below = found["downstream"][0]
        assert below["repo"] == "evaluate" and below["commit"] == history["commits"][0]
        assert below["job"]["state"] == "success" and found["upstream"] == []

    def test_upstream_with_and_without_system_repos(self, ask: Any, history: dict[str, Any]) -> None:
        found = answer(ask("lineage", "evaluate@master", "--json"))
        assert [n["repo"] for n in found["upstream"]] == ["labels"]
        assert found["upstream"][0]["commit"] == history["commits"][3]
        found = answer(ask("lineage", "evaluate@master", "--all", "--json"))
        assert {n["repo"] for n in found["upstream"]} == {"labels", "evaluate.spec"}

    def test_shown_as_a_tree(self, ask: Any) -> None:
        shown = ask("lineage", "evaluate@master").output
        assert "made of" in shown and "labels@" in shown and "used for: nothing" in shown


class TestMetrics:
    def test_newest_first_and_compared_on_common_items(self, ask: Any, history: dict[str, Any]) -> None:
        rows = answer(ask("metrics", "evaluate@master", "--json"))
        assert [row["commit"] for row in rows][:4] == history["commits"][::-1]
        assert [row["accuracy"] for row in rows][:4] == [0.1, 0.2, 0.2, 0.1]
        assert rows[0]["before"] == 0 and rows[0]["change"] == 1 and rows[0]["common_items"] == 1
        assert [(c["repo"], c["commit"]) for c in rows[0]["causes"]] == [("labels", history["commits"][3])]

    def test_shown(self, ask: Any) -> None:
        shown = ask("metrics", "evaluate@master")
        assert shown.exit_code == 0 and "10.00 %" in shown.output


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["blame", "nowhere@master:/a"], 1, "nowhere"),
            (["blame", "labels@nobranch:/a"], 1, "nobranch"),
            (["blame", "labels@master:/never.png"], 1, "nobody has labelled /never.png"),
            (["blame", "labels@master"], 2, "name a path"),
            (["lineage", "nowhere@master"], 1, "nowhere"),
            (["lineage", "labels@" + "0" * 12 + "4" + "0" * 19], 1, "not found"),
            (["lineage", "labels@master:/a"], 2, "no path is wanted"),
            (["lineage", ""], 2, "not a reference"),
            (["metrics", "labels@master"], 1, "no /metrics.json"),
            (["rollback", "labels@master"], 2, "--to"),
            (["rollback", "labels@master", "--to", "nobranch"], 1, "nobranch"),
            (["rollback", "evaluate@master", "--to", "master^"], 1, "Roll back an input instead: labels@master"),
            (["blame", "labels@master:/never.png", "--labels", "no"], 1, "nobody has labelled /never.png"),
            (
                ["blame", "images@master:/a.png", "--labels", "no"],
                1,
                "no branch no@master, --labels names another repo",
            ),
            (["lineage", "labels@" + "0" * 32], 1, "commit default/labels@" + "0" * 32 + " not found"),
            (["lineage", "labels=abc"], 1, "commit default/labels@abc not found"),
            (["lineage", "noproject/labels@master"], 1, 'Error: project "noproject" not found'),
            (["lineage", "images@master^7"], 1, "has 0 commits before it, not 7"),
            (["rollback", "labels@master", "--to", ""], 2, "--to is empty"),
            (["status", "--pachd-address", "a b"], 2, "HOST:PORT"),
            (["status", "--pachd-address", "127.0.0.1:99999"], 2, "ports go from 1 to 65535"),
            (["status", "--token", "a\nb"], 2, "the token has characters that cannot be sent"),
            (["status", "--token", "ü"], 2, "the token has characters that cannot be sent"),
            (
                ["up", "--pachd-port", "40001", "--mount-port", "40001"],
                1,
                "pachd and mount-server cannot have the same",
            ),
            (["demo", "--report", "/dev/null/x"], 1, "the report /dev/null/x cannot be written"),
            (["up", "--data", "/dev/null/x"], 1, "data folder"),
        ],
    )
    def test_one_sentence_and_an_exit_code(
        self, ask: Any, arguments: list[str], code: int, words: str, tmp_path: Path
    ) -> None:
        if arguments[0] == "up" and "--data" not in arguments:
            arguments = [*arguments, "--data", str(tmp_path)]
        result = ask(*arguments)
        assert result.exit_code == code and words in result.output and "Traceback" not in result.output

    def test_no_pachd(self) -> None:
        result = CliRunner().invoke(main, ["status", "--pachd-address", f"127.0.0.1:{free_port()}"])
        assert result.exit_code == 1 and "howdah up" in result.output

    def test_every_command_has_help_with_examples(self) -> None:
        for name, command in main.commands.items():
            shown = CliRunner().invoke(main, [name, "--help"]).output
            assert f"howdah {name}" in shown.split("Examples:")[1], name
            assert isinstance(command, click.Command) and "--json" in shown

    def test_as_a_process(self, history: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "howdah", "status", "--pachd-address", history["address"]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert done.returncode == 0 and "labels" in done.stdout and "evaluate" in done.stdout


class TestRollback:
    def test_back_and_forward(self, ask: Any, history: dict[str, Any]) -> None:
        one, _, _, four = history["commits"]
        moved = answer(ask("rollback", "labels@master", "--to", one, "--json"))
        assert moved["moved"] and moved["from"]["commit"] == four and moved["to"]["commit"] == one
        assert [s["branch"] for s in moved["started"]] == ["evaluate@master"]
        with Client(history["address"], timeout=60) as client:
            output = parse_ref(f"evaluate@{moved['started'][0]['commit']}").commit
            client.pfs.InspectCommit(pfs_pb2.InspectCommitRequest(commit=output, wait=pfs_pb2.FINISHED))
            repo = parse_ref("labels@master").commit.repo
            kept = {info.commit.id for info in client.pfs.ListCommit(pfs_pb2.ListCommitRequest(repo=repo, all=True))}
        assert set(history["commits"]) <= kept
        rows = answer(ask("metrics", "evaluate@master", "--json"))
        assert rows[0]["accuracy"] == 0.1 and rows[0]["causes"][0]["commit"] == one
        assert not answer(ask("rollback", "labels@master", "--to", one, "--json"))["moved"]
        forward = answer(ask("rollback", "labels@master", "--to", four, "--json"))
        assert forward["to"]["commit"] == four

    def test_a_commit_of_another_repo_is_refused(self, ask: Any) -> None:
        result = ask("rollback", "labels@master", "--to", "images@master")
        assert result.exit_code == 1 and "not a commit of labels" in result.output


def test_specs_are_what_pachyderm_accepts() -> None:
    from google.protobuf.json_format import Parse

    for path in sorted((ROOT / "specs").glob("*.json")):
        spec = Parse(path.read_text(), pps_pb2.CreatePipelineRequest())
        assert spec.pipeline.name == path.stem and spec.transform.image == "howdah"
        assert spec.transform.cmd[:3] == ["python3", "-m", f"pipelines.{path.stem}"]
        assert (Path(ROOT) / "pipelines" / f"{path.stem}.py").exists()
