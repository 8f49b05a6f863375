"""`python -m label_studio_backend`: stock Label Studio with the Pachyderm storages, behind gunicorn."""

from __future__ import annotations

import argparse
import fcntl
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="label_studio_backend", description=__doc__)
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="Label Studio's data: database, uploads, secret key"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--mount-url", help="the mount server's address (default: HOWDAH_MOUNT_URL)")
    parser.add_argument("--mount-dir", type=Path, help="the mount server's directory (default: HOWDAH_MOUNT_DIR)")
    parser.add_argument("--username", help="e-mail of the first user (default: LABEL_STUDIO_USERNAME)")
    parser.add_argument("--password", help="better: LABEL_STUDIO_PASSWORD, which the process list does not show")
    parser.add_argument("--threads", type=int, default=16, help="requests served at the same time")
    return parser.parse_args(argv)


def _environment(options: argparse.Namespace) -> None:
    options.data_dir.mkdir(parents=True, exist_ok=True)
    os.environ["LABEL_STUDIO_BASE_DATA_DIR"] = str(options.data_dir.resolve())
    os.environ["DJANGO_SETTINGS_MODULE"] = "label_studio_backend.settings"
    if options.mount_url:
        os.environ["HOWDAH_MOUNT_URL"] = options.mount_url
    if options.mount_dir:
        os.environ["HOWDAH_MOUNT_DIR"] = str(options.mount_dir.resolve())


def _first_user(username: str | None, password: str | None, token: str | None) -> None:
    """Make the user unless it exists; an existing user keeps the password it has. Prints no secret."""
    from organizations.models import Organization
    from rest_framework.authtoken.models import Token
    from users.models import User

    if not username:
        return
    user = User.objects.filter(email__iexact=username).first()
    if user is None:
        if not password:
            raise SystemExit(f"The first user {username} needs a password: set LABEL_STUDIO_PASSWORD.")
        user = User.objects.create_user(email=username, password=password)
        user.is_staff = user.is_superuser = True
        user.username = user.email.split("@")[0]
        user.save()
        print(f"User {username} was made.", flush=True)
    organization = Organization.objects.first()
    if organization is None:
        organization = Organization.create_organization(created_by=user, title="Label Studio")
    elif not organization.has_user(user):
        organization.add_user(user)
    if user.active_organization_id is None:
        user.active_organization = organization
        user.save(update_fields=["active_organization"])
    if token and len(token) > 4:
        Token.objects.filter(user=user).delete()
        Token.objects.create(user=user, key=token)


def prepare() -> None:
    """Bring the database up to date; the environment must be set. Safe to repeat."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", "--no-color", verbosity=0)
    from label_studio_backend.models import PachydermExportStorage, PachydermImportStorage

    alone = _alone(Path(os.environ["LABEL_STUDIO_BASE_DATA_DIR"]))
    for model in (PachydermImportStorage, PachydermExportStorage):
        model.release_interrupted(alone)
    env = os.environ
    _first_user(env.get("LABEL_STUDIO_USERNAME"), env.get("LABEL_STUDIO_PASSWORD"), env.get("LABEL_STUDIO_USER_TOKEN"))
    connections.close_all()  # no connection may be shared with the workers


_serving: list[Any] = []  # the open file whose lock says that this process serves the data folder


def _alone(folder: Path) -> bool:
    """Whether no other process serves this data folder; from now on this one does, until it ends."""
    file = open(folder / "pachyderm-serving.lock", "w")
    _serving.append(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(file, fcntl.LOCK_SH)
        return False
    fcntl.flock(file, fcntl.LOCK_SH)
    return True


def _announce(url: str) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                break
        except urllib.error.HTTPError:
            break  # it answers
        except OSError:
            time.sleep(0.05)
    print(f"label-studio with Pachyderm storages listening on {url}", flush=True)


def _serve(options: argparse.Namespace) -> None:
    from django.core.wsgi import get_wsgi_application
    from gunicorn.app.base import BaseApplication

    url = f"http://{'127.0.0.1' if options.host in ('0.0.0.0', '') else options.host}:{options.port}"

    def post_worker_init(worker: Any) -> None:
        threading.Thread(target=_announce, args=(url,), daemon=True).start()

    class Server(BaseApplication):
        def load_config(self) -> None:
            for name, value in {
                "bind": f"{options.host}:{options.port}",
                "worker_class": "gthread",
                "workers": 1,
                "threads": options.threads,
                "timeout": 120,
                "graceful_timeout": 10,
                "keepalive": 30,
                "loglevel": "warning",
                "post_worker_init": post_worker_init,
                "control_socket_disable": True,
            }.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Any:
            return get_wsgi_application()

    Server().run()


def main(argv: list[str] | None = None) -> None:
    """Migrate, make the first user, serve until SIGTERM or SIGINT."""
    options = _arguments(argv)
    _environment(options)
    if options.username:
        os.environ["LABEL_STUDIO_USERNAME"] = options.username
    if options.password:
        os.environ["LABEL_STUDIO_PASSWORD"] = options.password
    prepare()
    os.environ.pop("LABEL_STUDIO_PASSWORD", None)
    _serve(options)


if __name__ == "__main__":
    main()
