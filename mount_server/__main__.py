"""The command `mount-server`: Pachyderm repos as directories, over FUSE and an HTTP API."""

import gc
import ipaddress
import logging
import os
import re
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import click
import platformdirs
import uvicorn

from mount_server.errors import Conflict, InvalidRequest, MountError, Unreachable
from mount_server.fuse_adapter import FuseMount
from mount_server.http_api import make_app
from mount_server.manager import IDLE_LIMIT, MOST_TEMPORARY, MountRequest, Mounts
from mount_server.metrics import Metrics
from mount_server.pachd_source import PachdSource
from mount_server.source import Source
from mount_server.vfs import Vfs

SWITCH_INTERVAL = 0.001  # seconds
GARBAGE = 10_000  # new objects after which Python looks for cycles: what is staged is many objects, and no cycle

_SPEC = re.compile(
    r"(?:(?P<project>[^/@:=+]+)/)?(?P<repo>[^/@:=+]+)(?:@(?P<branch>[^=:+]+))?(?:=(?P<commit>[0-9a-f]+))?(?::(?P<path>[^+]*))?(?P<mode>\+w)?\Z"
)


def parse_spec(spec: str) -> MountRequest:
    """Parse `[project/]repo[@branch][=commit][:path][+w]`; the mount gets the repo's name.

    :raises InvalidRequest: it has another form; `+w` alone makes a mount writable.
    """
    match = _SPEC.match(spec)
    if match is None:
        raise InvalidRequest(f"{spec!r} is not a mount: write [project/]repo[@branch][=commit][:path][+w]")
    part = {key: value or "" for key, value in match.groupdict().items()}
    mode = "rw" if part.pop("mode") else "ro"
    return MountRequest(part["repo"], part["repo"], part["project"], part["branch"], part["commit"], part["path"], mode)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n  mount-server --mount-dir ~/pfs -r images -r labels@master+w\n"
    "  mount-server --pachd-address grpcs://cluster.example:30650 --pachd-token-file ~/.token",
)
@click.option(
    "--pachd-address",
    default="127.0.0.1:30650",
    show_default=True,
    envvar="PACHD_ADDRESS",
    help="pachd, HOST:PORT, grpc://HOST:PORT or, with TLS, grpcs://HOST:PORT.",
)
@click.option(
    "--pachd-token-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the token to show to pachd. [default: the environment variable PACH_TOKEN]",
)
@click.option(
    "--mount-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where mounts appear. [default: /pfs as root, else ~/pfs]",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Staging journal and read cache. [default: the user's state directory]",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address of the HTTP API; anything but loopback needs a token.",
)
@click.option(
    "--port",
    default=9002,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of the HTTP API; 0 takes a free one.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the bearer token that requests must show.",
)
@click.option(
    "--idle-unmount",
    default=IDLE_LIMIT,
    show_default=True,
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="How long a temporary mount stays that nobody uses.",
)
@click.option(
    "--max-temporary-mounts",
    default=MOST_TEMPORARY,
    show_default=True,
    type=click.IntRange(1),
    help="How many temporary mounts may be there at once.",
)
@click.option(
    "-r",
    "--repo",
    "specs",
    multiple=True,
    help="Mount at start: [project/]repo[@branch][=commit][:path][+w]. Repeatable.",
)
@click.option(
    "--allow-other", is_flag=True, help="Let other users see the mounts (needs user_allow_other in /etc/fuse.conf)."
)
def main(
    pachd_address: str,
    pachd_token_file: Path | None,
    mount_dir: Path | None,
    state_dir: Path | None,
    host: str,
    port: int,
    token_file: Path | None,
    idle_unmount: float,
    max_temporary_mounts: int,
    specs: tuple[str, ...],
    allow_other: bool,
) -> None:
    """Pachyderm repos as directories: read them, change them, commit what changed."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    mount_dir = (mount_dir or (Path("/pfs") if os.getuid() == 0 else Path.home() / "pfs")).absolute()
    state_dir = (state_dir or Path(platformdirs.user_state_dir("howdah")) / "mount-server").absolute()
    token = _token(token_file)
    if not token and not _is_loopback(host):
        raise click.ClickException(f"{host} can be reached from other machines: give a bearer token with --token-file")
    pachd_token = _token(pachd_token_file) or os.environ.get("PACH_TOKEN")

    def connect(address: str) -> PachdSource:
        # the token was given for one pachd: no other, to which a client moves the server, is told it
        return PachdSource(address, (pachd_token or None) if address == pachd_address else None)

    def prepare(mounts: Mounts) -> None:
        mounts.idle_limit, mounts.most_temporary = idle_unmount, max_temporary_mounts

    try:
        _serve(pachd_address, connect, prepare, mount_dir, state_dir, host, port, token, specs, allow_other)
    except (MountError, ValueError) as e:
        raise click.ClickException(str(e)) from e
    except sqlite3.Error as e:
        raise click.ClickException(f"cannot use the state directory {state_dir}: {e}") from e
    except OSError as e:
        raise click.ClickException(f"cannot use {e.filename}: {e.strerror}" if e.filename else str(e)) from e


def _token(file: Path | None) -> str | None:
    """The token in a file; None where no file is named."""
    if file is None:
        return None
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise click.ClickException(f"the token file {file} cannot be read: {getattr(e, 'strerror', e)}") from e
    if not token:
        raise click.ClickException(f"{file} is empty: write a token into it")
    return token


def _serve(
    address: str,
    connect: Callable[[str], Source],
    prepare: Callable[[Mounts], None],
    mount_dir: Path,
    state: Path,
    host: str,
    port: int,
    token: str | None,
    specs: tuple[str, ...],
    allow_other: bool,
) -> None:
    requests = [parse_spec(spec) for spec in specs]
    listener = _listen(host, port)
    # handlers first: libfuse leaves signals alone that have one
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    # a read passes through four threads: none of them may keep the others waiting for Python's 5 ms
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.set_threshold(GARBAGE)
    mounts = Mounts(state, address, connect, mount_dir)
    prepare(mounts)
    fuse = FuseMount(Vfs(mounts), mount_dir, on_end=stop.set, allow_other=allow_other)
    server = _Server(
        uvicorn.Config(make_app(mounts, Metrics(), token), log_level="warning", access_log=False, lifespan="off")
    )
    http = threading.Thread(target=server.run, args=([listener],), name="http", daemon=True)
    try:
        for request in requests:
            try:
                mounts.mount([request])
            except Unreachable as e:
                print(f"mount-server: {request.repo} is not mounted: {e}", file=sys.stderr, flush=True)
        fuse.start()
        http.start()
        shown = f"[{host}]" if ":" in host else host
        print(
            f"mount-server: {mount_dir} mounted, API on http://{shown}:{listener.getsockname()[1]}, pachd {address}",
            flush=True,
        )
        while not stop.wait(1.0):
            pass  # a signal that another thread was given is seen when this one wakes
    finally:
        server.should_exit = True
        if http.is_alive():
            http.join(10)
        # open files are staged before their names go away
        fuse.stop()
        mounts.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)  # from here on clients wait instead of being refused
    except OSError as e:
        listener.close()
        raise Conflict(
            f"cannot listen on {host}:{port}: {e.strerror}; is another mount-server running? Choose another --port"
        ) from None
    return listener


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """Signals are the main thread's."""


if __name__ == "__main__":
    main()
