"""The command `pachd`: an embedded Pachyderm in one process, from one folder."""

import importlib.util
import ipaddress
import logging
import sys
from pathlib import Path
from typing import Any

import click

EXAMPLES = """\b
Examples:
  pachd --data ~/howdah/pachd
  pachd --data DIR --address 127.0.0.1:30651
  pachd --data DIR --address 0.0.0.0:30650 --token-file TOKEN
  pachd fsck DIR

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
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Every client must send the token in this file. Required when not listening on loopback.",
)
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
@click.option("--verbose", "-v", is_flag=True, help="Log what happens inside to stderr.")
@click.pass_context
def main(
    context: click.Context,
    data: Path | None,
    address: str,
    token_file: Path | None,
    executor: str,
    gc_interval: float,
    verbose: bool,
) -> None:
    """Serve Pachyderm's gRPC API from a local folder and run its pipelines in local sandboxes.

    Prints one line when it is ready. SIGTERM or Ctrl-C stops it cleanly.
    """
    if context.invoked_subcommand is None:
        if verbose:
            logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        else:
            logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
            logging.getLogger("grpclib").setLevel(logging.CRITICAL)  # it warns of every client that goes away
        _serve(data or _default_data(), address, token_file, gc_interval, executor)


@main.command()
@click.argument("data", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
def fsck(data: Path) -> None:
    """Check the data folder DIR, which no pachd may be using. Exit code 1 if anything is wrong."""
    from pachd.store import StoreError

    try:
        with _open(data, create=False) as store:
            problems = _check(store)
    except StoreError as e:
        raise click.ClickException(str(e)) from None
    for problem in problems:
        click.echo(problem)
    if problems:
        raise click.ClickException(f"{len(problems)} problems in {data}")
    click.echo(f"{data}: no problems found")


def _check(store: Any) -> list[str]:
    from pachd.pfs import collect

    with store.read() as snapshot:
        return list(collect.check(snapshot, rehash=True))


def _serve(data: Path, address: str, token_file: Path | None, gc_interval: float, executor: str) -> None:
    import uvloop

    from pachd.api.server import serve
    from pachd.pfs.collect import Collector
    from pachd.store import StoreError

    host, port = _split(address)
    token = token_file.read_text().strip() if token_file else ""
    if token_file and not token:
        raise click.ClickException(f"{token_file} is empty: write a token into it")
    if not token and not _is_loopback(host):
        raise click.ClickException(
            f"{host} can be reached from other machines: give --token-file, or listen on 127.0.0.1"
        )
    try:
        store = _open(data)
    except (StoreError, OSError) as e:
        raise click.ClickException(str(e)) from None
    with store, Collector(store, gc_interval):
        engine = _engine(store, address, executor)
        try:
            uvloop.run(serve(store, host, port, deployment_id=_deployment_id(store), token=token, engine=engine))
        except OSError as e:
            raise click.ClickException(f"cannot listen on {address}: {e.strerror or e}") from None


def _open(data: Path, create: bool = True) -> Any:
    from pachd import pfs, pps
    from pachd.store import Store

    return Store.open(data, [*pfs.SCHEMA, *getattr(pps, "SCHEMA", ())], create=create)


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


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{address!r} is not HOST:PORT", param_hint="--address")
    return host.strip("[]") or "127.0.0.1", int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
