"""Fetching http(s) URLs that clients name, without becoming their way into the network that pachd is in.

Whoever may write to a repo may have pachd fetch a URL. So only public addresses are connected to, whatever a name
resolves to and wherever a server redirects; `PACHD_URL_HOSTS` names the exceptions: host names, addresses and networks,
separated by commas.
"""

import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore
import httpx

from pachd.errors import PachError

TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 20  # bytes
REDIRECTS = 10
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def fetch(url: str) -> Iterator[bytes]:
    """Yield the content of an http(s) URL, an empty piece first.

    Raises PachError if the server cannot be reached or answers with an error, or if its address is not public.
    """
    try:
        parsed = httpx.URL(url)
        if not parsed.host:
            raise PachError(f"error retrieving content from {url!r}: it names no host")
        with _client() as client, client.stream("GET", parsed) as response:
            if response.status_code >= 400:
                raise PachError(
                    f'error retrieving content from "{url}": {response.status_code} {response.reason_phrase}'
                )
            yield b""  # an empty answer is an empty file
            yield from response.iter_bytes(CHUNK)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as err:
        raise PachError(f'error retrieving content from "{url}": {err or type(err).__name__}') from err


def require_allowed(host: str) -> None:
    """Raise PachError unless a host is named in PACHD_URL_HOSTS, or all its addresses are."""
    if not _named(host) and not all(_excepted(each) for each in _resolve(host, None)):
        raise PachError(
            f"pachd does not connect to {host}, as a URL asks for it: name it in PACHD_URL_HOSTS to allow that"
        )


def _client() -> httpx.Client:
    return httpx.Client(
        transport=_Transport(),
        timeout=TIMEOUT,
        follow_redirects=True,
        max_redirects=REDIRECTS,
        headers={"accept-encoding": "identity"},
        trust_env=False,
    )


class _Transport(httpx.HTTPTransport):
    """Connects through the guard, for every redirect anew."""

    def __init__(self) -> None:
        super().__init__(trust_env=False)
        self._pool = httpcore.ConnectionPool(ssl_context=httpx.create_ssl_context(), network_backend=_Guard())


class _Guard(httpcore.SyncBackend):
    """Resolves a name once, checks every address, and connects to one of those: a name cannot change in between."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        name = host.strip("[]")
        found = _resolve(name, port)
        if not _named(name):
            for address in found:
                if not _is_public(address) and not _excepted(address):
                    raise PachError(
                        f"pachd does not fetch from {name}: {address} is no public address; "
                        "name it in PACHD_URL_HOSTS to allow that"
                    )
        error: Exception | None = None
        for address in found:
            try:
                return super().connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as err:
                error = err
        raise error or httpcore.ConnectError(f"{name} has no address")


def _resolve(host: str, port: int | None) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        raise PachError(f"the host {host} cannot be found: {err}") from err
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _exceptions() -> list[str]:
    return [each.strip().lower() for each in os.environ.get("PACHD_URL_HOSTS", "").split(",") if each.strip()]


def _named(host: str) -> bool:
    return host.lower().rstrip(".") in _exceptions()


def _excepted(address: Address) -> bool:
    for each in _exceptions():
        try:
            if address in ipaddress.ip_network(each, strict=False):
                return True
        except (ValueError, TypeError):
            continue
    return False
