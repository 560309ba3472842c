"""Which engine is taken, what is said when there is none, and how faster-whisper recognises."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import engines
from jobs.engines import Chunk, ReadyEngine
from jobs.errors import EngineUnavailableError, LanguageUnsupportedError
from jobs.model import Segment
from jobs.recogniser import ChunkDone, ChunkProgress, Recogniser
from jobs.recogniser_wire import Frame
from jobs.settings import JobSettings
from tests import clips
from tests.clips import MemorySource
from tests.model_hub import model_hub
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload
from tests.tiny_whisper import Shape, make_tiny_whisper

STALL_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whatever it hears, it takes it for German."""
    return make_tiny_whisper(tmp_path_factory.mktemp("models") / "tiny", Shape(language="de"))


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """More than a minute of speech, with half a minute of silence in the middle."""
    spoken = clips.samples_of(clips.speech(clips.LONG_TEXT, tmp_path_factory.mktemp("clips")))
    silence = np.zeros(30 * clips.SAMPLE_RATE_HZ, np.int16)
    return clips.wav_of(clips.joined([spoken, silence, spoken]))


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub's cache, empty; and nothing is fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def settings_of(model: Path | str, engine: str = "faster-whisper") -> JobSettings:
    return JobSettings(engine=engine, faster_whisper_model=str(model))  # type: ignore[arg-type]


async def start(engine: ReadyEngine) -> Recogniser:
    return await Recogniser.start(
        engine=engine.name,
        engine_options=engine.options,
        niceness=0,
        stall_timeout_s=STALL_TIMEOUT_S,
    )


@pytest.fixture
async def recogniser(model: Path) -> AsyncIterator[Recogniser]:
    async with await start(engines.resolve(settings_of(model))) as started:
        yield started


async def chunks_of(
    recogniser: Recogniser, recording: bytes, start_s: float = 0.0, language: str | None = None
) -> list[ChunkDone]:
    events = recogniser.transcribe(MemorySource(recording), start_s=start_s, language=language)
    return [event async for event in events if isinstance(event, ChunkDone)]


def segments_of(chunks: list[ChunkDone]) -> list[Segment]:
    return [segment for chunk in chunks for segment in chunk.segments]


def _ask(kind: str, fields: Mapping[str, Any], body: bytes) -> Frame:
    raise AssertionError("a local engine asks nobody")


def in_the_hub(model: Path, hub: Path, owner_and_name: str) -> Path:
    """As if the model had been downloaded before."""
    place = hub / f"models--{owner_and_name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    return Path(shutil.copytree(model, place / "snapshots" / "abc"))


def test_auto_takes_faster_whisper_when_it_has_a_model(model: Path) -> None:
    found = engines.resolve(settings_of(model, "auto"))
    assert (found.name, found.title) == ("faster-whisper", "faster-whisper tiny (int8)")
    assert found.options["model"] == str(model)


def test_auto_takes_pocketsphinx_rather_than_download_a_model() -> None:
    assert engines.resolve(settings_of("small", "auto")).title == "pocketsphinx"


def test_auto_takes_pocketsphinx_where_faster_whisper_is_not_installed(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    assert engines.resolve(settings_of(model, "auto")).title == "pocketsphinx"


def test_auto_sends_recordings_to_nobody() -> None:
    assert set(engines.ENGINES) - set(engines.LOCAL_ENGINES) == {"openai"}


def test_without_any_engine_auto_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("faster_whisper", "pocketsphinx"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EngineUnavailableError, match=r"faster-whisper is not.*pocketsphinx is not"):
        engines.resolve(settings_of("small", "auto"))


def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(EngineUnavailableError) as refusal:
        engines.resolve(settings_of(model))
    assert refusal.value.message == (
        "The package faster-whisper is not installed: pip install 'quartapp[faster-whisper]'"
    )


def test_a_model_is_found_by_name_in_the_hubs_cache(model: Path, no_hub: Path) -> None:
    place = in_the_hub(model, no_hub, "Systran/faster-whisper-tiny")
    found = engines.resolve(settings_of("tiny"))
    assert found.title == "faster-whisper tiny (int8)"
    assert found.options["model"] == str(place)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tiny", "'tiny' cannot be downloaded"),
        ("nobody/nothing", "'nobody/nothing' cannot be downloaded"),
        ("enormous", "'enormous' cannot be downloaded"),
        ("./here", "There is no faster-whisper model in here"),
        ("/nowhere/model", "There is no faster-whisper model in /nowhere/model"),
    ],
)
def test_a_model_that_is_not_to_be_had_is_said_in_one_line(name: str, sentence: str) -> None:
    with pytest.raises(EngineUnavailableError) as refusal:
        engines.resolve(settings_of(name))
    assert sentence in refusal.value.message
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_a_model_of_which_a_file_is_missing_is_refused_at_the_start(
    model: Path, tmp_path: Path, name: str
) -> None:
    damaged = Path(shutil.copytree(model, tmp_path / "damaged"))
    (damaged / name).unlink()
    with pytest.raises(EngineUnavailableError, match=f"{name} is missing"):
        engines.resolve(settings_of(damaged))


async def test_a_model_that_cannot_be_loaded_makes_the_engine_unavailable(
    model: Path, tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(model, tmp_path / "damaged"))
    (damaged / "model.bin").write_bytes(b"no model")
    with pytest.raises(EngineUnavailableError, match="faster-whisper cannot load its model: "):
        await start(engines.resolve(settings_of(damaged)))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("mkl_malloc: failed to allocate memory")]
)
def test_a_model_too_large_for_its_memory_is_said_to_be(
    model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def too_large(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("faster_whisper.WhisperModel", too_large)
    options = engines.resolve(settings_of(model)).options
    with pytest.raises(EngineUnavailableError, match="QUARTAPP_RECOGNISER_MEMORY_BYTES"):
        engines.load("faster-whisper", options, _ask)


@pytest.mark.parametrize(
    ("job_slots", "threads", "given"), [(1, 8, 0), (3, 2, 0), (32, 1, 0), (2, 5, 5)]
)
def test_cores_are_shared_by_the_slots(
    model: Path, monkeypatch: pytest.MonkeyPatch, job_slots: int, threads: int, given: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    settings = settings_of(model).model_copy(
        update={"job_slots": job_slots, "faster_whisper_threads": given}
    )
    assert engines.resolve(settings).options["threads"] == threads


def test_what_engines_understand_is_known_without_loading_them() -> None:
    assert engines.understands("pocketsphinx", "en-GB")
    assert not engines.understands("pocketsphinx", "de")
    for tag in ("de", "de-AT", "yue", "nb-NO", "jv"):
        assert engines.understands("faster-whisper", tag)
    assert not engines.understands("faster-whisper", "tlh")
    assert engines.understands("an engine of another version", "tlh")


def test_a_model_is_fetched_for_an_engine_that_is_named_and_never_for_auto(
    model: Path, no_hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with model_hub("Systran/faster-whisper-tiny", model) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        no_hub.mkdir()
        assert engines.resolve(settings_of("tiny", "auto")).name == "pocketsphinx"
        assert not hub.asked
        capsys.readouterr()
        found = Path(engines.resolve(settings_of("tiny")).options["model"])
        assert "model_download" in capsys.readouterr().out
        assert found.is_relative_to(no_hub)
        assert (found / "model.bin").read_bytes() == (model / "model.bin").read_bytes()
        hub.asked.clear()
        for engine in ("faster-whisper", "auto"):
            assert engines.resolve(settings_of("tiny", engine)).options["model"] == str(found)
        assert not hub.asked, "what is here is not asked for again"
        (found / "model.bin").unlink()
        assert engines.resolve(settings_of("tiny", "auto")).name == "pocketsphinx"
        assert engines.resolve(settings_of("tiny")).options["model"] == str(found)
        assert (found / "model.bin").is_file(), "an interrupted download is finished"


async def test_chunks_are_recognised_the_same_each_time(
    recogniser: Recogniser, minute: bytes
) -> None:
    first = await chunks_of(recogniser, minute)
    assert len(first) >= 3
    assert await chunks_of(recogniser, minute) == first


def test_a_chunk_with_its_context_costs_one_window(
    model: Path, minute: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = engines.load("faster-whisper", engines.resolve(settings_of(model)).options, _ask)
    windows: list[int] = []
    encode = engine._model.encode

    def counted(features: Any) -> Any:
        windows.append(features.shape[-1])
        return encode(features)

    monkeypatch.setattr(engine._model, "encode", counted)
    second = clips.SAMPLE_RATE_HZ
    chunk = Chunk(clips.samples_of(minute)[: 36 * second], 3 * second, 3 * second)
    assert engine.recognise(chunk, "de", lambda _: None).segments
    assert len(windows) == 1


async def test_words_lie_in_order_within_their_chunk(recogniser: Recogniser, minute: bytes) -> None:
    for chunk in await chunks_of(recogniser, minute):
        times = [
            time
            for segment in chunk.segments
            for word in segment.words
            for time in (word.start_s, word.end_s)
        ]
        assert times == sorted(times)
        assert all(chunk.start_s <= time <= chunk.end_s for time in times)
        for segment in chunk.segments:
            assert segment.text == " ".join(word.text for word in segment.words)
            assert all(0.0 <= (word.confidence or 0.0) <= 1.0 for word in segment.words)


async def test_nothing_is_said_in_silence(recogniser: Recogniser, minute: bytes) -> None:
    spoken_s = (len(clips.samples_of(minute)) / clips.SAMPLE_RATE_HZ - 30) / 2
    words = [
        word
        for segment in segments_of(await chunks_of(recogniser, minute))
        for word in segment.words
    ]
    middles = [(word.start_s + word.end_s) / 2 for word in words]
    assert any(time < spoken_s for time in middles)
    assert any(time > spoken_s + 30 for time in middles)
    assert not [time for time in middles if spoken_s + 1 < time < spoken_s + 29]


async def test_noise_is_no_speech(recogniser: Recogniser) -> None:
    noise = np.random.default_rng(1).normal(0, 300, 20 * clips.SAMPLE_RATE_HZ).astype(np.int16)
    (chunk,) = await chunks_of(recogniser, clips.wav_of(noise))
    assert (chunk.segments, chunk.language) == ((), None)


async def test_a_resumed_run_gives_what_the_undisturbed_one_gave(
    recogniser: Recogniser, minute: bytes
) -> None:
    whole = await chunks_of(recogniser, minute)
    resumed = await chunks_of(recogniser, minute, start_s=whole[0].end_s)

    def placed(chunks: list[ChunkDone]) -> list[Segment]:
        return [replace(segment, idx=idx) for idx, segment in enumerate(segments_of(chunks))]

    assert placed(resumed) == placed(whole[1:])


async def test_progress_is_told_within_the_chunk(recogniser: Recogniser, minute: bytes) -> None:
    reached_s = 0.0
    async for event in recogniser.transcribe(MemorySource(minute)):
        if isinstance(event, ChunkProgress):
            assert event.processed_s >= reached_s
            reached_s = event.processed_s
        elif isinstance(event, ChunkDone):
            assert reached_s <= event.end_s
    assert reached_s > 0


async def test_the_language_heard_is_told_with_the_text(
    recogniser: Recogniser, minute: bytes
) -> None:
    chunks = await chunks_of(recogniser, minute)
    assert {chunk.language for chunk in chunks if chunk.segments} == {"de"}
    assert {chunk.language for chunk in chunks if not chunk.segments} <= {None}


async def test_a_language_that_is_given_is_not_looked_for(
    recogniser: Recogniser, minute: bytes
) -> None:
    chunks = await chunks_of(recogniser, minute, language="nb-NO")
    assert {chunk.language for chunk in chunks if chunk.segments} == {"no"}


async def test_a_language_that_the_model_does_not_know_is_refused(
    recogniser: Recogniser, minute: bytes, tmp_path: Path
) -> None:
    for language in ("tlh", "yue"):  # the latter came with a later model
        with pytest.raises(LanguageUnsupportedError, match=f"language '{language}'"):
            await chunks_of(recogniser, minute, language=language)
    english = make_tiny_whisper(tmp_path / "tiny.en", Shape(language=None))
    async with await start(engines.resolve(settings_of(english))) as only_english:
        with pytest.raises(LanguageUnsupportedError, match="language 'de'"):
            await chunks_of(only_english, minute, language="de")
        chunks = await chunks_of(only_english, minute, language="en-US")
        assert {chunk.language for chunk in chunks if chunk.segments} == {"en"}


def test_a_site_transcribes_and_tells_model_and_language(
    dsn: str, tmp_path: Path, model: Path, minute: bytes
) -> None:
    environment = {"QUARTAPP_ENGINE": "faster-whisper", "QUARTAPP_FASTER_WHISPER_MODEL": str(model)}
    site = Product(dsn, tmp_path, environment)
    try:
        site.start()
        assert "engine: faster-whisper tiny (int8)" in site.output
        with site.client(address()) as client:
            session = finished(client, upload(client, minute).json()["id"])
            assert (session["status"], session["engine"]) == ("completed", "faster-whisper")
            transcript = client.get(f"{SESSIONS}/{session['id']}/transcript.json").json()
            assert (transcript["language"], transcript["engine"]) == ("de", "faster-whisper")
            assert transcript["segments"]
    finally:
        site.end()


def test_a_model_that_is_not_there_ends_the_start_with_one_line(dsn: str, tmp_path: Path) -> None:
    environment = {
        "QUARTAPP_ENGINE": "faster-whisper",
        "QUARTAPP_FASTER_WHISPER_MODEL": "/nowhere/model",
    }
    for arguments in (("worker",), ("serve", "--host", "127.0.0.1", "--port", "0")):
        product = Product(dsn, tmp_path, environment, arguments)
        with pytest.raises(AssertionError, match="did not start"):
            product.start()
        assert product.process.returncode == 1
        lines = [line for line in product.log.splitlines() if not line.startswith("{")]
        assert lines == ["Error: There is no faster-whisper model in /nowhere/model."]
