"""The Django app's configuration."""

from django.apps import AppConfig


class PachydermStorages(AppConfig):
    name = "label_studio_backend"
    # The label must start with "io_storages_": Label Studio finds a task's storage link by that beginning of its name.
    label = "io_storages_pachyderm"
    verbose_name = "Pachyderm storages"
    default_auto_field = "django.db.models.AutoField"

    def ready(self) -> None:
        """Connect the hooks that stage a label when it is saved."""
        from . import hooks

        hooks.connect()
