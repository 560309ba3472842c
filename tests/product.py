"""The product as a user starts it: `quartapp serve` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import psycopg

from quartapp.passwords import _hasher

READY = re.compile(r"quartapp is ready at (https?://\S+)")
START_TIMEOUT_S = 60
PASSWORD = "correct horse battery"


@dataclass
class Product:
    """One serving process on a free port of 127.0.0.1, over one database."""

    dsn: str
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("serve", "--host", "127.0.0.1", "--port", "0")
    url: str = ""
    announced: str = "http://"
    process: subprocess.Popen[str] = field(init=False)
    _ready: bool = False
    _lines: list[str] = field(default_factory=list)
    _errors: list[str] = field(default_factory=list)
    _readers: list[threading.Thread] = field(default_factory=list)

    def start(self) -> Product:
        """Start it and wait until it says that it is ready."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quartapp", *self.arguments],
            env=self._environment(),
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._ready = False
        self._lines.clear()
        self._readers.clear()
        ready = threading.Event()
        for stream, kept in (
            (self.process.stdout, self._lines),
            (self.process.stderr, self._errors),
        ):
            reader = threading.Thread(target=self._follow, args=(stream, kept, ready), daemon=True)
            reader.start()
            self._readers.append(reader)
        ready.wait(START_TIMEOUT_S)
        if not self._ready:
            self.kill()
            raise AssertionError(f"did not start:\n{self.log}")
        return self

    @property
    def log(self) -> str:
        """All that was written to standard error."""
        return "\n".join(self._errors)

    @property
    def output(self) -> str:
        """All that was written to standard output since the last start."""
        return "\n".join(self._lines)

    def stop(self, timeout_s: float = 15) -> int:
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._close()
        return code

    def kill(self) -> None:
        """SIGKILL to the process and all it started."""
        children = []
        if self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        self._close()

    def crash(self) -> None:
        """SIGKILL to the process alone, as an operator or the kernel would."""
        self.process.kill()
        self.process.wait()
        self._close()

    def end(self) -> None:
        """Leave nothing of it, in whatever state it is; for the end of a test."""
        process = getattr(self, "process", None)
        if process is not None and not process.stdout.closed:
            self.kill()

    def freeze(self) -> None:
        """SIGSTOP to the process alone; returns once it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        _until_stopped(self.process.pid)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def recognisers(self) -> list[psutil.Process]:
        """The children that recognise speech, whatever they do just now."""
        found = psutil.Process(self.process.pid).children()
        return [child for child in found if _recognises(child)]

    def said(self, event: str) -> list[dict[str, Any]]:
        """What its log says of one kind of event, oldest first, over all its starts."""
        lines = (line for line in tuple(self._errors) if f'"{event}"' in line)
        return [entry for line in lines if (entry := json.loads(line))["event"] == event]

    def _close(self) -> None:
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def create_user(self, email: str, password: str = PASSWORD, role: str = "patient") -> UUID:
        """An account, straight into the database."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            row = connection.execute(
                "INSERT INTO users (email, password_hash, role) VALUES (%s, %s, %s) RETURNING id",
                (email, _hasher.hash(password), role),
            ).fetchone()
        assert row is not None
        return UUID(str(row[0]))

    def sign_in(self, email: str, password: str = PASSWORD) -> str:
        """A bearer token."""
        answer = httpx.post(
            f"{self.url}/api/v1/auth/login", json={"email": email, "password": password}
        )
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["token"]
        return token

    def client(self, email: str, role: str = "patient", **options: Any) -> httpx.Client:
        """A client signed in to a new account of that address."""
        self.create_user(email, role=role)
        headers = {"Authorization": f"Bearer {self.sign_in(email)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **options)

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What the database says."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(query, parameters).fetchall()

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("QUARTAPP_", "DATABASE_URL")) and name not in {"PORT", "HOST"}
        }
        return {
            **kept,
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
            "DATABASE_URL": self.dsn,
            "SECRET_KEY": "a secret for tests and nothing else",
            **self.environment,
        }

    def _follow(self, stream: Any, kept: list[str], ready: threading.Event) -> None:
        for line in stream:
            kept.append(line.rstrip("\n"))
            if (found := READY.search(line)) and found[1].startswith(self.announced):
                self.url = found[1]
                self._ready = True
                ready.set()
            elif "worker is ready" in line:
                self._ready = True
                ready.set()
        if kept is self._lines:
            ready.set()


def _recognises(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return "jobs.recogniser_child" in process.cmdline()
    return False


def _until_stopped(pid: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, f"process {pid} does not stop"
        time.sleep(0.001)
