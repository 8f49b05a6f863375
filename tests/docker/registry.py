"""A registry of images on loopback with one small image, for whoever knows the password."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, TAG = "team/tools", "3"
USER, PASSWORD = "puller", "pull-secret"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """Docker's registry API (v2), as far as a pull needs it. ``fill`` puts the image's files into a tar file."""

    def __init__(self, fill: Callable[[tarfile.TarFile], None]) -> None:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            fill(tar)
        layer = gzip.compress(raw.getvalue(), 1)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": ["PATH=/bin", "OF_IMAGE=pulled"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(raw.getvalue())]},
            }
        ).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _described("application/vnd.docker.container.image.v1+json", config),
            "layers": [_described("application/vnd.docker.image.rootfs.diff.tar.gzip", layer)],
        }
        self.manifest = json.dumps(manifest).encode()
        self.blobs = {_digest(blob): blob for blob in (layer, config)}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.image = f"127.0.0.1:{self.server.server_port}/{NAME}:{TAG}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def login(self) -> str:
        """The file that `docker login` would write."""
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return json.dumps({"auths": {self.image.split("/")[0]: {"auth": auth}}})

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self
        known = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                manifests = [f"/v2/{NAME}/manifests/{end}" for end in (TAG, _digest(registry.manifest))]
                blobs = {f"/v2/{NAME}/blobs/{digest}": blob for digest, blob in registry.blobs.items()}
                if self.headers.get("Authorization") != known:
                    self._answer(401, b"{}", "application/json", {"WWW-Authenticate": 'Basic realm="test"'})
                elif self.path == "/v2/":
                    self._answer(200, b"{}", "application/json")
                elif self.path in manifests:
                    digest = {"Docker-Content-Digest": _digest(registry.manifest)}
                    self._answer(200, registry.manifest, _MANIFEST, digest)
                elif self.path in blobs:
                    self._answer(200, blobs[self.path], "application/octet-stream")
                else:
                    self._answer(404, b"{}", "application/json")

            do_HEAD = do_GET

            def _answer(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
                self.send_response(status)
                headers = {"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})}
                for name, value in {**headers, "Docker-Distribution-Api-Version": "registry/2.0"}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *parts: object) -> None:
                pass

        return Handler


def _described(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(data), "digest": _digest(data)}
