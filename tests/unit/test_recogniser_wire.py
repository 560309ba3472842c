"""The frames between a recogniser's two ends."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.recogniser_wire import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    PREFIX_BYTES,
    Frame,
    WireError,
    decode,
    encode,
    lengths,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
frames = st.builds(
    Frame,
    kind=st.text(),
    fields=st.dictionaries(st.text(), json_values, max_size=5),
    body=st.binary(max_size=2000),
)


def read_all(data: bytes) -> list[Frame]:
    found = []
    while data:
        header_bytes, body_bytes = lengths(data[:PREFIX_BYTES])
        header_end = PREFIX_BYTES + header_bytes
        body_end = header_end + body_bytes
        found.append(decode(data[PREFIX_BYTES:header_end], data[header_end:body_end]))
        data = data[body_end:]
    return found


@given(st.lists(frames, max_size=5))
def test_frames_survive_the_way(sent: list[Frame]) -> None:
    assert read_all(b"".join(encode(frame) for frame in sent)) == sent


def test_bytes_of_a_frame_are_fixed() -> None:
    frame = Frame("read", {"offset": 0}, b"\x00\xff")
    assert encode(frame) == b'\x00\x00\x00\x17\x00\x00\x00\x02["read", {"offset": 0}]\x00\xff'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", object()])
def test_value_that_json_does_not_hold_is_refused(value: object) -> None:
    with pytest.raises(WireError):
        encode(Frame("chunk", {"value": value}))


def test_frame_that_is_too_long_is_refused_by_both_ends() -> None:
    with pytest.raises(WireError, match="too long"):
        encode(Frame("data", body=bytes(MAX_BODY_BYTES + 1)))
    with pytest.raises(WireError, match="too long"):
        lengths(struct.pack(">II", MAX_HEADER_BYTES + 1, 0))
    with pytest.raises(WireError, match="too long"):
        lengths(struct.pack(">II", 2, MAX_BODY_BYTES + 1))


@pytest.mark.parametrize("prefix", [b"", b"\x00" * 7, b"\x00" * 9])
def test_prefix_of_another_length_is_refused(prefix: bytes) -> None:
    with pytest.raises(WireError, match="prefix"):
        lengths(prefix)


@pytest.mark.parametrize(
    "header",
    [b"", b"nonsense", b"{}", b'["kind"]', b"[1, {}]", b'["kind", []]', b'["a", {}, 1]', b"\xff"],
)
def test_header_that_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(WireError, match="header"):
        decode(header, b"")


@given(st.binary(max_size=200))
def test_any_header_gives_a_frame_or_the_one_error(header: bytes) -> None:
    with suppress(WireError):
        decode(header, b"")
