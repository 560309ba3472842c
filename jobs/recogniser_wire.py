"""The frames that the two ends of a recogniser exchange over pipes.

A frame is an 8-byte prefix (length of the header, length of the body; unsigned, big-endian), a JSON
object and raw bytes. Pure: bytes in, values out. `AudioInfo` lives here because both ends speak of
it and only one of them may load a decoder.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

PREFIX_BYTES = 8
MAX_HEADER_BYTES = 1024 * 1024
MAX_BODY_BYTES = 4 * 1024 * 1024

_PREFIX = struct.Struct(">II")


class WireError(ValueError):
    """The bytes are not a frame of this protocol, or a value does not fit one."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a recording says of itself; `duration_s` is None when it says nothing credible."""

    duration_s: float | None
    container: str
    codec: str
    sample_rate_hz: int
    channels: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: what it is, its JSON fields, and bytes that are not JSON."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""


def encode(frame: Frame) -> bytes:
    """The bytes of one frame; WireError when it is too long or holds what JSON does not."""
    try:
        header = json.dumps([frame.kind, dict(frame.fields)], allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise WireError(
            f"a {frame.kind} frame holds a value that JSON does not: {error}"
        ) from error
    _check_lengths(len(header), len(frame.body))
    return _PREFIX.pack(len(header), len(frame.body)) + header + frame.body


def lengths(prefix: bytes) -> tuple[int, int]:
    """Length of header and body in bytes, from the `PREFIX_BYTES` that precede them."""
    if len(prefix) != PREFIX_BYTES:
        raise WireError(f"a prefix has {PREFIX_BYTES} bytes, not {len(prefix)}")
    header_bytes, body_bytes = _PREFIX.unpack(prefix)
    _check_lengths(header_bytes, body_bytes)
    return header_bytes, body_bytes


def decode(header: bytes, body: bytes) -> Frame:
    """The frame of a header and a body; WireError when the header is not one."""
    try:
        parts = json.loads(header, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise WireError("the header is not JSON") from error
    match parts:
        case [str() as kind, dict() as fields]:
            return Frame(kind, fields, body)
        case _:
            raise WireError("the header is not a kind and its fields")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _check_lengths(header_bytes: int, body_bytes: int) -> None:
    if header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
        raise WireError(f"a frame of {header_bytes} + {body_bytes} bytes is too long")
