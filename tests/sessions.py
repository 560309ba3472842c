"""What every test of sessions does: upload, wait, and name people."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx

SESSIONS = "/api/v1/sessions"
TERMINAL = {"completed", "failed", "cancelled"}


def address() -> str:
    """An e-mail address nobody has."""
    return f"{uuid4().hex[:12]}@example.com"


def upload(
    client: httpx.Client, data: bytes, name: str = "clip.wav", **more: Any
) -> httpx.Response:
    """Post a recording; further arguments are form fields, or `headers`."""
    headers = more.pop("headers", {})
    return client.post(SESSIONS, files={"file": (name, data)}, data=more, headers=headers)


@contextmanager
def upload_begun(
    url: str, authorization: str, announced_bytes: int, sent: bytes | None = None
) -> Iterator[socket.socket]:
    """The wire of an upload that announces so many bytes, and has sent the head of its form and
    `sent` of the recording, or nothing of the body yet."""
    host, _, port = url.removeprefix("http://").partition(":")
    head = (
        f"POST {SESSIONS} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {announced_bytes}\r\n\r\n"
    ).encode()
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        wire.sendall(head if sent is None else head + part + sent)
        yield wire


def finished(client: httpx.Client, session_id: str, within_s: float = 90) -> dict[str, Any]:
    """The session once it is over."""
    deadline = time.monotonic() + within_s
    while True:
        session: dict[str, Any] = client.get(f"{SESSIONS}/{session_id}").json()
        if session["status"] in TERMINAL:
            return session
        assert time.monotonic() < deadline, f"not over in time: {session}"
        time.sleep(0.1)
