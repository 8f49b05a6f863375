"""The storages as JSON, and the check of what a form sends."""

from __future__ import annotations

from typing import Any

from io_storages.serializers import ExportStorageSerializer, ImportStorageSerializer
from rest_framework import serializers

from .models import PachydermExportStorage, PachydermImportStorage


class Checked:
    """Mixin: the connection is checked before saving, and saving writes only what the form sent."""

    def to_internal_value(self, data: Any) -> Any:
        """Also accept pach_project, pach_repo, pach_branch, pach_commit: fields of Pachyderm's Label Studio fork."""
        if data.get("pach_repo") and not data.get("repository"):
            data = data.copy()
            where = f"{data.get('pach_project') or 'default'}/{data['pach_repo']}"
            commit = data.get("pach_commit")
            data["repository"] = f"{where}={commit}" if commit else f"{where}@{data.get('pach_branch') or 'master'}"
        return super().to_internal_value(data)  # type: ignore[misc]

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        """Raises: ValidationError on the field that is wrong."""
        data = super().validate(data)  # type: ignore[misc]
        stored = self.instance  # type: ignore[attr-defined]
        merged = {name: getattr(stored, name) for name in ("repository", "prefix")} if stored else {}
        merged.update(data)
        candidate = self.Meta.model(**{name: merged.get(name) for name in ("repository", "prefix")})  # type: ignore[attr-defined]
        candidate.repository = candidate.repository or ""
        candidate.validate_connection()
        return data

    def update(self, instance: Any, validated_data: dict[str, Any]) -> Any:
        """Save the changed fields only: a Sync may be writing its status into the same row."""
        for name, value in validated_data.items():
            setattr(instance, name, value)
        instance.save(update_fields=list(validated_data))
        return instance


_STATE = ["status", "meta", "traceback", "last_sync", "last_sync_count", "last_sync_job", "created_at"]


class PachydermImportStorageSerializer(Checked, ImportStorageSerializer):
    type = serializers.ReadOnlyField(default="pachyderm")
    repository = serializers.CharField(help_text="[project/]repo[@branch|=commit]")

    class Meta:
        model = PachydermImportStorage
        exclude = ("heartbeat", "ticket", "imported_filter")
        read_only_fields = [*_STATE, "imported_commit"]


class PachydermExportStorageSerializer(Checked, ExportStorageSerializer):
    type = serializers.ReadOnlyField(default="pachyderm")
    repository = serializers.CharField(help_text="[project/]repo[@branch]")

    class Meta:
        model = PachydermExportStorage
        exclude = ("heartbeat", "ticket")
        read_only_fields = [*_STATE, "last_commit"]
