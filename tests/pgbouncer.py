"""A real PgBouncer in transaction mode, as platforms put it before their databases."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tests.net import free_port

UNPRIVILEGED = "nobody"  # PgBouncer refuses to be root
START_TIMEOUT_S = 20

CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 200
default_pool_size = 10
ignore_startup_parameters = {ignored}
"""


@dataclass(frozen=True)
class PgBouncer:
    """One that runs; `dsn` leads through it."""

    dsn: str
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()


@contextmanager
def pgbouncer(dsn: str, *, ignored: Sequence[str] = ()) -> Iterator[PgBouncer]:
    """A pooler before the server of this database, for as long as it is used. It refuses clients
    that set anything at their start but what it knows, and what is `ignored`."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "pgbouncer is not installed; scripts/test does it"
    target, port = urlsplit(dsn), free_port()
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": UNPRIVILEGED, "extra_groups": []}
    with TemporaryDirectory(prefix="quartapp-pgbouncer-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        configuration, log_path = directory / "pgbouncer.ini", directory / "log"
        configuration.write_text(
            CONFIGURATION.format(
                host=target.hostname,
                port=target.port,
                user=target.username,
                listen_port=port,
                ignored=", ".join(("extra_float_digits", *ignored)),
            )
        )
        with log_path.open("w") as log:
            process = subprocess.Popen(
                [program, str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **identity,
            )
        try:
            _await_port(port, process, log_path)
            through = target._replace(netloc=f"{target.username}@127.0.0.1:{port}")
            yield PgBouncer(urlunsplit(through), log_path)
        finally:
            process.kill()
            process.wait()


def _await_port(port: int, process: subprocess.Popen[bytes], log_path: Path) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None and time.monotonic() < give_up_at, log_path.read_text()
        time.sleep(0.02)
