"""The recognising child process, seen from its parent."""

from __future__ import annotations

import asyncio
import difflib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from jobs.errors import (
    EmptyAudioError,
    EngineError,
    EngineUnavailableError,
    LanguageUnsupportedError,
    NoAudioStreamError,
    NotAudioError,
    RecogniserCrashed,
    RecogniserStalled,
)
from jobs.model import Segment
from jobs.recogniser import (
    AudioEnded,
    AudioOpened,
    ChunkDone,
    ChunkProgress,
    Event,
    Recogniser,
    child_environment,
)
from tests import clips
from tests.clips import MemorySource

ROOT = Path(__file__).parents[2]
STALL_TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.speech(clips.SHORT_TEXT, tmp_path_factory.mktemp("short"))


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """More than one chunk."""
    return clips.speech(clips.LONG_TEXT, tmp_path_factory.mktemp("long"))


@pytest.fixture
async def recogniser() -> AsyncIterator[Recogniser]:
    async with await start() as started:
        yield started


@pytest.fixture
async def prober() -> AsyncIterator[Recogniser]:
    async with await start(engine=None) as started:
        yield started


async def start(
    engine: str | None = "pocketsphinx", stall_timeout_s: float = STALL_TIMEOUT_S
) -> Recogniser:
    return await Recogniser.start(engine=engine, niceness=0, stall_timeout_s=stall_timeout_s)


async def events_of(
    recogniser: Recogniser, data: bytes, start_s: float = 0.0, first_idx: int = 0
) -> list[Event]:
    source = MemorySource(data)
    events = recogniser.transcribe(source, start_s=start_s, first_idx=first_idx)
    return [event async for event in events]


def chunks_of(events: list[Event]) -> list[ChunkDone]:
    return [event for event in events if isinstance(event, ChunkDone)]


def segments_of(events: list[Event]) -> list[Segment]:
    return [segment for chunk in chunks_of(events) for segment in chunk.segments]


def words_of(segments: list[Segment]) -> list[str]:
    return [word.text for segment in segments for word in segment.words]


def recall(expected: list[str], found: list[str]) -> float:
    matcher = difflib.SequenceMatcher(None, expected, found, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks()) / len(expected)


def batch_words(wav: bytes) -> list[str]:
    """What the engine alone recognises in the whole clip, as one utterance."""
    decoder = importlib.import_module("pocketsphinx").Decoder(loglevel="ERROR")
    decoder.start_utt()
    samples = clips.samples_of(wav).tobytes()
    decoder.process_raw(samples, no_search=False, full_utt=True)
    decoder.end_utt()
    return [entry.word.split("(")[0] for entry in decoder.seg() if entry.word[0] not in "<[+"]


def gone(pid: int) -> bool:
    """No such process, not even as a zombie."""
    return not psutil.pid_exists(pid)


def dead_within(pid: int, timeout_s: float) -> bool:
    """Whether the process ends in time. Whoever adopted it may be late to reap it."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        try:
            process.wait(timeout_s)
        except psutil.TimeoutExpired:
            return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True


async def test_words_of_the_engine_alone_are_in_the_chunked_transcript(
    recogniser: Recogniser, long_clip: bytes
) -> None:
    events = await events_of(recogniser, long_clip)
    assert len(chunks_of(events)) >= 2
    assert recall(batch_words(long_clip), words_of(segments_of(events))) == 1.0


async def test_what_was_said_is_recognised(recogniser: Recogniser, short_clip: bytes) -> None:
    words = words_of(segments_of(await events_of(recogniser, short_clip)))
    said = clips.SHORT_TEXT.lower().rstrip(".").split()
    assert recall(said, words) > 0.8


async def test_events_tell_the_whole_way_in_order(recogniser: Recogniser, long_clip: bytes) -> None:
    events = await events_of(recogniser, long_clip)
    duration_s = len(clips.samples_of(long_clip)) / clips.SAMPLE_RATE_HZ
    assert isinstance(events[0], AudioOpened)
    assert events[0].info.duration_s == pytest.approx(duration_s)
    assert events[-1] == AudioEnded(duration_s, duration_s)

    chunks = chunks_of(events)
    assert chunks[0].start_s == 0.0
    assert [chunk.end_s for chunk in chunks[:-1]] == [chunk.start_s for chunk in chunks[1:]]
    assert chunks[-1].end_s == pytest.approx(duration_s)

    positions = [
        event.processed_s if isinstance(event, ChunkProgress) else event.end_s
        for event in events
        if isinstance(event, ChunkProgress | ChunkDone)
    ]
    assert positions == sorted(positions)
    assert sum(isinstance(event, ChunkProgress) for event in events) > len(chunks)


async def test_segments_are_numbered_timed_and_readable(
    recogniser: Recogniser, long_clip: bytes
) -> None:
    events = await events_of(recogniser, long_clip, first_idx=7)
    segments = segments_of(events)
    assert [segment.idx for segment in segments] == list(range(7, 7 + len(segments)))
    for segment in segments:
        assert segment.text == " ".join(word.text for word in segment.words)
        assert segment.text == segment.text.lower()
        assert not set(segment.text) & set("<>[]+()")
        assert len(segment.text) <= 84
        assert 0 < segment.end_s - segment.start_s <= 12.0
        for word in segment.words:
            assert segment.start_s <= word.start_s < word.end_s <= segment.end_s
            assert word.confidence is not None
            assert 0.0 <= word.confidence <= 1.0
    times = [time_s for segment in segments for time_s in (segment.start_s, segment.end_s)]
    assert times == sorted(times)
    for chunk in chunks_of(events):
        for segment in chunk.segments:
            assert chunk.start_s <= segment.start_s
            assert segment.end_s <= chunk.end_s


@pytest.mark.parametrize(
    ("container", "codec", "rate", "video"),
    [
        ("wav", "pcm_s16le", 44_100, False),
        ("flac", "flac", 44_100, False),
        ("mp3", "libmp3lame", 44_100, False),
        ("ipod", "aac", 44_100, False),
        ("ogg", "libopus", 48_000, False),
        ("webm", "libopus", 48_000, False),
        ("mp4", "aac", 48_000, True),
    ],
)
async def test_resumed_run_gives_the_chunks_of_the_undisturbed_one(
    container: str,
    codec: str,
    rate: int,
    video: bool,
    recogniser: Recogniser,
    long_clip: bytes,
) -> None:
    samples = clips.samples_of(long_clip)
    data = clips.encoded(samples, container, codec, sample_rate_hz=rate, channels=2, video=video)
    undisturbed = chunks_of(await events_of(recogniser, data))
    assert words_of(list(undisturbed[-1].segments))
    first = undisturbed[0]
    resumed = await events_of(recogniser, data, start_s=first.end_s, first_idx=len(first.segments))
    assert chunks_of(resumed) == undisturbed[1:]


async def test_resuming_at_the_end_ends_at_once(recogniser: Recogniser, short_clip: bytes) -> None:
    undisturbed = await events_of(recogniser, short_clip)
    resumed = await events_of(recogniser, short_clip, start_s=chunks_of(undisturbed)[-1].end_s)
    assert chunks_of(resumed) == []
    assert resumed[-1] == undisturbed[-1]


async def test_result_does_not_depend_on_what_was_heard_before(
    recogniser: Recogniser, short_clip: bytes, long_clip: bytes
) -> None:
    alone = segments_of(await events_of(recogniser, short_clip))
    await events_of(recogniser, long_clip)
    assert segments_of(await events_of(recogniser, short_clip)) == alone


@pytest.mark.parametrize("level", [0, 1, 400], ids=["digital silence", "hiss", "noise"])
async def test_recording_without_speech_ends_well(recogniser: Recogniser, level: int) -> None:
    rng = np.random.default_rng(1)
    samples = (rng.normal(0, 1, 16_000 * 35) * level).astype(np.int16)
    events = await events_of(recogniser, clips.wav_of(samples))
    assert isinstance(events[-1], AudioEnded)
    assert events[-1].duration_s == 35.0
    assert len(words_of(segments_of(events))) < 10


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotAudioError),
        (b"only text\n" * 1000, NotAudioError),
        (clips.picture(), NotAudioError),
        (clips.silent_film(), NoAudioStreamError),
        (clips.wav_header_only(), EmptyAudioError),
    ],
    ids=["nothing", "text", "picture", "silent film", "empty WAV"],
)
async def test_bad_recording_is_refused_and_the_child_goes_on(
    data: bytes, error: type[Exception], recogniser: Recogniser, short_clip: bytes
) -> None:
    with pytest.raises(error) as refusal:
        await events_of(recogniser, data)
    assert str(refusal.value).endswith(".")
    with pytest.raises(error):
        await recogniser.probe(MemorySource(data))
    assert words_of(segments_of(await events_of(recogniser, short_clip)))


async def test_language_the_engine_does_not_know_is_refused(
    recogniser: Recogniser, short_clip: bytes
) -> None:
    with pytest.raises(LanguageUnsupportedError, match="English"):
        async for _ in recogniser.transcribe(MemorySource(short_clip), language="de"):
            pass
    english = recogniser.transcribe(MemorySource(short_clip), language="en-GB")
    assert isinstance([event async for event in english][-1], AudioEnded)


async def test_probing_child_is_small_and_does_not_recognise(
    prober: Recogniser, short_clip: bytes
) -> None:
    info = await prober.probe(MemorySource(short_clip))
    assert (info.container, info.codec) == ("wav", "pcm_s16le")
    assert (info.sample_rate_hz, info.channels) == (16_000, 1)
    assert 0 < prober.peak_rss_bytes < 100_000_000
    with pytest.raises(EngineError):
        await events_of(prober, short_clip)


async def test_probe_reads_little_of_a_long_recording(prober: Recogniser) -> None:
    source = MemorySource(clips.wav_of(clips.tone(600)))
    await prober.probe(source)
    assert sum(length for _, length in source.reads) < source.size_bytes / 4


async def test_unknown_engine_is_unavailable() -> None:
    with pytest.raises(EngineUnavailableError, match="no engine named"):
        await start(engine="crystal-ball")


async def test_model_that_does_not_load_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="PocketSphinx"):
        await Recogniser.start(
            engine="pocketsphinx",
            engine_options={"hmm": str(tmp_path)},
            stall_timeout_s=STALL_TIMEOUT_S,
        )


async def test_killed_child_is_a_crash_with_its_signal(long_clip: bytes) -> None:
    async with await start() as recogniser:
        with pytest.raises(RecogniserCrashed, match="SIGKILL"):
            async for event in recogniser.transcribe(MemorySource(long_clip)):
                if isinstance(event, ChunkProgress):
                    os.kill(recogniser.pid, signal.SIGKILL)
        assert recogniser.closed
        assert gone(recogniser.pid)
        with pytest.raises(RecogniserCrashed, match="closed"):
            await recogniser.probe(MemorySource(long_clip))


async def test_child_killed_while_idle_is_a_crash(short_clip: bytes) -> None:
    async with await start(engine=None) as recogniser:
        os.kill(recogniser.pid, signal.SIGKILL)
        with pytest.raises(RecogniserCrashed):
            await recogniser.probe(MemorySource(short_clip))
        assert gone(recogniser.pid)


async def test_memory_beyond_the_limit_is_an_error_and_not_the_machines(
    short_clip: bytes,
) -> None:
    with pytest.raises((EngineUnavailableError, EngineError, RecogniserCrashed)):
        async with await Recogniser.start(
            engine="pocketsphinx",
            memory_limit_bytes=24_000_000,
            stall_timeout_s=STALL_TIMEOUT_S,
        ) as recogniser:
            await events_of(recogniser, short_clip)


async def test_recognition_fits_its_memory_limit(long_clip: bytes) -> None:
    async with await Recogniser.start(
        engine="pocketsphinx", memory_limit_bytes=400_000_000, stall_timeout_s=STALL_TIMEOUT_S
    ) as recogniser:
        assert words_of(segments_of(await events_of(recogniser, long_clip)))
        assert recogniser.peak_rss_bytes < 250_000_000


async def test_stopped_child_is_stalled_and_killed(long_clip: bytes) -> None:
    async with await start(stall_timeout_s=5.0) as recogniser:
        with pytest.raises(RecogniserStalled, match="no sign of life for 5 seconds"):
            async for event in recogniser.transcribe(MemorySource(long_clip)):
                if isinstance(event, ChunkProgress):
                    os.kill(recogniser.pid, signal.SIGSTOP)
        assert recogniser.closed
        assert gone(recogniser.pid)


async def test_cancelling_kills_the_child_at_once(long_clip: bytes) -> None:
    async with await start() as recogniser:
        working = asyncio.Event()

        async def work() -> None:
            async for event in recogniser.transcribe(MemorySource(long_clip)):
                if isinstance(event, ChunkProgress):
                    working.set()

        task = asyncio.create_task(work())
        await working.wait()
        task.cancel()
        cancelled_at = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - cancelled_at < 1.0
        assert gone(recogniser.pid)
        assert recogniser.closed
        with pytest.raises(RecogniserCrashed, match="closed"):
            await recogniser.probe(MemorySource(long_clip))


async def test_abandoned_transcription_kills_the_child(long_clip: bytes) -> None:
    async with await start() as recogniser:
        async with aclosing(recogniser.transcribe(MemorySource(long_clip))) as events:
            async for event in events:
                if isinstance(event, ChunkProgress):
                    break
        assert recogniser.closed
        assert gone(recogniser.pid)


async def test_failing_source_ends_the_child_and_keeps_its_error(short_clip: bytes) -> None:
    class Failing(MemorySource):
        async def read(self, offset: int, length: int) -> bytes:
            raise ConnectionError("the store is away")

    async with await start(engine=None) as recogniser:
        with pytest.raises(ConnectionError, match="the store is away"):
            await recogniser.probe(Failing(short_clip))
        assert recogniser.closed


async def test_leaving_the_context_by_exception_ends_the_child() -> None:
    with pytest.raises(LookupError):
        async with await start(engine=None) as recogniser:
            raise LookupError
    assert gone(recogniser.pid)


async def test_second_call_at_a_time_is_refused(recogniser: Recogniser, short_clip: bytes) -> None:
    async with aclosing(recogniser.transcribe(MemorySource(short_clip))) as events:
        await anext(events)
        with pytest.raises(RuntimeError, match="another recording"):
            await recogniser.probe(MemorySource(short_clip))


async def test_idle_child_ends_by_itself_when_closed() -> None:
    recogniser = await start(engine=None)
    process = psutil.Process(recogniser.pid)
    assert process.is_running()
    await recogniser.close()
    await recogniser.close()
    assert gone(recogniser.pid)


async def test_child_dies_with_its_parent(long_clip: bytes, tmp_path: Path) -> None:
    recording = tmp_path / "long.wav"
    recording.write_bytes(long_clip)
    program = """
import asyncio, sys
from pathlib import Path
from jobs.recogniser import ChunkProgress, Recogniser
from tests.clips import MemorySource

async def main():
    recogniser = await Recogniser.start(engine="pocketsphinx", stall_timeout_s=30)
    async for event in recogniser.transcribe(MemorySource(Path(sys.argv[1]).read_bytes())):
        if isinstance(event, ChunkProgress):
            print("PID", recogniser.pid, flush=True)

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        str(recording),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    while not (line := await parent.stdout.readline()).startswith(b"PID"):
        assert line, "the parent ended early"
    child_pid = int(line.split()[1])
    assert psutil.pid_exists(child_pid)
    parent.kill()
    await parent.wait()
    assert await asyncio.to_thread(dead_within, child_pid, 3.0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_child_knows_no_secret_and_holds_nothing_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = ("DATABASE_URL", "SECRET_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY")
    for name in secrets:
        monkeypatch.setenv(name, "not-for-the-child")
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    try:
        async with await start(engine=None) as recogniser:
            proc = Path("/proc") / str(recogniser.pid)
            assert b"not-for-the-child" not in (proc / "environ").read_bytes()
            assert (proc / "cwd").resolve() == Path("/")
            assert os.getsid(recogniser.pid) == recogniser.pid != os.getsid(0)
            held = {os.readlink(entry) for entry in (proc / "fd").iterdir()}
            assert os.readlink(f"/proc/self/fd/{reading}") not in held
            assert "Max core file size        0 " in (proc / "limits").read_text()
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.skipif(sys.platform != "linux", reason="the nice value of another process")
async def test_child_gives_way_to_the_web_process() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    async with await Recogniser.start(engine=None, stall_timeout_s=STALL_TIMEOUT_S) as recogniser:
        assert os.getpriority(os.PRIO_PROCESS, recogniser.pid) == min(19, before + 10)


def test_environment_of_a_child_is_a_short_list() -> None:
    environment = {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "COVERAGE_PROCESS_START": "x.toml",
        "PYTHONPATH": "/elsewhere",
        "DATABASE_URL": "postgresql://u:p@h/d",
        "SECRET_KEY": "s",
        "PGPASSWORD": "p",
        "HTTPS_PROXY": "http://u:p@proxy",
    }
    given = child_environment(environment)
    assert json.dumps(given).count("/elsewhere") == 1
    assert set(given) == {
        "PATH",
        "LC_ALL",
        "COVERAGE_PROCESS_START",
        "PYTHONPATH",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    }


def test_parent_loads_no_decoder_and_no_engine() -> None:
    program = (
        "import sys, jobs.recogniser, jobs.engines; from jobs.settings import JobSettings;"
        "jobs.engines.resolve(JobSettings());"
        "print([name for name in ('av', 'pocketsphinx') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.strip() == "[]"
