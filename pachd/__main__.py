"""The command `pachd`: an embedded Pachyderm in one process, from one folder."""

import importlib.util
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from pachd import upkeep
from pachd.operations import Operations, options, split
from pachd.store import Store

EXAMPLES = """\b
Examples:
  pachd --data ~/howdah/pachd
  pachd --data DIR --address 127.0.0.1:30651
  pachd --data DIR --address 0.0.0.0:30650 --token-file TOKEN --tls-cert CERT --tls-key KEY
  pachd fsck DIR
  pachd backup DIR /backups/today

\b
Then, for example:
  pachctl connect grpc://127.0.0.1:30650 && pachctl create repo images
"""


@click.group(invoke_without_command=True, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    metavar="DIR",
    help="Folder that holds everything; made if it is missing.  [default: ~/.local/share/howdah/pachd]",
)
@click.option("--address", default="127.0.0.1:30650", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option(
    "--objects",
    metavar="URL",
    help="Keep new large contents at s3://BUCKET/PREFIX; credentials come from the environment.",
)
@click.option("--objects-endpoint", default="", metavar="URL", help="Where that storage is, if it is not Amazon's.")
@click.option(
    "--gc-interval",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look for deleted files whose space can be freed; 0: never.",
)
@click.option(
    "--executor",
    type=click.Choice(["auto", "process", "docker"]),
    default="auto",
    show_default=True,
    help="Where pipelines run: in sandboxes, in containers of their image, or whichever is possible.",
)
@options
@click.option("--verbose", "-v", is_flag=True, help="The same as --log-level info.")
@click.pass_context
def main(
    context: click.Context,
    /,
    data: Path | None,
    address: str,
    objects: str | None,
    objects_endpoint: str,
    executor: str,
    gc_interval: float,
    verbose: bool,
    **operations: Any,
) -> None:
    """Serve Pachyderm's gRPC API from a local folder and run its pipelines in local sandboxes.

    Prints one line when it is ready. SIGTERM or Ctrl-C stops it cleanly.
    """
    if context.invoked_subcommand is None:
        asked = Operations(**operations)
        asked.configure_logs(verbose)
        folder = partial(upkeep.open_folder, data or _default_data(), objects=objects, endpoint=objects_endpoint)
        _serve(folder, address, gc_interval, executor, asked)


for command in upkeep.COMMANDS:
    main.add_command(command)


def _serve(
    open_folder: Callable[[], Store], address: str, gc_interval: float, executor: str, operations: Operations
) -> None:
    import uvloop

    from pachd.api.server import serve
    from pachd.pfs.collect import Collector
    from pachd.store import StoreError

    host, port = split(address)
    token, tls, metrics = operations.root_token(), operations.tls(), operations.metrics()
    try:
        store = open_folder()
    except StoreError as e:
        raise click.ClickException(str(e)) from None
    except OSError as e:
        reason = f"{e.filename}: {e.strerror}" if e.filename else str(e)
        raise click.ClickException(f"the data folder cannot be used: {reason}") from None
    with store, Collector(store, gc_interval):
        deployment_id = _deployment_id(store)
        operations.check_reach(host, _is_guarded(store, token))
        peer = _peer() if tls is not None else None
        engine = _engine(store, f"127.0.0.1:{peer.getsockname()[1]}" if peer else address, executor)
        serving = serve(
            store,
            host,
            port,
            deployment_id=deployment_id,
            engine=engine,
            tls=tls,
            peer=peer,
            metrics=metrics,
            drain=operations.drain_seconds,
            pinned=bool(token),
        )
        try:
            uvloop.run(serving)
        except OSError as e:
            raise click.ClickException(f"cannot listen on {e.filename or address}: {e.strerror or e}") from None


def _is_guarded(store: Any, root_token: str) -> bool:
    """Return whether access control is active, after switching it on for a root token."""
    from pachd.auth import bindings
    from pachd.errors import PachError
    from pachd.pps import access

    if root_token:
        try:
            with store.write() as txn:
                access.bootstrap(txn, root_token)
        except PachError as error:
            raise click.ClickException(f"the token in the token file is of no use: {error}") from None
    with store.read() as snapshot:
        return bindings.active(snapshot)


def _peer() -> socket.socket:
    """Return a socket on a free port of loopback: the code of pipelines knows no certificates."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


def _engine(store: Any, address: str, executor: str) -> Any:
    if importlib.util.find_spec("pachd.pps.engine") is None:
        return None
    from pachd.pps.engine import Engine

    return Engine(store, address=address, executor=executor)


def _deployment_id(store: Any) -> str:
    """Return the ID of this data folder, made at its first use together with the project `default`."""
    from pachd.pfs import projects
    from pachd.store import system

    with store.write() as txn:
        projects.ensure_default(txn)
        txn.db.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('deployment_id', ?)", (system.new_id(),))
        return str(txn.db.execute("SELECT value FROM meta WHERE key = 'deployment_id'").fetchone()[0])


def _default_data() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("howdah")) / "pachd"


if __name__ == "__main__":
    main()
