"""What pipelines add to the pfs of one store.

A store whose folder has their tables gets it when it is opened; pfs asks for it through the transaction's store.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pachd.store import Snapshot, Store, Txn
from pachd.types import Repo

_KEY = "pfs hooks"


@dataclass
class Hooks:
    """All empty where there are no pipelines."""

    new_commits: Callable[[Txn, Sequence[Any]], None] | None = None
    """Called in the transaction with the rows of the AUTO commits that propagation has just made, upstream first."""
    executors: dict[str, Callable[[Txn, Any], Any]] = field(default_factory=dict)
    """What carries out further requests of transactions, by their field of TransactionRequest."""
    pipeline: Callable[[Txn, Any], Any] | None = None
    """Gives the `pachd.pfs.metadata.Target` of a PipelinePicker."""
    has_jobs: Callable[[Snapshot, Repo], bool] | None = None
    """Whether a repo (of any type) belongs to a pipeline that runs jobs: no spout and no service."""
    has_pipeline: Callable[[Snapshot, Repo], bool] | None = None
    """Whether a repo (of any type) belongs to a pipeline."""


def connect(store: Store, hooks: Hooks) -> None:
    """Have the pfs of this store use these hooks from now on."""
    store.shared[_KEY] = hooks


def of(txn: Snapshot) -> Hooks:
    """The hooks of the transaction's store."""
    found: Hooks = txn.store.shared.get(_KEY) or Hooks()
    return found
