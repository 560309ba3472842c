"""A run that resumes decodes from near its place on, and has the samples of one from the start."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import av
import numpy as np
import pytest

from jobs.audio import SAMPLE_RATE_HZ, Recording, Samples
from jobs.chunking import LOOKAHEAD_S, chunk_length
from jobs.decoding import RENEWAL_S, WARM_UP_S
from tests import clips

DURATION_S = 70
RESUME_S = (17.5, 65.003)


@dataclass(frozen=True)
class Form:
    """A way to write a recording."""

    container: str
    codec: str
    rate_hz: int
    channels: int = 1
    live: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


COUNTED = {
    "mp3 of few bits": Form("mp3", "libmp3lame", 8_000, options={"b": "8000"}),
    "mp3": Form("mp3", "libmp3lame", 44_100, 2, options={"b": "128000"}),
    "mp3 of varying rate": Form(
        "mp3", "libmp3lame", 22_050, options={"flags": "+qscale", "global_quality": "472"}
    ),
    "m4a": Form("ipod", "aac", 22_050, options={"b": "24000"}),
    "aac": Form("adts", "aac", 48_000, options={"b": "48000"}),
    "matroska": Form("matroska", "aac", 44_100),
    "ogg": Form("ogg", "libopus", 48_000, options={"b": "16000", "application": "voip"}),
    "ogg vorbis": Form("ogg", "vorbis", 44_100, 2, options={"strict": "experimental"}),
    "webm of a browser": Form("webm", "libopus", 48_000, 2, live=True, options={"b": "32000"}),
    "webm of long packets": Form(
        "webm", "libopus", 48_000, live=True, options={"frame_duration": "60"}
    ),
    "amr": Form("amr", "libopencore_amrnb", 8_000),
    "alac": Form("ipod", "alac", 44_100),
}


def sound(duration_s: float = DURATION_S) -> Samples:
    """A tone in noise: AAC keeps the level of noise alone, and its decoder makes up the rest."""
    tone = clips.tone(duration_s)
    noise = np.random.default_rng(7).normal(0, 800, len(tone))
    return (tone * 0.7 + noise).astype(np.int16)


def written(form: Form, samples: Samples) -> bytes:
    return clips.encoded(
        samples,
        form.container,
        form.codec,
        sample_rate_hz=form.rate_hz,
        channels=form.channels,
        live=form.live,
        options=form.options,
    )


@pytest.fixture(scope="module")
def samples() -> Samples:
    return sound()


@dataclass(frozen=True)
class Decoded:
    samples: Samples
    end: int
    packets: int
    skipped: int


def decoded(data: bytes, start: int = 0) -> Decoded:
    with Recording(io.BytesIO(data)) as recording:
        blocks = list(recording.samples(start))
        return Decoded(
            np.concatenate([np.zeros(0, np.int16), *blocks]),
            recording.end,
            recording.decoded_packets,
            recording.skipped_packets,
        )


def first_cut(samples: Samples) -> int:
    return chunk_length(samples[: int(LOOKAHEAD_S * SAMPLE_RATE_HZ)], at_end=False)


@pytest.mark.parametrize("name", COUNTED)
def test_a_resumed_run_decodes_little_and_has_the_same_samples(name: str, samples: Samples) -> None:
    data = written(COUNTED[name], samples)
    whole = decoded(data)
    assert abs(whole.end / SAMPLE_RATE_HZ - DURATION_S) < 0.2
    for resume_s in RESUME_S:
        start = int(resume_s * SAMPLE_RATE_HZ)
        resumed = decoded(data, start)
        assert np.array_equal(resumed.samples, whole.samples[start:])
        assert resumed.end == whole.end
        if resume_s < DURATION_S - LOOKAHEAD_S:
            assert first_cut(resumed.samples) == first_cut(whole.samples[start:])
        # What follows, what comes before up to the last renewal, and the decoder's warming up.
        needed_s = DURATION_S - resume_s + resume_s % RENEWAL_S + WARM_UP_S + 2
        assert resumed.packets <= whole.packets * min(1.0, needed_s / DURATION_S)


@pytest.mark.parametrize("name", ["mp3", "ogg", "m4a"])
def test_a_new_decoder_in_the_middle_is_not_heard(name: str, samples: Samples) -> None:
    data = written(COUNTED[name], samples)
    with av.open(io.BytesIO(data), "r") as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        frames = [
            piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)
        ]
    once = np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(float)
    often = decoded(data).samples[: len(once)].astype(float)
    place = RENEWAL_S * SAMPLE_RATE_HZ
    around = slice(place - 4_000, place + 4_000)
    assert np.corrcoef(once[around], often[around])[0, 1] > 0.98
    assert np.abs(np.diff(often[around])).max() <= np.abs(np.diff(once[:place])).max()


@pytest.mark.parametrize("name", ["mp3", "m4a", "ogg"])
def test_damage_before_the_place_moves_nothing(name: str, samples: Samples) -> None:
    sane = written(COUNTED[name], samples)
    data = bytearray(sane)
    for place in (len(data) // 5, len(data) // 3, len(data) // 2):
        data[place : place + 3_000] = np.random.default_rng(place).bytes(3_000)
    whole = decoded(bytes(data))
    assert not np.array_equal(whole.samples, decoded(sane).samples)
    start = 65 * SAMPLE_RATE_HZ
    resumed = decoded(bytes(data), start)
    assert np.array_equal(resumed.samples, whole.samples[start:])
    assert resumed.packets < whole.packets / 2


def test_a_packet_that_does_not_decode_is_silence_of_its_length(samples: Samples) -> None:
    data = bytearray(written(COUNTED["m4a"], samples))
    with av.open(io.BytesIO(bytes(data)), "r") as container:
        places = [(p.pos, p.size) for p in container.demux(audio=0) if p.size and p.pos]
    for position, size in places[800:805]:
        data[position : position + size] = b"\xff" * size
    heard = decoded(bytes(data))
    assert heard.skipped >= 5
    assert abs(heard.end / SAMPLE_RATE_HZ - DURATION_S) < 0.05
    middle = int(801.5 * 1024 / 22_050 * SAMPLE_RATE_HZ)
    assert not heard.samples[middle - 400 : middle + 400].any()


# Frames of 22,050 Hz last as long as those of 44,100 Hz: no clock tells them apart.
UNCOUNTED = {
    "lengths rounded to milliseconds": lambda: written(
        Form("webm", "vorbis", 44_100, 2, options={"strict": "experimental"}), sound(70)
    ),
    "another rate in the middle": lambda: (
        written(Form("mp3", "libmp3lame", 44_100), sound(40))
        + written(Form("mp3", "libmp3lame", 22_050), sound(40))
    ),
}


@pytest.mark.parametrize("name", UNCOUNTED)
def test_where_packets_cannot_be_counted_all_is_decoded(name: str) -> None:
    data = UNCOUNTED[name]()
    whole = decoded(data)
    start = 55 * SAMPLE_RATE_HZ
    resumed = decoded(data, start)
    assert len(resumed.samples) > 0
    assert np.array_equal(resumed.samples, whole.samples[start:])
    assert resumed.packets == whole.packets


def test_resuming_after_the_end_gives_nothing(samples: Samples) -> None:
    data = written(COUNTED["ogg"], samples)
    assert len(decoded(data, 200 * SAMPLE_RATE_HZ).samples) == 0
