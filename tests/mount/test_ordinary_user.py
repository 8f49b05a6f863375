"""The mount server needs no rights but those of the user who starts it, and fusermount."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pachd.client import Client
from pachd.proto import pfs_pb2
from tests.processes import Pachd

# an interpreter below root's home is out of others' reach: for this one test its folder is shown in its place
SHOW_INTERPRETER = """
set -e
base=$(readlink -f "$1"); home=$(dirname "$(dirname "$base")")
case "$home" in
/root/*)
    keep=$(mktemp -d); mount --bind "$home" "$keep"
    mount -t tmpfs -o mode=755 tmpfs /root
    mkdir -p "$home"; mount --bind "$keep" "$home";;
esac
shift
exec setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"
"""


def test_as_an_ordinary_user(tmp_path: Path) -> None:
    pachd = Pachd(tmp_path / "data").start()
    folder = Path(tempfile.mkdtemp(prefix="howdah-user-"))
    try:
        with Client(pachd.address) as client:
            client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=pfs_pb2.Repo(name="shared", type="user")))
        command = [sys.executable, "-m", "tests.mount.ordinary_user", pachd.address, str(folder)]
        if os.getuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
            command = ["unshare", "--mount", "sh", "-c", SHOW_INTERPRETER, "sh", sys.executable, *command]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=200, env={**os.environ, "HOME": str(folder)}
        )
        assert "an ordinary user can" in done.stdout, done.stdout + done.stderr
    finally:
        pachd.stop()
        shutil.rmtree(folder, ignore_errors=True)
