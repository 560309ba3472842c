"""Connections to PostgreSQL: one pool for queries, direct connections for LISTEN."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import asyncpg

from jobs.embedded import EmbeddedPostgres, EmbeddedPostgresError
from jobs.errors import DatabaseUnavailable
from jobs.settings import JobSettings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[Any] | PoolConnectionProxy[Any]
    Pool: TypeAlias = asyncpg.Pool[Any]
else:
    Connection: TypeAlias = asyncpg.Connection
    Pool: TypeAlias = asyncpg.Pool

APPLICATION_NAME = "quartapp"

# All that a pooler such as PgBouncer takes at the start of a connection.
PLAIN_SETTINGS = {"application_name": APPLICATION_NAME}

IDLE_TRANSACTION_TIMEOUT = "idle_in_transaction_session_timeout"

# On the server's side of a direct connection, so that locks are released: those of a vanished host,
# and those of a process that stands still (stopped, or its host suspended) within a transaction.
DIRECT_SETTINGS = PLAIN_SETTINGS | {
    IDLE_TRANSACTION_TIMEOUT: "10s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "jit": "off",
}

# What any statement may raise when the database is away, or will not have it.
DATABASE_ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # when a server goes away in the middle of an answer
    TimeoutError,
)
# Of these, what says that the server is away, stops, or has no room; not that a statement is wrong.
AWAY_ERRORS = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
)
# Connecting also reads the address.
CONNECT_ERRORS = (*DATABASE_ERRORS, ValueError)


@asynccontextmanager
async def database_url(settings: JobSettings) -> AsyncIterator[str]:
    """The DSN to use; starts the embedded server for as long as it is used when none is set.

    Raises DatabaseUnavailable when the embedded server cannot start.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    server = EmbeddedPostgres(settings.data_dir)
    try:
        dsn = await asyncio.to_thread(server.start)
    except EmbeddedPostgresError as error:
        raise DatabaseUnavailable(str(error)) from error
    try:
        yield dsn
    finally:
        await asyncio.to_thread(server.stop)


def direct_url(settings: JobSettings, dsn: str) -> str:
    """The DSN for LISTEN: `DATABASE_URL_DIRECT`, else the ordinary one."""
    if settings.database_url_direct is None:
        return dsn
    return settings.database_url_direct.get_secret_value()


@asynccontextmanager
async def open_pool(dsn: str, settings: JobSettings) -> AsyncIterator[Pool]:
    """The query pool. Raises DatabaseUnavailable, in one line, when there is no database."""
    try:
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=settings.database_pool_size,
            timeout=settings.database_timeout_s,
            command_timeout=60,
            max_inactive_connection_lifetime=60,
            statement_cache_size=0 if settings.pooled else 100,
            server_settings=PLAIN_SETTINGS if settings.pooled else DIRECT_SETTINGS,
            reset=_nothing_to_reset,
        )
    except CONNECT_ERRORS as error:
        raise DatabaseUnavailable(unreachable(dsn, error)) from error
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), timeout=2)
        except TimeoutError:
            pool.terminate()


async def _nothing_to_reset(_: asyncpg.Connection[Any]) -> None:
    """No statement here leaves a session anything to clean, and asking costs a round trip each."""


@asynccontextmanager
async def connection_within(pool: Pool, timeout_s: float) -> AsyncIterator[Connection]:
    """A connection of the pool for at most so long, what is done with it included. One that has not
    answered by then is dropped: to wait until its query is cancelled would have no bound.

    Raises TimeoutError, and what the database raises.
    """
    async with asyncio.timeout(timeout_s):
        connection = await pool.acquire()
        try:
            yield connection
        except asyncio.CancelledError:
            connection.terminate()
            raise
        finally:
            await pool.release(connection)


@asynccontextmanager
async def open_connection(dsn: str, timeout_s: float = 10) -> AsyncIterator[Connection]:
    """One connection. Raises DatabaseUnavailable when there is no database."""
    try:
        connection = await asyncpg.connect(dsn, timeout=timeout_s, server_settings=DIRECT_SETTINGS)
    except CONNECT_ERRORS as error:
        raise DatabaseUnavailable(unreachable(dsn, error)) from error
    try:
        yield connection
    finally:
        try:
            await connection.close(timeout=2)
        except DATABASE_ERRORS:
            connection.terminate()


def unreachable(dsn: str, error: BaseException) -> str:
    """One line that says which database refused and why, without the password."""
    match error:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            reason = "the user name or password is wrong"
        case asyncpg.InvalidCatalogNameError():
            reason = "there is no database of that name on the server"
        case asyncpg.ProtocolViolationError() if "startup parameter" in str(error):
            reason = "this is a pooler; set DATABASE_URL_DIRECT to the database itself as well"
        case TimeoutError():
            reason = "no answer in time"
        case ssl.SSLError():
            reason = "the encrypted connection failed"
        case ValueError():
            reason = "the address cannot be read; special characters in it must be %-escaped"
        case OSError():
            reason = error.strerror or str(error) or "no connection"
        case _:
            reason = str(error) or type(error).__name__
    first_line = reason.strip().splitlines()[0] if reason.strip() else "unknown reason"
    return f"Cannot use the database {location(dsn)}: {first_line} (check DATABASE_URL)"


def location(dsn: str) -> str:
    """`host:port/name` of a DSN, safe to print; passwords never appear."""
    try:
        parts = urlsplit(dsn)
        host = parts.hostname or parse_qs(parts.query).get("host", ["localhost"])[0]
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(unreadable address)"
    if parts.scheme not in {"postgres", "postgresql"}:
        return "(not a postgresql:// address)"
    if "@" in parts.path:  # a password with a slash that was not escaped
        return "(unreadable address)"
    return f"{host}{port}/{parts.path.lstrip('/')}"
