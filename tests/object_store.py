"""An object store that speaks S3, in a process of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import httpx

from tests.faults import RefusingWire, StrandingWire
from tests.net import free_port

TIMEOUT_S = 60


class StoreWire(RefusingWire, StrandingWire):
    """A wire in front of the store."""

    def __init__(self, store: S3) -> None:
        super().__init__(store.url.replace("//", "//any@"))

    @property
    def url(self) -> str:
        return self.dsn.replace("any@", "").removesuffix("?sslmode=disable")


@dataclass(frozen=True)
class S3:
    """One such server, with a bucket for whoever asks."""

    url: str

    def environment(self, url: str | None = None) -> dict[str, str]:
        """What the product must be told; `url` when it goes another way."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "a-key-of-tests",
            "AWS_SECRET_ACCESS_KEY": "a secret of tests",
        }

    def bucket(self) -> str:
        """A new, empty one."""
        name = f"bucket-{uuid4().hex[:12]}"
        httpx.put(f"{self.url}/{name}", timeout=TIMEOUT_S).raise_for_status()
        return name

    def keys(self, bucket: str) -> list[str]:
        """Of all objects there are."""
        return self._listed(bucket, "list-type=2", "Key")

    def uploads(self, bucket: str) -> list[str]:
        """Of all objects that have parts, but were never finished."""
        return self._listed(bucket, "uploads", "Key")

    def put(self, bucket: str, key: str, data: bytes) -> None:
        httpx.put(f"{self.url}/{bucket}/{key}", content=data, timeout=TIMEOUT_S).raise_for_status()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """No key is good any more."""
        self._check_keys(after="0")
        try:
            yield
        finally:
            self._check_keys(after="inf")

    def _check_keys(self, after: str) -> None:
        httpx.post(
            f"{self.url}/moto-api/reset-auth", content=after, timeout=TIMEOUT_S
        ).raise_for_status()

    def _listed(self, bucket: str, query: str, element: str) -> list[str]:
        answer = httpx.get(f"{self.url}/{bucket}?{query}", timeout=TIMEOUT_S).raise_for_status()
        return re.findall(f"<{element}>([^<]+)</{element}>", answer.text)


@contextmanager
def running_s3() -> Iterator[S3]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await(process, port)
        yield S3(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        assert process.poll() is None, "the object store ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the object store does not start"
            time.sleep(0.05)
