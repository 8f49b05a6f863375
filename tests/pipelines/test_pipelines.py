"""The pipelines run as commands on folders laid out as a worker lays them out."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpclib.server
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pachd.proto import pfs_pb2, worker_grpc, worker_pb2
from pipelines import model as models
from pipelines import worker
from pipelines.answers import resolve
from pipelines.layout import held_out
from tests.processes import free_port

ROOT = Path(__file__).resolve().parents[2]


def annotation(who: str, answer: str | None, when: str = "2024-01-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    result = [] if answer is None else [{"type": "choices", "value": {"choices": [answer]}}]
    return {"completed_by": {"id": 1, "email": who}, "result": result, "updated_at": when, **more}


def run(name: str, pfs: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"pipelines.{name}", *arguments],
        env={**os.environ, "PFS_ROOT": str(pfs), "IMAGE_SIDE": "8", **env},
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def write_item(pfs: Path, item: str, pixels: np.ndarray, *annotations: dict[str, Any]) -> None:
    image, label = pfs / "images" / item, pfs / "labels" / f"{item}.json"
    image.parent.mkdir(parents=True, exist_ok=True)
    label.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(image)
    label.write_text(json.dumps({"annotations": list(annotations)}))


GRAY = np.full((8, 8), 100, np.uint8)


class TestMajority:
    def test_majority_and_counts(self) -> None:
        task = {"annotations": [annotation("a", "3"), annotation("b", "3"), annotation("c", "5")]}
        assert resolve(task).label == "3" and resolve(task).votes == {"3": 2, "5": 1}

    def test_tie_is_a_conflict_that_names_both(self) -> None:
        found = resolve({"annotations": [annotation("a", "3"), annotation("b", "5")]})
        assert found.label is None and "3, 5" in str(found.reason)

    def test_an_annotator_has_one_vote_the_newest(self) -> None:
        old, new = annotation("a", "3", "2024-01-01"), annotation("a", "5", "2024-01-02")
        assert resolve({"annotations": [new, old]}).votes == {"5": 1}

    def test_cancelled_and_empty_answers_do_not_count(self) -> None:
        task = {"annotations": [annotation("a", "3", was_cancelled=True), annotation("b", None)]}
        assert resolve(task).label is None

    @pytest.mark.parametrize("task", [None, [], {}, {"annotations": 3}, {"annotations": [7, {"result": "x"}]}])
    def test_strange_files_are_conflicts(self, task: Any) -> None:
        assert resolve(task).label is None


class TestPreprocess:
    def test_flat_and_nested_names(self, tmp_path: Path) -> None:
        write_item(tmp_path, "a.png", GRAY, annotation("a", "1"))
        write_item(tmp_path, "cats/001.png", np.zeros((20, 10, 3), np.uint8), annotation("a", "2"))
        done = run("preprocess", tmp_path)
        assert done.returncode == 0, done.stderr
        example = json.loads((tmp_path / "out/examples/cats/001.png.json").read_text())
        assert example["label"] == "2" and example["original_size"] == [10, 20]
        with Image.open(tmp_path / "out/images/cats/001.png.png") as image:
            assert image.size == (8, 8) and image.mode == "L"
        assert json.loads((tmp_path / "out/examples/a.png.json").read_text())["annotators"] == ["a"]

    @pytest.mark.parametrize("cut", [0, 8, 40, 60])
    def test_a_broken_image_is_a_conflict_not_a_crash(self, tmp_path: Path, cut: int) -> None:
        write_item(tmp_path, "b.png", np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8), annotation("a", "1"))
        path = tmp_path / "images/b.png"
        path.write_bytes(path.read_bytes()[:cut])
        write_item(tmp_path, "good.png", GRAY, annotation("a", "1"))
        done = run("preprocess", tmp_path)
        assert done.returncode == 0, done.stderr
        conflict = json.loads((tmp_path / "out/conflicts/b.png.json").read_text())
        assert conflict["kind"] == "image" and "does not decode" in conflict["reason"]
        assert str(tmp_path) not in conflict["reason"]
        assert [p.name for p in (tmp_path / "out/examples").iterdir()] == ["good.png.json"]

    def test_ties_and_files_that_are_no_json(self, tmp_path: Path) -> None:
        write_item(tmp_path, "t.png", GRAY, annotation("a", "1"), annotation("b", "2"))
        write_item(tmp_path, "j.png", GRAY)
        (tmp_path / "labels/j.png.json").write_text("{")
        assert run("preprocess", tmp_path).returncode == 0
        assert sorted(p.name for p in (tmp_path / "out/conflicts").iterdir()) == ["j.png.json", "t.png.json"]

    def test_an_image_without_label_is_left_alone(self, tmp_path: Path) -> None:
        write_item(tmp_path, "a.png", GRAY, annotation("a", "1"))
        (tmp_path / "labels/a.png.json").unlink()
        assert run("preprocess", tmp_path).returncode == 0
        assert not (tmp_path / "out").exists()


class WorkerServer(worker_grpc.WorkerBase):
    """The worker's side of datum batching, over a list of folders that are put in place one after the other."""

    def __init__(self, pfs: Path, datums: list[list[tuple[str, np.ndarray, str]]]) -> None:
        self.pfs, self.datums, self.errors = pfs, datums, list[str]()

    async def NextDatum(self, stream: Any) -> None:
        self.errors.append((await stream.recv_message()).error)
        if not self.datums:
            raise grpclib.GRPCError(grpclib.const.Status.OUT_OF_RANGE, "that was all")
        for name in ("images", "labels"):
            for path in sorted((self.pfs / name).rglob("*"), reverse=True):
                path.unlink()
        for item, pixels, answer in self.datums.pop(0):
            write_item(self.pfs, item, pixels, annotation("a", answer))
        await stream.send_message(worker_pb2.NextDatumResponse(env=["PACH_DATUM_ID=x=y", "IMAGE_SIDE=8"]))

    async def Status(self, stream: Any) -> None: ...

    async def Cancel(self, stream: Any) -> None: ...


@pytest.fixture
def serve() -> Iterator[Any]:
    """Serve grpclib handlers on a thread of their own; gives the port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    servers: list[grpclib.server.Server] = []

    def start(handler: Any) -> int:
        async def begin() -> int:
            server, port = grpclib.server.Server([handler]), free_port()
            await server.start("127.0.0.1", port)
            servers.append(server)
            return port

        return asyncio.run_coroutine_threadsafe(begin(), loop).result(120)

    yield start
    for server in servers:
        loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(120)


class TestBatching:
    def test_one_process_takes_all_datums_and_ends(self, tmp_path: Path, serve: Any) -> None:
        service = WorkerServer(tmp_path, [[(f"{n}.png", GRAY, "1")] for n in range(5)])
        done = run("preprocess", tmp_path, "--batch", PPS_WORKER_GRPC_PORT=str(serve(service)))
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "out/examples").iterdir())) == 5 and service.errors == [""] * 6

    def test_a_failing_datum_is_reported_and_the_next_one_runs(self, tmp_path: Path, serve: Any) -> None:
        service = WorkerServer(tmp_path, [[("a.png", GRAY, "1")], [("b.png", GRAY, "1")]])
        (tmp_path / "out/images").mkdir(parents=True)
        (tmp_path / "out/images/a.png.png").mkdir()  # the output of a.png cannot be written
        done = run("preprocess", tmp_path, "--batch", PPS_WORKER_GRPC_PORT=str(serve(service)))
        assert done.returncode == 0 and "IsADirectoryError" in service.errors[1] and service.errors[2] == ""
        assert (tmp_path / "out/examples/b.png.json").exists()

    def test_without_a_worker_it_says_so(self, tmp_path: Path) -> None:
        env = {"PPS_WORKER_GRPC_PORT": ""}
        done = run("preprocess", tmp_path, "--batch", **env)
        assert done.returncode == 1 and "datumBatching" in done.stderr

    def test_the_hand_made_request_is_what_pachyderm_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        file = worker._message(3, worker._text(1, "r") + worker._text(2, "user")) + worker._text(2, "c" * 300)
        commit = pfs_pb2.Commit.FromString(file)
        assert commit.repo.name == "r" and commit.repo.type == "user" and commit.id == "c" * 300
        reply = worker_pb2.NextDatumResponse(env=["a=1", "b=" + "x" * 500]).SerializeToString()
        assert [value.decode() for _, value in worker._fields(reply)] == ["a=1", "b=" + "x" * 500]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """preprocess and train over 800 digits, eight of them labelled wrong."""
    pfs = tmp_path_factory.mktemp("pfs")
    digits = load_digits()
    for n in range(800):
        answer = int(digits.target[n]) if n % 100 else (int(digits.target[n]) + 1) % 10
        write_item(pfs, f"{n:04d}.png", (digits.images[n] * 15.9375).astype(np.uint8), annotation("a", str(answer)))
    done = run("preprocess", pfs)
    assert done.returncode == 0, done.stderr
    (pfs / "out").rename(pfs / "preprocess")
    done = run("train", pfs, preprocess_COMMIT="c" * 32, PACH_JOB_ID="j" * 32)
    assert done.returncode == 0, done.stderr
    (pfs / "out").rename(pfs / "train")
    return pfs


class TestTrainAndEvaluate:
    def test_card_says_what_the_model_was_made_of(self, trained: Path) -> None:
        card = json.loads((trained / "train/card.json").read_text())
        out = sum(held_out(f"{n:04d}.png") for n in range(800))
        assert card["data"] == {"preprocess": "c" * 32} and card["job"] == "j" * 32
        assert card["counts"]["held_out"] == out and card["counts"]["trained"] == 800 - out
        assert 100 < out < 220 and card["hyper_parameters"]["seed"] == 7 and len(card["code"]["pipelines_sha256"]) == 64

    def test_same_input_same_model(self, trained: Path) -> None:
        done = run("train", trained, preprocess_COMMIT="c" * 32, PACH_JOB_ID="j" * 32)
        assert done.returncode == 0, done.stderr
        for name in ("model.pt", "card.json"):
            assert (trained / "out" / name).read_bytes() == (trained / "train" / name).read_bytes()

    def test_held_out_labels_have_no_influence_on_the_model(self, trained: Path, tmp_path: Path) -> None:
        (tmp_path / "preprocess").symlink_to(tmp_path / "copy")
        subprocess.run(["cp", "-r", str(trained / "preprocess"), str(tmp_path / "copy")], check=True)
        for path in (tmp_path / "copy/examples").iterdir():
            example = json.loads(path.read_text())
            if example["held_out"]:
                example["label"] = "0"
                path.write_text(json.dumps(example))
        assert run("train", tmp_path).returncode == 0
        assert (tmp_path / "out/model.pt").read_bytes() == (trained / "train/model.pt").read_bytes()

    def test_evaluation(self, trained: Path) -> None:
        done = run("evaluate", trained)
        assert done.returncode == 0, done.stderr
        out = trained / "out"
        metrics = json.loads((out / "metrics.json").read_text())
        predictions = json.loads((out / "predictions.json").read_text())
        right = sum(p["label"] == p["predicted"] for p in predictions)
        assert metrics["accuracy"] == pytest.approx(right / len(predictions)) and metrics["accuracy"] > 0.93
        assert all(held_out(p["item"]) for p in predictions)
        assert set(metrics["classes"]["3"]) == {"precision", "recall", "f1", "support"}
        matrix = np.array(json.loads((out / "confusion.json").read_text())["matrix"])
        assert matrix.sum() == len(predictions) and np.trace(matrix) == right
        with Image.open(out / "confusion.png") as image:
            image.load()
        assert metrics["previous"]["accuracy"] is None and metrics["previous"]["reason"]

    def test_the_previous_model_answers_the_same_items(self, trained: Path, serve: Any) -> None:
        asked = []

        class Pfs:
            async def get(self, stream: Any) -> None:
                request = await stream.recv_message()
                asked.append(request.file.commit.id)
                data = (trained / "train" / request.file.path.lstrip("/")).read_bytes()
                for at in range(0, len(data), 1000):
                    await stream.send_message(BytesValue(value=data[at : at + 1000]))

            def __mapping__(self) -> Any:
                cardinality = grpclib.const.Cardinality.UNARY_STREAM
                handler = grpclib.const.Handler(self.get, cardinality, pfs_pb2.GetFileRequest, BytesValue)
                return {"/pfs_v2.API/GetFile": handler}

        from google.protobuf.wrappers_pb2 import BytesValue

        peer = {"PACHD_PEER_SERVICE_HOST": "127.0.0.1", "PACHD_PEER_SERVICE_PORT": str(serve(Pfs()))}
        done = run("evaluate", trained, train_COMMIT="d" * 32, **peer)
        assert done.returncode == 0, done.stderr
        metrics = json.loads((trained / "out/metrics.json").read_text())
        assert metrics["previous"]["accuracy"] == metrics["accuracy"] and metrics["change"] == 0
        assert metrics["previous"]["items"] == metrics["held_out"] and set(asked) == {"d" * 32 + "^"}

    def test_too_little_to_train_on_is_said(self, tmp_path: Path) -> None:
        write_item(tmp_path, "a.png", GRAY, annotation("a", "1"))
        run("preprocess", tmp_path)
        (tmp_path / "out").rename(tmp_path / "preprocess")
        done = run("train", tmp_path)
        assert done.returncode == 1 and "at least two classes" in done.stderr and not (tmp_path / "out").exists()

    def test_a_model_file_runs_no_code(self, trained: Path, tmp_path: Path) -> None:
        import pickle

        class Evil:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(tmp_path / "owned"),)

        card = json.loads((trained / "train/card.json").read_text())
        with pytest.raises(pickle.UnpicklingError):
            models.restore(pickle.dumps(Evil()), card)
        assert not (tmp_path / "owned").exists()
