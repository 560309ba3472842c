"""A recogniser that does not come to an end, and one that asks its parent, seen from its parent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import psutil
import pytest

from jobs.errors import LanguageUnsupportedError, RecogniserCrashed, RecogniserStalled
from jobs.recogniser import Ask, AudioEnded, ChunkProgress, Event, Recogniser
from jobs.recogniser_wire import Frame
from tests import clips
from tests.clips import MemorySource

CHUNK_S = 4.0
CLIP = clips.wav_of(clips.tone(CHUNK_S))
STALL_TIMEOUT_S = 2.0


@pytest.fixture(autouse=True)
def rogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children are of the kind that misbehaves."""
    monkeypatch.setattr("jobs.recogniser.CHILD_MODULE", "tests.rogue_child")


async def start(
    engine: str,
    options: Mapping[str, Any] | None = None,
    *,
    stall_factor: float = 10.0,
    ask: Ask | None = None,
) -> Recogniser:
    return await Recogniser.start(
        engine=engine,
        engine_options=options,
        niceness=0,
        stall_timeout_s=STALL_TIMEOUT_S,
        stall_factor=stall_factor,
        ask=ask,
    )


async def recognised(recogniser: Recogniser) -> list[Event]:
    async with asyncio.timeout(60):  # when no bound holds
        return [event async for event in recogniser.transcribe(MemorySource(CLIP))]


async def test_silence_of_an_engine_that_reports_is_a_stall() -> None:
    async with await start("silent", stall_factor=1000) as recogniser:
        with pytest.raises(RecogniserStalled, match=r"gave no sign of life for 2 seconds\.$"):
            await recognised(recogniser)
        assert not psutil.pid_exists(recogniser.pid)


async def test_an_engine_that_does_not_report_may_be_silent_for_a_while() -> None:
    options = {"for_s": STALL_TIMEOUT_S + 1}
    async with await start("slow", options, stall_factor=1000) as recogniser:
        assert isinstance((await recognised(recogniser))[-1], AudioEnded)


@pytest.mark.parametrize("engine", ["slow", "reporting", "chattering"])
async def test_a_chunk_without_its_result_in_time_is_a_stall(engine: str) -> None:
    async with await start(engine, stall_factor=0.25) as recogniser:
        with pytest.raises(RecogniserStalled, match="4 seconds of sound within 3 seconds"):
            await recognised(recogniser)
        assert not psutil.pid_exists(recogniser.pid)


async def test_a_model_that_never_loads_is_a_stall() -> None:
    with pytest.raises(RecogniserStalled, match="did not start within 2 seconds"):
        await Recogniser.start(
            engine="never-loaded", start_timeout_s=2, stall_timeout_s=STALL_TIMEOUT_S
        )


async def test_an_answer_that_takes_its_time_is_no_silence_of_the_child() -> None:
    asked: list[Frame] = []

    async def answer(frame: Frame) -> Frame:
        asked.append(frame)
        await asyncio.sleep(STALL_TIMEOUT_S + 1)
        return Frame("answer", {}, b"text")

    async with await start("asking", {"times": 1}, stall_factor=0.01, ask=answer) as recogniser:
        assert isinstance((await recognised(recogniser))[-1], AudioEnded)
    assert asked == [Frame("ask", {"kind": "what"}, b"sound")]


async def test_a_consumer_that_takes_its_time_is_no_silence_of_the_child() -> None:
    async with await start("quick", stall_factor=0.01) as recogniser:
        async for event in recogniser.transcribe(MemorySource(CLIP)):
            if isinstance(event, ChunkProgress):
                await asyncio.sleep(STALL_TIMEOUT_S + 1)


async def test_a_refusal_reaches_whoever_wanted_the_text_and_the_child_goes_on() -> None:
    refused = True

    async def answer(frame: Frame) -> Frame:
        if refused:
            raise LanguageUnsupportedError("Nobody here knows Klingon.")
        return Frame("answer")

    async with await start("asking", {"times": 1}, ask=answer) as recogniser:
        with pytest.raises(LanguageUnsupportedError, match="knows Klingon"):
            await recognised(recogniser)
        refused = False
        assert isinstance((await recognised(recogniser))[-1], AudioEnded)


async def test_a_child_that_asks_again_and_again_is_ended() -> None:
    asked: list[Frame] = []

    async def answer(frame: Frame) -> Frame:
        asked.append(frame)
        return Frame("answer")

    async with await start("asking", {"times": 100}, ask=answer) as recogniser:
        with pytest.raises(RecogniserCrashed, match="protocol"):
            await recognised(recogniser)
        assert recogniser.closed
    assert len(asked) == 3


async def test_a_child_that_nobody_answers_is_ended_when_it_asks() -> None:
    async with await start("asking", {"times": 1}) as recogniser:
        with pytest.raises(RecogniserCrashed, match="protocol"):
            await recognised(recogniser)
        assert recogniser.closed


async def test_a_cancelled_question_ends_the_child() -> None:
    asked = asyncio.Event()

    async def answer(frame: Frame) -> Frame:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with await start("asking", {"times": 1}, ask=answer) as recogniser:
        task = asyncio.create_task(recognised(recogniser))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not psutil.pid_exists(recogniser.pid)
