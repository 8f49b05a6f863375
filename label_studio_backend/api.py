"""The storage API under Label Studio's permissions: list, create, read, change, delete, validate, preview, Sync."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from django.http import FileResponse, HttpRequest
from django.shortcuts import get_object_or_404
from io_storages import api as base
from rest_framework.exceptions import NotFound, PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from .models import PachydermExportStorage, PachydermImportStorage
from .serializers import PachydermExportStorageSerializer, PachydermImportStorageSerializer


def checked_candidate(request: Request, serializer_class: Any) -> Any:
    """The storage that a form describes, checked but not saved.

    Label Studio's own helper saves an existing storage here, before the user has pressed Save.
    Raises: ValidationError, PermissionDenied, Http404.
    """
    model, stored = serializer_class.Meta.model, None
    if request.data.get("id"):
        stored = get_object_or_404(model, pk=request.data["id"])
        if not stored.has_permission(request.user):
            raise PermissionDenied
    serializer = serializer_class(stored, data=request.data, partial=stored is not None)
    serializer.is_valid(raise_exception=True)
    values = serializer.validated_data
    project = values.get("project")
    if project is not None and not project.has_permission(request.user):
        raise PermissionDenied("You do not have permission to use storages of this project.")
    candidate = stored or model()
    for name, value in values.items():
        setattr(candidate, name, value)
    return candidate


class _Validate:
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        checked_candidate(request, self.serializer_class)  # type: ignore[attr-defined]
        return Response()


class _Sync:
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        # No check before the Sync, as Label Studio does: its failure would leave the card on "completed".
        storage = self.get_object()  # type: ignore[attr-defined]
        if not storage.synchronizable:
            raise ValidationError({"message": f"Storage {storage.pk} is not synchronizable."})
        try:
            storage.sync()
            storage.refresh_from_db()
        except (type(storage).DoesNotExist, DatabaseError):  # the latter: a row to be updated is not there
            if type(storage).objects.filter(pk=storage.pk).exists():
                raise
            raise NotFound(f"Storage {storage.pk} was deleted during its Sync.") from None
        return Response(self.serializer_class(storage).data)  # type: ignore[attr-defined]


class PachydermImportStorageListAPI(base.ImportStorageListAPI):
    queryset = PachydermImportStorage.objects.all()
    serializer_class = PachydermImportStorageSerializer


class PachydermImportStorageDetailAPI(base.ImportStorageDetailAPI):
    queryset = PachydermImportStorage.objects.all()
    serializer_class = PachydermImportStorageSerializer


class PachydermImportStorageSyncAPI(_Sync, base.ImportStorageSyncAPI):
    serializer_class = PachydermImportStorageSerializer


class PachydermImportStorageValidateAPI(_Validate, base.ImportStorageValidateAPI):
    serializer_class = PachydermImportStorageSerializer


class PachydermImportStorageFormLayoutAPI(base.ImportStorageFormLayoutAPI):
    """Reads form_layout.yml beside this file."""


class PachydermListFilesAPI(base.ImportStorageListFilesAPI):
    """The dialog's preview."""

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """The first files that the form's source would import: {"files": [{"key", "last_modified", "size"}]}."""
        candidate = checked_candidate(request, self.serializer_class)
        try:
            limit = int(request.data.get("limit") or settings.DEFAULT_STORAGE_LIST_LIMIT)
        except (TypeError, ValueError) as error:
            raise ValidationError({"limit": ["A number is expected."]}) from error
        files: list[dict[str, Any]] = []
        end = time.monotonic() + 30
        for one in candidate.iter_objects():
            if len(files) >= limit or time.monotonic() > end:
                files.append({"key": None, "last_modified": None, "size": None})
                break
            files.append(candidate.get_unified_metadata(one))
        return Response({"files": files})


class PachydermExportStorageListAPI(base.ExportStorageListAPI):
    queryset = PachydermExportStorage.objects.all()
    serializer_class = PachydermExportStorageSerializer


class PachydermExportStorageDetailAPI(base.ExportStorageDetailAPI):
    queryset = PachydermExportStorage.objects.all()
    serializer_class = PachydermExportStorageSerializer


class PachydermExportStorageSyncAPI(_Sync, base.ExportStorageSyncAPI):
    serializer_class = PachydermExportStorageSerializer


class PachydermExportStorageValidateAPI(_Validate, base.ExportStorageValidateAPI):
    serializer_class = PachydermExportStorageSerializer


class PachydermExportStorageFormLayoutAPI(base.ExportStorageFormLayoutAPI):
    """Reads form_layout.yml beside this file."""


def dialog_script(request: HttpRequest, name: str) -> FileResponse:
    """The scripts for the storage dialog (`provider`) and the storage cards (`cards`); the route names no others."""
    path = Path(__file__).parent / "static_js" / f"{name}.js"
    response = FileResponse(path.open("rb"), content_type="application/javascript")
    response["Cache-Control"] = "no-cache"
    return response
