"""TLS for the server, by certificate files."""

import ssl
from pathlib import Path


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """Return what the server encrypts with: TLS 1.2 or newer, HTTP/2.

    :param cert: PEM file with the certificate, followed by those that vouch for it.
    :param key: PEM file with its private key, not encrypted.
    :raises ValueError: the files cannot be used; the sentence says which and why.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    for file in (cert, key):
        try:
            file.read_bytes()
        except OSError as error:
            raise ValueError(f"{file} cannot be read: {error.strerror or error}") from None
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise ValueError(f"{cert} and {key} are no certificate and private key that fit together: {reason}") from None
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted, and nobody is here to give its password")
