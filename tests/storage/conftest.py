"""The store of the file tests: tables of files, bare commits."""

from tests.pfs_files.conftest import repo, store

__all__ = ["repo", "store"]
