"""Run by `test_ordinary_user.py` as a user without rights: a mount server of that user, from start to end.

Arguments: address of a pachd with a repo `shared`, and a folder that belongs to the user.
"""

import os
import subprocess
import sys
from pathlib import Path

from mount_server.fuse_adapter import is_mounted
from tests.processes import MountServer


def main(address: str, folder: Path) -> None:
    assert os.getuid() != 0
    server = MountServer(folder, address)
    server.start()
    try:
        mount = {"mounts": [{"name": "shared", "repo": "shared", "mode": "rw"}]}
        assert server.call("PUT", "/_mount", mount)[0] == 200
        file = server.mount_dir / "shared" / "f"
        file.write_text("kept")
        assert file.stat().st_uid == os.getuid()
        server.kill()
        assert is_mounted(server.mount_dir), "the dead mount is still there, and the next start cleans it away"
        server.start()
        assert file.read_text() == "kept"
        status, answer = server.call("PUT", "/_commit", {"mount": "shared"})
        assert (status, answer["commit"]["files_added"]) == (200, 1)
        assert server.stop() == 0
        assert not is_mounted(server.mount_dir)
        other = subprocess.run(
            [*server.command, "--allow-other"], capture_output=True, text=True, timeout=60, cwd=Path.cwd()
        )
        allowed = "user_allow_other" in [line.strip() for line in Path("/etc/fuse.conf").read_text().splitlines()]
        assert allowed or (other.returncode == 1 and "user_allow_other" in other.stderr), other.stderr
    finally:
        server.kill()
        server.unmount()
    print("an ordinary user can")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
