"""`howdah up`: all services on this machine, or on a cluster's pachd."""

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

from howdah.services import Service, ServiceError, Services
from pachd.client import Client, RpcError

USERNAME = "admin@localhost.localdomain"
HOST = "127.0.0.1"
LABEL_STUDIO_SECONDS = 240.0  # its first start migrates a database


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


def lay_out(
    data: Path,
    pachd_address: str | None = None,
    mount_dir: Path | None = None,
    pachd_port: int = 30650,
    mount_port: int = 9002,
    label_studio_port: int = 8080,
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
    )


def login(path: Path) -> tuple[str, str]:
    """The first user of Label Studio: read from the file, or made up and written there for its owner alone."""
    if path.exists():
        stored = json.loads(path.read_text())
        return stored["username"], stored["password"]
    password = secrets.token_urlsafe(12)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"username": USERNAME, "password": password}, file)
    return USERNAME, password


def services(layout: Layout, label_studio: bool = True) -> list[Service]:
    """The services to start, in order. Raises ServiceError when a port is taken or a given pachd does not answer."""
    python, logs = sys.executable, layout.data / "logs"
    found = []
    if layout.start_pachd:
        found.append(
            Service(
                "pachd",
                f"grpc://{layout.pachd_address}",
                [python, "-m", "pachd", "--data", str(layout.data / "pachd"), "--address", layout.pachd_address],
                logs / "pachd.log",
                lambda: answers(layout.pachd_address),
            )
        )
    elif not answers(layout.pachd_address):
        raise ServiceError(f"no pachd answers at {layout.pachd_address}")
    mount_host, mount_port = layout.mount_url.removeprefix("http://").split(":")
    layout.mount_dir.mkdir(parents=True, exist_ok=True)
    found.append(
        Service(
            "mount-server",
            layout.mount_url,
            [python, "-m", "mount_server", "--pachd-address", layout.pachd_address]
            + ["--mount-dir", str(layout.mount_dir), "--state-dir", str(layout.data / "mount-server")]
            + ["--host", mount_host, "--port", mount_port],
            logs / "mount-server.log",
            lambda: responds(f"{layout.mount_url}/health"),
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
    for service in found:
        free(service)
    return found


def free(service: Service) -> None:
    """Raise ServiceError when something listens at a service's address already."""
    host, port = service.url.split("//")[1].rsplit(":", 1)
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((host, int(port))) == 0:
            raise ServiceError(f"{service.name} cannot start: something listens on {host}:{port} already")


def answers(address: str) -> bool:
    """Whether a pachd answers at an address."""
    with Client(address, timeout=5) as client:
        try:
            client.version.GetVersion()
        except RpcError:
            return False
    return True


def responds(url: str) -> bool:
    """Whether a plain HTTP service on this machine answers with success."""
    try:
        # asked many times a second while a service starts: without `verify=False` each call reads all of the system's
        # certificates, tens of milliseconds of a core that the service needs; there is no TLS here to verify
        return httpx.get(url, timeout=5, verify=False).is_success
    except httpx.HTTPError:
        return False


def run(data: Path, no_label_studio: bool = False, as_json: bool = False, **options: Any) -> int:
    """Start everything and wait for Ctrl-C. Returns the exit code: 1 when something did not start or died."""

    def say(name: str, url: str, **more: Any) -> None:
        line = json.dumps({"service": name, "url": url, **more}) if as_json else f"{name:<13} {url}"
        click.echo(line + "".join(f"  {key}: {value}" for key, value in more.items() if not as_json))

    with Services() as running:
        running.stop_on_signals()
        try:
            layout = lay_out(data, **options)
            if not layout.start_pachd:
                wanted = services(layout, not no_label_studio)
                say("pachd", layout.pachd_address, started=False)
            else:
                wanted = services(layout, not no_label_studio)
            for service in wanted:
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
            click.echo("Stopping …")
    return 0
