"""An S3 server of the tests' own: moto's, as a process."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.processes import free_port

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "key-of-the-tests", "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests"}


class Bucket:
    """A server with one bucket, `data`; `kill` and `start` it at will (what was in it is gone then)."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.url = "s3://data/some/prefix"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT},
        )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(Exception):
                self.client().create_bucket(Bucket="data")
                return
            time.sleep(0.1)
        raise AssertionError("moto's server did not start")

    def client(self):  # type: ignore[no-untyped-def]
        """boto3's client: what another program sees in the bucket."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
            config=Config(connect_timeout=2, read_timeout=10, retries={"max_attempts": 0}),
        )

    def objects(self) -> dict[str, int]:
        """{key: bytes} of everything in the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket="data")
        return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", ())}

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)


@contextlib.contextmanager
def running() -> Iterator[Bucket]:
    bucket = Bucket()
    try:
        bucket.start()
        yield bucket
    finally:
        bucket.kill()
