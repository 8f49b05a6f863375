"""Repos, branches, commits and files: Pachyderm's file system, without a wire."""

from pachd.pfs.propagate import writing, writing_together
from pachd.pfs.schema import SCHEMA

__all__ = ["SCHEMA", "writing", "writing_together"]
