"""Pipelines: specs, datums, jobs, scheduling, workers, logs."""

from pachd.pps.schema import SCHEMA as _TABLES

SCHEMA = (_TABLES,)
__all__ = ["SCHEMA"]
