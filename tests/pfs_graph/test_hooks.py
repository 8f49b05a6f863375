"""A store with pipelines and one without, side by side in one process: each has hooks of its own."""

from pathlib import Path

import pytest

from pachd import upkeep
from pachd.errors import PachError
from pachd.pfs import branches, commits, metadata, projects, repos, transactions, writing
from pachd.pps import jobs, pipelines
from pachd.proto import metadata_pb2, pps_pb2, transaction_pb2
from pachd.store import Store, Txn
from pachd.types import Branch, Repo

IN = Repo("default", "in", "user")
OUT = Repo("default", "out", "user")
PIPELINE = pps_pb2.Pipeline(name="out")
PIPELINE.project.name = "default"


def commit(txn: Txn) -> None:
    commits.finish_commit(txn, commits.start_commit(txn, Branch(IN, "master")))


def label() -> metadata_pb2.Edit:
    edit = metadata_pb2.Edit(replace=metadata_pb2.Edit.Replace(replacement={"a": "b"}))
    edit.pipeline.name.name = "out"
    edit.pipeline.name.project.name = "default"
    return edit


def test_pipelines_of_one_store_are_nothing_to_another(store: Store, tmp_path: Path) -> None:
    with upkeep.open_folder(tmp_path / "with pipelines") as other:
        with writing(other) as txn:
            projects.ensure_default(txn)
            repos.create_repo(txn, IN)
            spec = pps_pb2.CreatePipelineRequest(pipeline=PIPELINE, transform=pps_pb2.Transform(cmd=["true"]))
            spec.input.pfs.repo, spec.input.pfs.glob = "in", "/*"
            pipelines.create(txn, pps_pb2.CreatePipelineTransaction(create_pipeline_request=spec))
        with writing(store) as txn:
            repos.create_repo(txn, IN)
            repos.create_repo(txn, OUT)
            branches.create_branch(txn, Branch(OUT, "master"), provenance=[Branch(IN, "master")])
        for each in (other, store):
            with writing(each) as txn:
                commit(txn)
        with other.read() as snapshot:
            assert len(jobs.of_pipeline(snapshot, PIPELINE, after=0)) == 2  # of the creation and of the commit
        with writing(other) as txn:
            metadata.edit(txn, [label()])
            newest = jobs.of_pipeline(txn, PIPELINE, after=0)[-1]
            stop = pps_pb2.StopJobRequest(job=jobs.message(newest))
            transactions.batch(txn, [transaction_pb2.TransactionRequest(stop_job=stop)])
            assert jobs.find_pk(txn, newest["pk"])["state"] == jobs.KILLED

        with writing(store) as txn, pytest.raises(PachError, match="metadata of a pipeline"):
            metadata.edit(txn, [label()])
        with pytest.raises(PachError, match="error running request 1 of 1"), writing(store) as txn:
            transactions.batch(txn, [transaction_pb2.TransactionRequest(stop_job=stop)])
