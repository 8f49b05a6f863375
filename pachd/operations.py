"""The options of `pachd` about running it: who may reach it, encryption, monitoring, logs, stopping."""

import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

LEVELS = ("debug", "info", "warning", "error")  # of logging
DRAIN_SECONDS = 10.0
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass
class Operations:
    """What was asked for; see `options` for each."""

    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    metrics_address: str | None = None
    log_format: str = "human"
    log_level: str = "warning"
    drain_seconds: float = DRAIN_SECONDS

    def configure_logs(self, verbose: bool = False) -> None:
        """Begin to log."""
        from pachd import logs

        logs.configure("info" if verbose else self.log_level, self.log_format == "json")

    def root_token(self) -> str:
        """Return the token in the token file, "" without one. Raises ClickException for an empty file."""
        if self.token_file is None:
            return ""
        token = self.token_file.read_text().strip()
        if not token:
            raise click.ClickException(f"{self.token_file} is empty: write a token into it")
        return token

    def tls(self) -> ssl.SSLContext | None:
        """Return what the server encrypts with. Raises ClickException if the files are of no use."""
        from pachd.api.tls import server_context

        if self.tls_cert is None and self.tls_key is None:
            return None
        if self.tls_cert is None or self.tls_key is None:
            raise click.UsageError("give --tls-cert and --tls-key together")
        try:
            return server_context(self.tls_cert, self.tls_key)
        except ValueError as error:
            raise click.ClickException(str(error)) from None

    def metrics(self) -> tuple[str, int] | None:
        """Return where the monitoring address is to be."""
        return split(self.metrics_address, "--metrics-address") if self.metrics_address else None

    def check_reach(self, host: str, guarded: bool) -> None:
        """Refuse to listen where strangers could come in.

        :param guarded: access control is active.
        :raises ClickException: that would be the case, and it was not asked for.
        """
        if guarded or self.insecure or self.tls_cert is not None or is_loopback(host):
            return
        raise click.ClickException(
            f"{host} can be reached from other machines: switch access control on with --token-file, encrypt with "
            "--tls-cert and --tls-key, or listen on 127.0.0.1 (--insecure listens there all the same)"
        )


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `Operations`, as parameters of the same names."""
    for option in reversed(
        (
            click.option(
                "--token-file",
                type=_FILE,
                metavar="FILE",
                help="Switch access control on; the token in this file is that of the root user.",
            ),
            click.option("--tls-cert", type=_FILE, metavar="FILE", help="Encrypt, with this certificate (PEM)."),
            click.option("--tls-key", type=_FILE, metavar="FILE", help="The private key of the certificate (PEM)."),
            click.option(
                "--insecure",
                is_flag=True,
                help="Listen where other machines can reach it even without access control and encryption.",
            ),
            click.option(
                "--metrics-address",
                metavar="HOST:PORT",
                help="Serve /metrics (Prometheus), /healthz and /readyz over HTTP here.",
            ),
            click.option(
                "--log-format",
                type=click.Choice(["human", "json"]),
                default="human",
                show_default=True,
                help="One line per event on stderr, in this form.",
            ),
            click.option(
                "--log-level",
                type=click.Choice(LEVELS),
                default="warning",
                show_default=True,
                help="What is logged; from info on, every call.",
            ),
            click.option(
                "--drain-seconds",
                type=click.FloatRange(min=0),
                default=DRAIN_SECONDS,
                show_default=True,
                metavar="SECONDS",
                help="How long calls that are under way may take when pachd is told to stop.",
            ),
        )
    ):
        command = option(command)
    return command


def split(address: str, option: str = "--address") -> tuple[str, int]:
    """Return host and port of `HOST:PORT`. Raises BadParameter."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{address!r} is not HOST:PORT", param_hint=option)
    return host.strip("[]") or "127.0.0.1", int(port)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
