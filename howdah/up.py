"""`howdah up`: all services on this machine, or on a cluster's pachd."""

import contextlib
import json
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
from grpclib.const import Status

from howdah.services import Service, ServiceError, Services
from pachd.client import Client, RpcError

USERNAME = "admin@localhost.localdomain"
HOST = "127.0.0.1"
LABEL_STUDIO_SECONDS = 600.0  # its first start migrates a database: minutes where cores are busy


@dataclass
class Layout:
    """Where everything is: folders, addresses, and the first login of Label Studio."""

    data: Path
    pachd_address: str
    start_pachd: bool
    mount_dir: Path
    mount_url: str
    label_studio_url: str
    username: str = USERNAME
    password: str = ""
    token_file: Path | None = None  # with the token to show to pachd
    ca_file: Path | None = None  # with the certificates to trust when pachd speaks TLS
    executor: str = "auto"

    def client(self, timeout: float = 30) -> Client:
        """A client of the pachd. Raises ServiceError when there is no such token or address."""
        try:
            token = self.token_file.read_text().strip() if self.token_file else os.environ.get("PACH_TOKEN")
            return Client(self.pachd_address, token=token or None, timeout=timeout, ca_file=self.ca_file)
        except OSError as e:
            raise ServiceError(f"the token file {self.token_file} cannot be read: {e.strerror or e}") from e
        except ValueError as e:
            raise ServiceError(str(e)) from e


def lay_out(
    data: Path,
    pachd_address: str | None = None,
    mount_dir: Path | None = None,
    pachd_port: int = 30650,
    mount_port: int = 9002,
    label_studio_port: int = 8080,
    pachd_token_file: Path | None = None,
    pachd_ca_file: Path | None = None,
    executor: str = "auto",
) -> Layout:
    """Make the data folder and decide where everything is. Raises ServiceError when the folder cannot be made."""
    data = data.expanduser().absolute()
    try:
        data.mkdir(parents=True, exist_ok=True)
        username, password = login(data / "login.json")
    except OSError as e:
        raise ServiceError(f"the data folder {data} cannot be used: {e.strerror or e}") from e
    return Layout(
        data=data,
        pachd_address=pachd_address or f"{HOST}:{pachd_port}",
        start_pachd=pachd_address is None,
        mount_dir=(mount_dir or data / "pfs").expanduser().absolute(),
        mount_url=f"http://{HOST}:{mount_port}",
        label_studio_url=f"http://{HOST}:{label_studio_port}",
        username=username,
        password=password,
        token_file=pachd_token_file.absolute() if pachd_token_file else None,
        ca_file=pachd_ca_file.absolute() if pachd_ca_file else None,
        executor=executor,
    )


def login(path: Path) -> tuple[str, str]:
    """The first user of Label Studio: read from the file, or made up and written there for its owner alone."""
    if path.exists():
        try:
            stored = json.loads(path.read_text())
            return stored["username"], stored["password"]
        except (ValueError, KeyError, TypeError):
            raise ServiceError(
                f"{path} does not hold a login: delete it, and set the password in Label Studio"
            ) from None
    password = secrets.token_urlsafe(12)
    new = path.with_name(path.name + ".new")  # a full disk must not leave half a login
    try:
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"username": USERNAME, "password": password}, file)
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    return USERNAME, password


def services(layout: Layout, label_studio: bool = True) -> list[Service]:
    """The services to start, in order. Raises ServiceError when a port is taken or a given pachd does not answer."""
    python, logs = sys.executable, layout.data / "logs"
    token_file = str(layout.token_file or "")
    found = []
    if layout.start_pachd:
        found.append(
            Service(
                "pachd",
                f"grpc://{layout.pachd_address}",
                [python, "-m", "pachd", "--data", str(layout.data / "pachd"), "--address", layout.pachd_address]
                + ["--executor", layout.executor]
                + (["--token-file", token_file] if token_file else []),
                logs / "pachd.log",
                lambda: not refusal(layout),
            )
        )
    elif reason := refusal(layout):
        raise ServiceError(reason)
    mount_host, mount_port = layout.mount_url.removeprefix("http://").split(":")
    found.append(
        Service(
            "mount-server",
            layout.mount_url,
            [python, "-m", "mount_server", "--pachd-address", layout.pachd_address]
            + ["--mount-dir", str(layout.mount_dir), "--state-dir", str(layout.data / "mount-server")]
            + ["--host", mount_host, "--port", mount_port]
            + (["--pachd-token-file", token_file] if token_file else []),
            logs / "mount-server.log",
            lambda: responds(f"{layout.mount_url}/health"),
            env={"PACHD_CA_FILE": str(layout.ca_file)} if layout.ca_file else {},
        )
    )
    if label_studio:
        host, port = layout.label_studio_url.removeprefix("http://").split(":")
        found.append(
            Service(
                "Label Studio",
                layout.label_studio_url,
                [python, "-m", "label_studio_backend", "--data-dir", str(layout.data / "label-studio")]
                + ["--host", host, "--port", port]
                + ["--mount-url", layout.mount_url, "--mount-dir", str(layout.mount_dir)],
                logs / "label-studio.log",
                lambda: responds(f"{layout.label_studio_url}/health"),
                LABEL_STUDIO_SECONDS,
                # not on the command line, where every user of the machine could read it
                {"LABEL_STUDIO_USERNAME": layout.username, "LABEL_STUDIO_PASSWORD": layout.password},
            )
        )
    names: dict[str, str] = {}  # by port
    for service in found:
        first = names.setdefault(service.url.rsplit(":", 1)[1], service.name)
        if first != service.name:
            raise ServiceError(f"{first} and {service.name} cannot have the same port")
        free(service)
    return found


def free(service: Service) -> None:
    """Raise ServiceError when something listens at a service's address already."""
    host, port = service.url.split("//")[1].rsplit(":", 1)
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((host, int(port))) == 0:
            option = f"--{service.name.lower().replace(' ', '-').removesuffix('-server')}-port"
            raise ServiceError(
                f"{service.name} cannot start: something listens on {host}:{port} already. "
                f"Is `howdah up` running? Stop what is there, or choose another port with {option}"
            )


def refusal(layout: Layout) -> str:
    """Why the pachd cannot be used, "" when it can."""
    with layout.client(timeout=5) as client:
        try:
            client.version.GetVersion()
        except RpcError as e:
            return f"no pachd answers at {layout.pachd_address}: {e}"
        try:
            client.auth.WhoAmI()
        except RpcError as e:
            if e.code in (Status.UNAUTHENTICATED, Status.PERMISSION_DENIED):
                what = "give a token with --pachd-token-file or PACH_TOKEN"
                return f"{layout.pachd_address} does not let us in: {e}; {what}"
    return ""  # another error: it has no access control


def responds(url: str) -> bool:
    """Whether a plain HTTP service on this machine answers with success."""
    try:
        # asked many times a second while a service starts: without `verify=False` each call reads all of the system's
        # certificates, tens of milliseconds of a core that the service needs; there is no TLS here to verify
        return httpx.get(url, timeout=5, verify=False).is_success
    except httpx.HTTPError:
        return False


def run(data: Path, no_label_studio: bool = False, as_json: bool = False, **options: Any) -> int:
    """Start everything and wait for Ctrl-C or SIGTERM.

    Returns the exit code: 130 after Ctrl-C, 0 after SIGTERM, 1 when something did not start or died.
    """

    def say(name: str, url: str, **more: Any) -> None:
        line = json.dumps({"service": name, "url": url, **more}) if as_json else f"{name:<13} {url}"
        click.echo(line + "".join(f"  {key}: {value}" for key, value in more.items() if not as_json))

    with Services() as running:
        running.stop_on_signals()
        try:
            layout = lay_out(data, **options)
            wanted = services(layout, not no_label_studio)
            if not layout.start_pachd:
                say("pachd", layout.pachd_address, started=False)
            for service in wanted:
                if service.name == "Label Studio" and not as_json:
                    click.echo("Label Studio starts; the first time it makes its database, a minute or so …", err=True)
                running.start(service)
                if running.stopping.is_set():
                    break
                more = {"login": layout.username, "password in": layout.data / "login.json"}
                extra = {k: str(v) for k, v in more.items()} if service.name == "Label Studio" else {}
                say(service.name, service.url, **extra)
            else:
                if not as_json:
                    click.echo(f"Everything runs; data in {layout.data}. Ctrl-C stops it.")
            dead = running.watch()
        except ServiceError as e:
            click.echo(f"Error: {e}", err=True)
            return 1
        if dead is not None:
            code = dead.process.returncode if dead.process else None
            click.echo(f"Error: {dead.name} ended with exit code {code}; stopping the others{dead.tail()}", err=True)
            return 1
        if not as_json:
            with contextlib.suppress(OSError):  # the terminal may be closed
                click.echo("Stopping …")
    return 130 if running.interrupted else 0
