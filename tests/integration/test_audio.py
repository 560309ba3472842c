"""Opening and decoding recordings, good and bad."""

from __future__ import annotations

import io
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from jobs.audio import SAMPLE_RATE_HZ, Recording, Samples
from jobs.errors import DecodeError, EmptyAudioError, NoAudioStreamError, NotAudioError
from tests import clips

DURATION_S = 8.0
CONTAINERS = {
    "wav": ("wav", "pcm_s16le", False),
    "wav of floats": ("wav", "pcm_f32le", False),
    "aiff": ("aiff", "pcm_s16be", False),
    "flac": ("flac", "flac", False),
    "mp3": ("mp3", "libmp3lame", False),
    "m4a": ("ipod", "aac", False),
    "aac": ("adts", "aac", False),
    "ogg": ("ogg", "libopus", False),
    "webm": ("webm", "libopus", False),
    "mp4 with video": ("mp4", "aac", True),
    "matroska with video": ("matroska", "aac", True),
}
LOSSLESS = {"wav", "wav of floats", "aiff", "flac"}


class CountingFile(io.BytesIO):
    """A file that knows how much has been read of it."""

    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


@pytest.fixture(scope="module")
def tone() -> Samples:
    return clips.tone(DURATION_S)


def clip(tone: Samples, container: str, rate: int = 44_100, channels: int = 2) -> bytes:
    muxer, codec, video = CONTAINERS[container]
    if codec == "libopus":
        rate = 48_000
    return clips.encoded(tone, muxer, codec, sample_rate_hz=rate, channels=channels, video=video)


def decoded(data: bytes, start: int = 0) -> Samples:
    with Recording(io.BytesIO(data)) as recording:
        return np.concatenate([np.zeros(0, dtype=np.int16), *recording.samples(start)])


def likeness(heard: Samples, spoken: Samples) -> float:
    """Correlation with the middle of `spoken`, wherever `heard` has it."""
    middle = spoken[SAMPLE_RATE_HZ // 2 : -SAMPLE_RATE_HZ // 2].astype(float)
    size = len(heard) + len(middle)
    spectra = np.fft.rfft(heard.astype(float), size), np.fft.rfft(middle, size)
    products = np.fft.irfft(spectra[0] * spectra[1].conj(), size)
    shift = int(np.argmax(products[: len(heard) - len(middle) + 1]))
    return float(np.corrcoef(middle, heard[shift : shift + len(middle)].astype(float))[0, 1])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_rate_and_channel_count_gives_the_sound_that_went_in(
    container: str, rate: int, channels: int, tone: Samples
) -> None:
    data = clip(tone, container, rate, channels)
    with Recording(io.BytesIO(data)) as recording:
        heard = np.concatenate(list(recording.samples()))
        assert recording.skipped_packets == 0
        assert recording.info.channels == channels
        if recording.info.codec != "opus":
            assert recording.info.sample_rate_hz == rate
        if container != "aac":
            assert recording.info.duration_s == pytest.approx(DURATION_S, abs=0.25)
    assert heard.dtype == np.int16
    assert len(heard) / SAMPLE_RATE_HZ == pytest.approx(DURATION_S, abs=0.5)
    assert likeness(heard, tone) > 0.98


@pytest.mark.parametrize("rate", [11_025, 44_100])
@pytest.mark.parametrize("container", CONTAINERS)
def test_resuming_goes_on_at_exactly_the_sample(container: str, rate: int, tone: Samples) -> None:
    data = clip(tone, container, rate if container in LOSSLESS else 44_100)
    whole = decoded(data)
    for start in (1, 16_000, 16_001, 51_234, len(whole) - 100, len(whole), len(whole) + 5):
        assert np.array_equal(decoded(data, start), whole[start:])


@pytest.mark.parametrize("container", sorted(LOSSLESS))
def test_resuming_a_lossless_recording_reads_only_what_it_needs(container: str) -> None:
    data = clip(clips.tone(120), container)
    file = CountingFile(data)
    with Recording(file) as recording:
        rest = np.concatenate(list(recording.samples(110 * SAMPLE_RATE_HZ)))
    assert len(rest) == 10 * SAMPLE_RATE_HZ
    assert file.bytes_read < len(data) / 2


def test_channels_are_averaged() -> None:
    buffer = io.BytesIO()
    left, right = np.full(16_000, 3000, np.int16), np.full(16_000, 1000, np.int16)
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(np.column_stack((left, right)).tobytes())
    assert set(decoded(buffer.getvalue())) == {2000}


def test_index_at_the_end_of_the_file_is_found(tone: Samples) -> None:
    data = clip(tone, "m4a")
    assert data.index(b"moov") > data.index(b"mdat")
    assert len(decoded(data)) / SAMPLE_RATE_HZ == pytest.approx(DURATION_S, abs=0.1)


NOT_AUDIO = {
    "nothing": b"",
    "text": b"Dear diary, this is not a recording at all.\n" * 500,
    "picture": clips.picture(),
    "random bytes": np.random.default_rng(3).bytes(300_000),
    "zeros": bytes(100_000),
    "page": b"<!doctype html><html><body>" + b"<p>hello</p>" * 1000,
    "archive": b"PK\x03\x04" + np.random.default_rng(4).bytes(50_000),
    "start of a WAV header": clips.wav_header_only()[:20],
}


@pytest.mark.parametrize("name", NOT_AUDIO)
def test_what_is_not_audio_is_refused(name: str) -> None:
    with pytest.raises(NotAudioError, match=r"^This file is not a recording"):
        Recording(io.BytesIO(NOT_AUDIO[name]))


def test_random_bytes_are_never_taken_for_audio() -> None:
    for seed in range(60):
        with pytest.raises(NotAudioError):
            Recording(io.BytesIO(np.random.default_rng(seed).bytes(100_000)))


def test_film_without_sound_is_refused() -> None:
    with pytest.raises(NoAudioStreamError, match="This file has video but no sound track"):
        Recording(io.BytesIO(clips.silent_film()))


@pytest.mark.parametrize("data", [clips.wav_header_only(), clips.wav_header_lying(60)])
def test_recording_of_no_length_is_refused(data: bytes) -> None:
    with pytest.raises(EmptyAudioError, match="empty"):
        Recording(io.BytesIO(data))


def test_recording_in_which_nothing_decodes_is_refused(tone: Samples) -> None:
    data = bytearray(clip(tone, "matroska with video"))
    with av.open(io.BytesIO(bytes(data)), "r") as container:
        places = [(p.pos, p.size) for p in container.demux(audio=0) if p.size and p.pos]
    for position, size in places:
        data[position + 10 : position + 10 + size] = b"\xff" * size
    with pytest.raises(DecodeError, match="damaged"):
        Recording(io.BytesIO(bytes(data)))


def test_truncated_mp3_gives_what_is_there(tone: Samples) -> None:
    data = clip(tone, "mp3")
    with Recording(io.BytesIO(data[: len(data) // 2])) as recording:
        heard = np.concatenate(list(recording.samples()))
        assert recording.info.duration_s == pytest.approx(DURATION_S, abs=0.1)
        assert recording.end == len(heard)
    assert len(heard) / SAMPLE_RATE_HZ == pytest.approx(DURATION_S / 2, abs=0.1)
    assert np.array_equal(heard[:50_000], decoded(data)[:50_000])


@pytest.mark.parametrize(("container", "lost_s"), [("flac", 0.0), ("mp3", 1.2)])
def test_damage_in_the_middle_costs_only_itself(
    container: str, lost_s: float, tone: Samples
) -> None:
    """FLAC packets say when they sound, so silence fills the place; MP3 packets follow on."""
    data = bytearray(clip(tone, container))
    whole = decoded(bytes(data))
    middle = len(data) // 2
    data[middle : middle + 12_000] = np.random.default_rng(5).bytes(12_000)
    with Recording(io.BytesIO(bytes(data))) as recording:
        heard = np.concatenate(list(recording.samples()))
    assert len(heard) / SAMPLE_RATE_HZ == pytest.approx(DURATION_S, abs=lost_s + 0.01)
    assert np.array_equal(heard[:40_000], whole[:40_000])
    assert likeness(heard[-44_000:], whole[-40_000:]) > 0.98


def test_corrupt_packets_are_counted(tone: Samples) -> None:
    data = bytearray(clip(tone, "m4a"))
    middle = data.index(b"mdat") + (data.index(b"moov") - data.index(b"mdat")) // 2
    data[middle : middle + 3000] = b"\xff" * 3000
    with Recording(io.BytesIO(bytes(data))) as recording:
        heard = np.concatenate(list(recording.samples()))
        assert recording.skipped_packets > 0
    assert len(heard) / SAMPLE_RATE_HZ == pytest.approx(DURATION_S, abs=0.3)


def local_wav(directory: Path) -> Path:
    path = directory / "secret.wav"
    path.write_bytes(clips.wav_of(clips.tone(1)))
    return path


def test_script_that_names_a_local_file_is_refused(tmp_path: Path) -> None:
    script = f"ffconcat version 1.0\nfile '{local_wav(tmp_path)}'\n".encode()
    with av.open(io.BytesIO(script), "r", options={"safe": "0"}) as container:
        assert container.streams.audio, "the refusal below must be ours"
    with pytest.raises(NotAudioError):
        Recording(io.BytesIO(script))


def test_playlist_that_names_a_local_file_is_refused(tmp_path: Path) -> None:
    playlist = (
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n"
        f"#EXTINF:1.0,\n{local_wav(tmp_path).as_uri()}\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(NotAudioError):
        Recording(io.BytesIO(playlist.encode()))


@pytest.mark.parametrize(
    "header", ["v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 1.2.3.4\r\n"]
)
def test_description_of_a_network_stream_is_refused(header: str) -> None:
    with pytest.raises(NotAudioError):
        Recording(io.BytesIO((header + "t=0 0\r\nm=audio 5004 RTP/AVP 0\r\n").encode()))


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("adts", "aac")])
def test_a_length_that_is_not_stated_is_measured(tone: Samples, container: str, codec: str) -> None:
    rate_hz = 48_000 if codec == "libopus" else 44_100
    data = clips.encoded(tone, container, codec, sample_rate_hz=rate_hz, live=True)
    with Recording(io.BytesIO(data)) as recording:
        assert recording.info.duration_s is None
        assert recording.measured_s() == pytest.approx(len(tone) / SAMPLE_RATE_HZ, abs=0.1)


def test_a_damaged_file_is_measured_as_far_as_it_goes(tone: Samples) -> None:
    data = clips.encoded(tone, "webm", "libopus", sample_rate_hz=48_000, live=True)
    with Recording(io.BytesIO(data[: len(data) // 2])) as recording:
        measured_s = recording.measured_s()
    assert measured_s is not None
    assert 0.2 * len(tone) < measured_s * SAMPLE_RATE_HZ < 0.8 * len(tone)


OUT_OF_MEMORY = """
import errno, resource
import av.error
from jobs.decoding import fault_of_the_file

error = av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory", "-")
fault_of_the_file(error)  # there is plenty
resource.setrlimit(resource.RLIMIT_DATA, (1, 1))
try:
    fault_of_the_file(error)
except MemoryError:
    print("told apart")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing limits private memory alone")
def test_want_of_memory_is_not_taken_for_damage() -> None:
    assert subprocess.check_output([sys.executable, "-c", OUT_OF_MEMORY]) == b"told apart\n"
