"""One connection that hears all its channels through one function.

asyncpg's own `add_listener` wants one round trip and one registration for each channel: seconds for
a few thousand. Everything that reaches past asyncpg's public interface is in this class, and
tests/integration/test_listener.py holds it to the installed release.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from quartapp.sockets import keep_alive

if TYPE_CHECKING:
    _Connection: TypeAlias = asyncpg.Connection[Any]
else:
    _Connection: TypeAlias = asyncpg.Connection

APPLICATION_NAME = "quartapp-listen"

KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
UNACKNOWLEDGED_S = 10

# Set after connecting and not as start-up parameters, which poolers refuse: it must get as far as
# the delivery probe, which then says what is wrong.
SERVER_KEEPALIVE = (
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
)

OnNotification: TypeAlias = Callable[[str, str], None]


class ListenConnection(_Connection):
    """A connection on which any notification reaches `on_notification(channel, payload)`."""

    __slots__ = ("on_notification",)

    on_notification: OnNotification

    def _process_notification(self, pid: int, channel: str, payload: str) -> None:
        # asyncpg calls this for each NotificationResponse, inside its parser: hence not at once.
        asyncio.get_running_loop().call_soon(self.on_notification, channel, payload)

    def keep_alive(self) -> None:
        """Have the kernel notice a dead peer, also one that takes bytes and acknowledges none."""
        peer = self._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        if peer is None or peer.family not in {socket.AF_INET, socket.AF_INET6}:
            return
        keep_alive(
            peer,
            idle_s=KEEPALIVE_IDLE_S,
            interval_s=KEEPALIVE_INTERVAL_S,
            count=KEEPALIVE_COUNT,
            unacknowledged_s=UNACKNOWLEDGED_S,
        )


async def connect_listening(
    dsn: str, *, on_notification: OnNotification, on_end: Callable[[], None], timeout_s: float
) -> ListenConnection:
    """A connection ready for LISTEN. `on_end` is called when it ends, however that comes.

    Raises what asyncpg.connect raises.
    """
    connection = await asyncpg.connect(
        dsn,
        timeout=timeout_s,
        command_timeout=timeout_s,
        statement_cache_size=0,
        connection_class=ListenConnection,
        server_settings={"application_name": APPLICATION_NAME},
    )
    connection.on_notification = on_notification
    connection.add_termination_listener(lambda _: on_end())
    try:
        connection.keep_alive()
        await connection.execute(SERVER_KEEPALIVE)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def listen(connection: ListenConnection, channels: list[str]) -> None:
    """Hear these channels, in one round trip. Returns once the server has confirmed them all."""
    await connection.execute("; ".join(f"LISTEN {_quoted(channel)}" for channel in channels))


async def unlisten(connection: ListenConnection, channels: list[str]) -> None:
    """Hear these channels no more, in one round trip."""
    await connection.execute("; ".join(f"UNLISTEN {_quoted(channel)}" for channel in channels))


def _quoted(channel: str) -> str:
    return '"' + channel.replace('"', '""') + '"'
