"""The listening socket, and what its connections inherit from it."""

from __future__ import annotations

import resource
import socket
from contextlib import suppress

KIB = 1024

KEEPALIVE_IDLE_S = 30
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_COUNT = 3
# The kernel would take megabytes for a client that does not read; the table keeps them better.
UNSENT_BYTES = 32 * KIB


def keep_alive(
    of: socket.socket, *, idle_s: int, interval_s: int, count: int, unacknowledged_s: float
) -> None:
    """Have the kernel notice a dead peer on a TCP socket: one that is silent for `idle_s` and then
    answers none of `count` probes, and one that acknowledges nothing it is sent."""
    of.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", idle_s),
        ("TCP_KEEPINTVL", interval_s),
        ("TCP_KEEPCNT", count),
        ("TCP_USER_TIMEOUT", round(1000 * unacknowledged_s)),
    ):
        set_if_known(of, option, value)


def set_if_known(of: socket.socket, option: str, value: int) -> None:
    """Set a TCP option by name; not every system has every one."""
    if hasattr(socket, option):
        of.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class CannotListen(Exception):
    """The address or the port cannot be had; the message is one line."""


def bind(host: str, port: int, *, write_timeout_s: float) -> socket.socket:
    """A bound socket. A client that acknowledges nothing for `write_timeout_s`, or keeps its window
    shut for so long, is given up by the kernel.

    Raises CannotListen when the port is taken or the address is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keep_alive(
        listening,
        idle_s=KEEPALIVE_IDLE_S,
        interval_s=KEEPALIVE_INTERVAL_S,
        count=KEEPALIVE_COUNT,
        unacknowledged_s=write_timeout_s,
    )
    set_if_known(listening, "TCP_NOTSENT_LOWAT", UNSENT_BYTES)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise CannotListen(f"Cannot listen on {host}:{port}: {error.strerror}") from error
    listening.setblocking(False)
    return listening


def address(listening: socket.socket) -> str:
    """`http://host:port` as somebody on this machine reaches it."""
    host, port = listening.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def raise_descriptor_limit() -> None:
    """As many open connections as the system lets us have; many systems begin at 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
