"""The list of storage types, as Label Studio's GET_STORAGE_LIST setting wants it."""

from typing import Any


def get_storage_list() -> list[dict[str, Any]]:
    """Label Studio's own storage types and ours, in a fresh list (callers change it)."""
    from io_storages.functions import get_storage_list as stock

    from .api import PachydermExportStorageListAPI, PachydermImportStorageListAPI

    return [
        *stock(),
        {
            "name": "pachyderm",
            "title": "Pachyderm",
            "import_list_api": PachydermImportStorageListAPI,
            "export_list_api": PachydermExportStorageListAPI,
        },
    ]
