"""Several processes of the product over one database, each to be killed, stopped and started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests import clips
from tests.history import until
from tests.product import Product
from tests.sessions import SESSIONS, address, upload

WORKER = ("worker",)
SERVE = ("serve", "--host", "127.0.0.1", "--port", "0")


@dataclass
class Stage:
    """One site, one worker, somebody who uploads, and two recordings."""

    web: Product
    worker: Product
    client: httpx.Client
    minute: bytes
    moment: bytes

    @property
    def dsn(self) -> str:
        return self.web.dsn

    def upload(self, recording: bytes) -> str:
        """Its session."""
        answer = upload(self.client, recording)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def cancel(self, session_id: str) -> httpx.Response:
        return self.client.post(f"{SESSIONS}/{session_id}/cancel")

    def delete(self, session_id: str) -> httpx.Response:
        return self.client.delete(f"{SESSIONS}/{session_id}")

    def child(self) -> psutil.Process:
        """The worker's child, whether it has loaded its model or not."""
        return until(self.worker.recognisers, bool)[0]


@contextmanager
def stage_of(dsn: str, directory: Path, environment: Mapping[str, str]) -> Iterator[Stage]:
    """A stage with a fresh database; nothing of it is left afterwards."""
    with (
        fleet(dsn, directory, environment, webs=1, workers=1) as ([web], [worker]),
        web.client(address()) as client,
    ):
        minute = clips.speech(clips.LONG_TEXT, directory)
        yield Stage(web, worker, client, minute, clips.speech("Hello.", directory))


@contextmanager
def fleet(
    dsn: str,
    directory: Path,
    environment: Mapping[str, str],
    *,
    webs: int,
    workers: int,
) -> Iterator[tuple[list[Product], list[Product]]]:
    """So many serving and so many transcribing processes, all ready; none is left afterwards."""
    made = [
        _product(dsn, directory / name, environment, arguments)
        for names, arguments in (
            ([f"web{number}" for number in range(webs)], SERVE),
            ([f"worker{number}" for number in range(workers)], WORKER),
        )
        for name in names
    ]
    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(Product.start, made))
        yield made[:webs], made[webs:]
    finally:
        for product in made:
            product.end()


def _product(
    dsn: str, directory: Path, environment: Mapping[str, str], arguments: tuple[str, ...]
) -> Product:
    directory.mkdir(parents=True)
    role = {"QUARTAPP_ROLE": "web"} if arguments is SERVE else {}
    return Product(dsn, directory, {**role, **environment}, arguments)
