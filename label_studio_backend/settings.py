"""Label Studio's own settings plus this app. Nothing of Label Studio is edited.

Configuration (environment): HOWDAH_MOUNT_URL, HOWDAH_MOUNT_DIR, HOWDAH_MOUNT_TOKEN (optional),
HOWDAH_LS_DIALOG=auto|wizard|classic. Label Studio's own variables work as ever.
"""

import hashlib as _hashlib
import os as _os
import sys as _sys
from pathlib import Path as _Path

import label_studio as _label_studio

# No calls home, whatever the caller forgot to set. Before the imports below: they read the environment.
for _name, _value in {
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
}.items():
    _os.environ.setdefault(_name, _value)

# What Label Studio's console script does itself; gunicorn and django-admin do not.
_package = str(_Path(_label_studio.__file__).resolve().parent)
if _package not in _sys.path:
    _sys.path.insert(0, _package)

# First base, then label_studio: the second reads django.conf.settings while it loads, which is this half-loaded module.
from core.settings.base import *  # noqa: E402,F403
from label_studio.core.settings.label_studio import *  # noqa: E402,F403

HOWDAH_MOUNT_URL = _os.environ.get("HOWDAH_MOUNT_URL", "http://127.0.0.1:9002")
HOWDAH_MOUNT_DIR = _os.environ.get("HOWDAH_MOUNT_DIR", "/pfs")
HOWDAH_MOUNT_TOKEN = _os.environ.get("HOWDAH_MOUNT_TOKEN") or None

INSTALLED_APPS = [*INSTALLED_APPS, "label_studio_backend.apps.PachydermStorages"]  # noqa: F405
ROOT_URLCONF = "label_studio_backend.urls"
GET_STORAGE_LIST = "label_studio_backend.registry.get_storage_list"
IO_STORAGES_IMPORT_LINK_NAMES = [*IO_STORAGES_IMPORT_LINK_NAMES, "io_storages_pachyderm_pachydermimportstoragelink"]  # noqa: F405
SYNC_ON_TARGET_STORAGE_CREATION = False  # a commit is made when somebody presses Sync, not when a form is saved
SENTRY_DSN = _os.environ.get("SENTRY_DSN") or None
FRONTEND_SENTRY_DSN = _os.environ.get("FRONTEND_SENTRY_DSN") or None

# Our base.html extends Label Studio's of the same name: the loader goes on in the next directory.
TEMPLATES[0]["DIRS"] = [str(_Path(__file__).parent / "templates"), TEMPLATES_DIR]  # noqa: F405

# The dialog. Its provider list is a constant of the front-end bundle. In a bundle that we know, a script adds our
# provider to it ("wizard"); in any other, a switch of Label Studio's own brings back the dialog that asks the server
# for its providers ("classic").
KNOWN_BUNDLES = {"a92a1e9cb754dcbb380c7209ddd022a9c2fc876f760c1a1b65394e7df54f20b4"}  # main.js of 1.23.2
HOWDAH_LS_DIALOG = _os.environ.get("HOWDAH_LS_DIALOG", "auto")
if HOWDAH_LS_DIALOG not in ("auto", "wizard", "classic"):
    raise ValueError(f'HOWDAH_LS_DIALOG is "{HOWDAH_LS_DIALOG}": auto, wizard or classic is expected.')
if HOWDAH_LS_DIALOG == "auto":
    _bundle = _Path(REACT_APP_ROOT) / "main.js"  # noqa: F405
    _known = _bundle.is_file() and _hashlib.sha256(_bundle.read_bytes()).hexdigest() in KNOWN_BUNDLES
    HOWDAH_LS_DIALOG = "wizard" if _known else "classic"
if HOWDAH_LS_DIALOG == "classic":
    FRONTEND_SENTRY_ENVIRONMENT = "howdah"

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):  # noqa: F405
    # Stock SQLite fails with "database is locked" as soon as four people label during a Sync. IMMEDIATE: a transaction
    # that will write waits for its turn at BEGIN instead of failing at its first write. WAL: readers never wait, and
    # what was acknowledged survives the end of the process.
    DATABASES["default"]["OPTIONS"] = {  # noqa: F405
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-16384;",
    }
    # A thread keeps its connection: opening and closing one for each request takes 3 ms of processor time, and closing
    # the last one writes the WAL back. Each holds a cache of its own, hence its moderate size (16 MiB).
    DATABASES["default"]["CONN_MAX_AGE"] = 600  # noqa: F405
