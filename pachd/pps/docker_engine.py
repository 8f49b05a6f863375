"""A Docker engine on this machine: whether it answers, its images, and the containers that a pachd left behind."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pachd.pps.sandbox import NotReady
from pachd.store import system

if TYPE_CHECKING:
    import docker

log = logging.getLogger(__name__)
LABEL = "howdah.pachd"  # on every container; its value is the data folder of the pachd that made it
_SOCKET = "/var/run/docker.sock"
_CALL_SECONDS = 60.0
_ASK_SECONDS = 5.0
_PULL_SECONDS = 30.0  # without a word from the engine
_RETRY_ENGINE = 3.0
_RETRY_IMAGE = 15.0
_KNOWN_SECONDS = 2.0  # how long an answer to `problem` holds


class EngineAway(NotReady):
    """No Docker engine answers; str() says where it was looked for and why that failed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, _RETRY_ENGINE)


class NoImage(NotReady):
    """An image is not on this machine and cannot be pulled; str() is the engine's reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, _RETRY_IMAGE)


class DockerEngine:
    """The engine that `DOCKER_HOST` names, or the one on the usual socket.

    ``owner`` marks the containers of this pachd.  All methods may be called from any thread.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._lock = threading.Lock()
        self._pulling = threading.Lock()
        self._known: tuple[float, str] = (-1e9, "")
        self._failed: dict[tuple[str, int], tuple[float, str]] = {}  # pulls by image and login: when, and why
        self._swept = False

    @property
    def address(self) -> str:
        """Where the engine is looked for."""
        if named := os.environ.get("DOCKER_HOST"):
            return named
        own = os.path.join(os.environ.get("XDG_RUNTIME_DIR", ""), "docker.sock")
        if not os.path.exists(_SOCKET) and own.startswith("/") and os.path.exists(own):
            return f"unix://{own}"
        return f"unix://{_SOCKET}"

    def client(self, timeout: float = _CALL_SECONDS) -> docker.APIClient:
        """A connection of the caller's own, to be closed; EngineAway when no engine answers."""
        address = self.address
        path = address.removeprefix("unix://")
        if path == address:
            raise EngineAway(f"the Docker engine at {address} cannot be used: it must be on this machine")
        if not os.path.exists(path):  # the usual case of a machine without Docker, told without loading the client
            raise EngineAway(f"no Docker engine answers at {address}: there is no such socket")
        import docker
        from docker.errors import DockerException

        try:
            return docker.APIClient(base_url=address, version="auto", timeout=timeout)
        except (DockerException, OSError) as error:
            raise EngineAway(f"no Docker engine answers at {address}: {_inner(error)}") from None

    def problem(self) -> str:
        """Why the engine cannot be used now, "" when it can.  The first time it can, leftovers are removed."""
        with self._lock:
            if system.monotonic() - self._known[0] > _KNOWN_SECONDS:
                try:
                    client = self.client(_ASK_SECONDS)
                    try:
                        client.timeout = _CALL_SECONDS
                        self._sweep(client)
                    finally:
                        client.close()
                    self._known = (system.monotonic(), "")
                except EngineAway as away:
                    self._known = (system.monotonic(), str(away))
            return self._known[1]

    def forget(self) -> None:
        """Ask the engine again at the next `problem`: it has just failed."""
        self._known = (-1e9, "")

    def own_user(self) -> str:
        """As whom code runs whose spec names no user: "" (the image's own) if we may read whatever that one leaves.

        An ordinary user's pachd could not clear away what root wrote, unless the engine is that user's as well.
        """
        if os.geteuid() == 0:
            return ""
        client = self.client()
        try:
            rootless = any("rootless" in option for option in client.info().get("SecurityOptions") or ())
        finally:
            client.close()
        return "" if rootless else f"{os.geteuid()}:{os.getegid()}"

    def ensure(self, image: str, credentials: Iterable[Mapping[str, bytes]] = (), again: float = 0.0) -> None:
        """Have an image on this machine: pull it when it is not there.

        ``credentials`` are the secrets that `imagePullSecrets` names.  A pull that failed is not repeated for ``again``
        seconds.  Raises NoImage, EngineAway.
        """
        from docker.errors import DockerException, ImageNotFound

        client = self.client()
        try:
            with self._pulling:
                try:
                    client.inspect_image(image)
                    return
                except ImageNotFound:
                    pass
                login = _login(image, list(credentials))
                key = (image, hash(tuple(login.items())))
                when, reason = self._failed.get(key, (-1e9, ""))
                if system.monotonic() - when < again:
                    raise NoImage(reason)
                try:
                    self._pull(client, image, login)
                except NoImage as problem:
                    self._failed[key] = (system.monotonic(), str(problem))
                    raise
        except (DockerException, OSError) as error:
            self.forget()
            raise EngineAway(f"the Docker engine at {self.address} failed: {_inner(error)}") from None
        finally:
            client.close()

    def _pull(self, client: docker.APIClient, image: str, login: dict[str, str]) -> None:
        from docker.errors import APIError

        client.timeout = _PULL_SECONDS
        try:
            for line in client.pull(image, stream=True, decode=True, **({"auth_config": login} if login else {})):
                if "error" in line:
                    raise NoImage(f"cannot pull the image {image}: {line['error']}")
        except APIError as error:
            raise NoImage(f"cannot pull the image {image}: {error.explanation or error}") from None
        except OSError as error:  # among them the time-outs of the HTTP client
            raise NoImage(f"cannot pull the image {image}: {error}") from None

    def _sweep(self, client: docker.APIClient) -> None:
        """Remove what an earlier pachd on the same data could not remove itself."""
        if self._swept:
            return
        from docker.errors import APIError

        for found in client.containers(all=True, filters={"label": f"{LABEL}={self.owner}"}):
            try:
                client.remove_container(found["Id"], force=True, v=True)
            except APIError as error:
                log.warning("cannot remove the container %s of an earlier run: %s", found["Id"][:12], error.explanation)
        self._swept = True


def _login(image: str, credentials: list[Mapping[str, bytes]]) -> dict[str, str]:
    """The name and password for an image's registry out of Kubernetes' secrets (`.dockerconfigjson`), {} if none."""
    registry = image.split("/")[0] if "/" in image else ""
    if "." not in registry and ":" not in registry and registry != "localhost":
        registry = "docker.io"
    for secret in credentials:
        try:
            entries = json.loads(secret.get(".dockerconfigjson", b"{}")).get("auths", {})
            for server, entry in entries.items():
                if registry not in server:
                    continue
                if "auth" in entry:
                    name, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
                    return {"username": name, "password": password}
                return {"username": entry["username"], "password": entry["password"]}
        except (ValueError, KeyError, AttributeError):
            raise NoImage(f"cannot pull the image {image}: a secret of imagePullSecrets is no Docker login") from None
    return {}


def _inner(error: BaseException) -> Any:
    """The cause at the bottom: the HTTP client wraps the system's error several times."""
    return error.__cause__ or error.__context__ or error
