"""`quartapp serve`: hypercorn in our hands, so that stopping has an order.

SIGTERM → not ready → streams told and ended → hypercorn closes → the running job given back →
pools closed. Hypercorn's own lifespan shutdown comes after its wait for open connections, which on
Python 3.12 and later may never end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config

from quartapp.app import asgi_app, create_app
from quartapp.runtime import running_base, running_recovery, running_services, running_worker
from quartapp.services import Services
from quartapp.settings import WebSettings
from quartapp.sockets import address, bind, raise_descriptor_limit

log = structlog.get_logger()

BACKLOG = 1024
GRACEFUL_TIMEOUT_S = 2.0
KEEP_ALIVE_S = 75  # longer than the idle time of the proxies in front
SERVER_STOP_S = 5.0
# A database that takes questions and gives no answers can hold up the end of anything.
STOP_DEADLINE_S = 9.0
# After so many, hypercorn ends an HTTP/2 connection in a way that mutes the streams on it.
KEEP_ALIVE_REQUESTS = 1_000_000_000

GC_THRESHOLDS = (3000, 10, 5)
WEBSOCKET_PING_S = 20.0
# Clients have nothing to say on a WebSocket.
WEBSOCKET_MESSAGE_BYTES = 4096

Ready = Callable[[str, Services, str], Awaitable[None]]


async def serve(settings: WebSettings, ready: Ready, stop: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM or SIGINT (or `stop`). `ready` is called with the address, the services,
    and the engine in use, once requests are accepted.

    Raises CannotListen, DatabaseUnavailable, SettingsError, EngineUnavailableError.
    """
    settings.signing_key()
    stop = stop or asyncio.Event()
    listening = bind(
        settings.bind_host, settings.port, write_timeout_s=settings.stream_write_timeout_s
    )
    raise_descriptor_limit()
    async with AsyncExitStack() as stack:
        stack.callback(listening.close)
        stack.enter_context(stopping_signals(stop))
        base = await stack.enter_async_context(running_base(settings))
        await stack.enter_async_context(running_recovery(base, settings))
        engine = "none"
        if settings.role == "all" and settings.job_slots:
            engine = await stack.enter_async_context(running_worker(base, settings))
        services = await stack.enter_async_context(running_services(base, settings))
        where = address(listening)
        await stack.enter_async_context(_listening(services, listening, stop))
        settle_memory()
        await ready(where, services, engine)
        await stop.wait()
        log.info("stopping")


def server_config(listening: socket.socket) -> Config:
    """How hypercorn serves; the socket is its own from here on."""
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.backlog = BACKLOG
    config.graceful_timeout = GRACEFUL_TIMEOUT_S
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = KEEP_ALIVE_REQUESTS
    config.include_server_header = False
    config.websocket_ping_interval = WEBSOCKET_PING_S
    config.websocket_max_message_size = WEBSOCKET_MESSAGE_BYTES
    config.accesslog = None
    config.errorlog = None
    return config


def settle_memory() -> None:
    """What is there at the start stays, and need not be looked through for garbage again; and the
    many small objects of a stream are no reason to look each time a few hundred more are made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


@asynccontextmanager
async def _listening(
    services: Services, listening: socket.socket, stop: asyncio.Event
) -> AsyncIterator[None]:
    config = server_config(listening)
    app = create_app(services)

    async def stopped() -> None:
        await stop.wait()
        services.drain.set()

    server = asyncio.create_task(
        hypercorn_serve(asgi_app(app), config, shutdown_trigger=stopped, mode="asgi"),
        name="hypercorn",
    )
    server.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        stop.set()
        _, late = await asyncio.wait([server], timeout=SERVER_STOP_S)
        for task in late:
            log.warning("connections_cut")
            task.cancel()
        await asyncio.wait([server], timeout=1)
    if not server.cancelled() and server.done() and server.exception() is not None:
        raise server.exception()  # type: ignore[misc]


class stopping_signals:
    """SIGTERM, SIGINT and SIGHUP set the event; a second one ends the process at once, and so does
    `STOP_DEADLINE_S`: work that could not be handed on by then is found by its lease."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        for number in self.SIGNALS:
            self._loop.add_signal_handler(number, self._received, number)

    def __exit__(self, *_: object) -> None:
        for number in self.SIGNALS:
            self._loop.remove_signal_handler(number)

    def _received(self, number: int) -> None:
        if self._stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._stop.set()
        # Not taken back at the end of the block: after it, the loop still waits for what is left.
        self._loop.call_later(STOP_DEADLINE_S, _cut_short)


def _cut_short() -> None:
    held_up = sorted(task.get_name() for task in asyncio.all_tasks())
    log.warning("stop_cut_short", after_s=STOP_DEADLINE_S, held_up=held_up)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
