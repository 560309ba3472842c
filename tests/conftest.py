"""Real parts for every test: a PostgreSQL server for the run, a database for each test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import hypothesis
import psycopg
import pytest
from pydantic import SecretStr

from jobs.database import Pool, open_pool
from jobs.embedded import EmbeddedPostgres
from jobs.migrate import migrate
from quartapp.settings import WebSettings
from tests.net import free_port
from tests.product import Product

TEMPLATE = "template_quartapp"

# Which engine `auto` takes must not depend on the models that somebody has on this machine.
os.environ["HF_HUB_CACHE"] = os.devnull

# Nor may an example be called wrong because the machine was busy with something else.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """A server for the whole run: any database's DSN on it, with `{}` for the name."""
    port = free_port()
    # Not among pytest's own directories: a later run deletes those of the runs before it.
    with TemporaryDirectory(prefix="quartapp-tests-") as directory:
        server = EmbeddedPostgres(Path(directory))
        server.start(tcp_port=port)
        yield f"postgresql://quartapp@127.0.0.1:{port}/{{}}"
        server.stop()


@pytest.fixture(scope="session")
def template(server_dsn: str) -> str:
    """A migrated database to copy."""
    with psycopg.connect(server_dsn.format("postgres"), autocommit=True) as connection:
        # No test cuts the power, and a database for each test is a lot of flushing.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    asyncio.run(migrate(server_dsn.format(TEMPLATE)))
    return TEMPLATE


def make_database(server_dsn: str, template: str) -> Iterator[str]:
    """A copy of the template, dropped afterwards whoever still uses it."""
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(server_dsn.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield server_dsn.format(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def dsn(server_dsn: str, template: str) -> Iterator[str]:
    """A fresh, migrated database."""
    yield from make_database(server_dsn, template)


@pytest.fixture
def empty_dsn(server_dsn: str) -> Iterator[str]:
    """A fresh database with nothing in it."""
    yield from make_database(server_dsn, "template0")


@pytest.fixture
def settings(dsn: str, tmp_path: Path) -> WebSettings:
    """Settings over that database."""
    return WebSettings(
        database_url=SecretStr(dsn),
        secret_key=SecretStr("a secret for tests and nothing else"),
        data_dir=tmp_path,
    )


@pytest.fixture
async def pool(dsn: str, settings: WebSettings) -> AsyncIterator[Pool]:
    async with open_pool(dsn, settings) as pool:
        yield pool


@pytest.fixture(scope="session")
def product(
    server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Product]:
    """The product in its default setting, shared by the tests that only use it."""
    for dsn in make_database(server_dsn, template):
        running = Product(dsn, tmp_path_factory.mktemp("product")).start()
        yield running
        running.stop()
