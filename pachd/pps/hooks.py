"""Where pipelines take part in what happens to commits, in transactions and in metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pachd.errors import PachError
from pachd.pfs import hooks
from pachd.pps import jobs, labels, pipelines
from pachd.proto import pps_pb2, transaction_pb2
from pachd.store import Store, Txn


def _create_pipeline(txn: Txn, request: pps_pb2.CreatePipelineTransaction) -> transaction_pb2.TransactionResponse:
    pipelines.create(txn, request)
    return transaction_pb2.TransactionResponse()


def _stop_job(txn: Txn, request: pps_pb2.StopJobRequest) -> transaction_pb2.TransactionResponse:
    if not request.HasField("job"):
        raise PachError("Job must be specified")
    jobs.stop(txn, request.job, request.reason)
    return transaction_pb2.TransactionResponse()


def _update_job_state(txn: Txn, request: pps_pb2.UpdateJobStateRequest) -> transaction_pb2.TransactionResponse:
    jobs.update_state(txn, request)
    return transaction_pb2.TransactionResponse()


EXECUTORS: dict[str, Callable[[Txn, Any], transaction_pb2.TransactionResponse]] = {
    "create_pipeline_v2": _create_pipeline,
    "stop_job": _stop_job,
    "update_job_state": _update_job_state,
}


def connect(store: Store) -> None:
    """Have a store that has the tables of pipelines take them into account."""
    told = pipelines.has_jobs, pipelines.has_pipeline
    hooks.connect(store, hooks.Hooks(jobs.on_new_commits, EXECUTORS, labels.target, *told))
