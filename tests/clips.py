"""Recordings for tests, made on the spot.

Speech comes from the `flite` program; every container is written by PyAV itself, so that no other
program is needed.
"""

from __future__ import annotations

import io
import struct
import subprocess
import wave
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from jobs.audio import Recording

SAMPLE_RATE_HZ = 16_000

SHORT_TEXT = "The old man told us that the mill had been built by his grandfather."
LONG_TEXT = """
Good morning and welcome back. Last week we talked about planting a small garden behind the house.
You wanted to know how much water the young trees would need during the summer. The answer depends
on the soil and on the weather. If the ground is dry and hard, water them every other day in the
early morning. If it has rained during the night, you can leave them alone. Do not forget to cut the
old branches before winter. My neighbor lost three apple trees because he waited too long. He was
very sad about it, and so was his wife. This year they will try again with cherry trees. I told them
to put a fence around the field, since the deer come down from the hills at night. They eat
everything that is green. A dog may help, but a good fence is better.
"""

Samples = npt.NDArray[np.int16]


class MemorySource:
    """A recording in memory, as the parent of a recogniser offers it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size_bytes = len(data)
        self.reads: list[tuple[int, int]] = []

    async def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.data[offset : offset + length]


def speech(text: str, directory: Path, voice: str = "slt") -> bytes:
    """A WAV file (16 kHz, mono) of `text` spoken."""
    path = directory / "speech.wav"
    subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True)
    data = path.read_bytes()
    path.unlink()
    return data


class Unseekable:
    """A file that is written from start to end."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def getvalue(self) -> bytes:
        return bytes(self._data)


def samples_of(wav: bytes) -> Samples:
    """The samples of a mono WAV file."""
    with wave.open(io.BytesIO(wav)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)


def joined(pieces: Sequence[Samples]) -> Samples:
    """The pieces, one after the other."""
    return cast(Samples, np.concatenate(pieces))


def decoded(data: bytes) -> Samples:
    """The samples of a recording in any format."""
    with Recording(io.BytesIO(data)) as recording:
        return joined(list(recording.samples()))


def wav_of(samples: Samples, sample_rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    """A mono WAV file of `samples`."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def tone(duration_s: float, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Samples:
    """A rising tone with a beat: no two stretches of it are alike."""
    time_s = np.arange(int(duration_s * sample_rate_hz)) / sample_rate_hz
    wave_form = np.sin(2 * np.pi * (200 + 15 * time_s) * time_s) * (0.6 + 0.4 * np.sin(7 * time_s))
    return (wave_form * 12_000).astype(np.int16)


def encoded(
    samples: Samples,
    container: str,
    codec: str,
    *,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    channels: int = 1,
    video: bool = False,
    live: bool = False,
    options: Mapping[str, str] | None = None,
) -> bytes:
    """16 kHz mono samples in another container, at another rate, on one or more channels.

    `live` writes as a browser's recorder does, which cannot go back to note the length. `options`
    are the encoder's own.
    """
    buffer = Unseekable() if live else io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[channels]
    with av.open(buffer, "w", format=container) as output:
        picture = None
        if video:
            picture = output.add_stream("mpeg4", rate=5)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        sound = cast(
            AudioStream,
            output.add_stream(
                codec, rate=sample_rate_hz, layout=layout, options=dict(options or {})
            ),
        )
        if picture is not None:
            for index in range(int(len(samples) / SAMPLE_RATE_HZ * 5) + 1):
                image = np.full((64, 64, 3), index % 256, dtype=np.uint8)
                output.mux(picture.encode(VideoFrame.from_ndarray(image, format="rgb24")))
            output.mux(picture.encode(None))
        frame = AudioFrame.from_ndarray(samples[np.newaxis, :], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.pts, frame.time_base = 0, Fraction(1, SAMPLE_RATE_HZ)
        resampler = AudioResampler(
            format=sound.codec_context.format.name,
            layout=layout,
            rate=sample_rate_hz,
            frame_size=sound.codec_context.frame_size or 1024,
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(sound.encode(piece))
        output.mux(sound.encode(None))
    return buffer.getvalue()


def silent_film(container: str = "mp4", duration_s: float = 2.0) -> bytes:
    """A film without a sound track."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        picture = output.add_stream("mpeg4", rate=5)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        for index in range(int(duration_s * 5)):
            image = np.full((64, 64, 3), index % 256, dtype=np.uint8)
            output.mux(picture.encode(VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(picture.encode(None))
    return buffer.getvalue()


def picture() -> bytes:
    """A PNG picture."""
    codec = VideoCodecContext.create("png", "w")
    codec.width = codec.height = 64
    codec.pix_fmt = "rgb24"
    codec.time_base = Fraction(1, 1)
    frame = VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8), format="rgb24")
    return b"".join(bytes(packet) for packet in codec.encode(frame))


def wav_header_only() -> bytes:
    """A WAV header that promises no samples and keeps its word."""
    return wav_of(np.zeros(0, dtype=np.int16))


def wav_header_lying(claimed_s: float) -> bytes:
    """A WAV header that promises samples, and none follow."""
    header = bytearray(wav_header_only())
    claimed_bytes = int(claimed_s * SAMPLE_RATE_HZ) * 2
    header[40:44] = struct.pack("<I", claimed_bytes)
    header[4:8] = struct.pack("<I", 36 + claimed_bytes)
    return bytes(header)
