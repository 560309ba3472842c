#!/usr/bin/env python3
"""What status costs a transcription: the same recording with and without publishing, in one run.

With: a whole attempt (lease, status events, segments, all in PostgreSQL). Without: the same child
recognises the same stored recording, and what it says is thrown away. Both are timed from the order
to the last word, in turns, after one round to warm up; the cost is the median over the rounds of
(with - without) / without. Beside it stands the share of an attempt's time that passes between the
call of the publisher and its return, which counts all of it as cost even where the child works on.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv" / "bin" / "python"
sys.path.insert(0, str(ROOT))

try:
    from jobs.admission import describe
    from jobs.attempt import Workshop
    from jobs.engines import resolve
    from jobs.lifecycle import Lifecycle
    from jobs.recogniser_wire import AudioInfo
    from jobs.recognisers import RecogniserPool
    from jobs.settings import JobSettings, process_id
    from jobs.transcribe import transcribe
    from jobs.workers import host_name
    from quartapp.logs import configure_logging
    from quartapp.runtime import Base, running_base
    from tests import clips
    from tests.people import make_user
    from tests.timing import TimedPublisher
except ModuleNotFoundError:
    if not ENVIRONMENT.exists() or Path(sys.prefix) == ENVIRONMENT.parent.parent:
        raise
    os.execv(ENVIRONMENT, [str(ENVIRONMENT), *sys.argv])  # noqa: S606 - our own interpreter


@dataclass(frozen=True, slots=True)
class Round:
    """One recording, both ways."""

    with_s: float
    without_s: float
    publishing_s: float
    events: int


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured (default 5)")
    parser.add_argument("--minutes", type=float, default=2.0, help="of speech (default 2)")
    arguments = parser.parse_args()
    configure_logging(level=logging.WARNING)
    with TemporaryDirectory(prefix="bench-") as directory:
        spoken = clips.samples_of(clips.speech(clips.LONG_TEXT, Path(directory)))
        wanted = int(arguments.minutes * 60 * clips.SAMPLE_RATE_HZ)
        samples = clips.joined([spoken] * (wanted // len(spoken) + 1))[:wanted]
        settings = JobSettings(data_dir=Path(directory), database_url=None)
        rounds = asyncio.run(measured(settings, clips.wav_of(samples), arguments.rounds))
    for each in rounds:
        print(
            f"with {each.with_s:7.3f} s   without {each.without_s:7.3f} s   "
            f"{each.events} events, {1000 * each.publishing_s / each.events:.2f} ms each"
        )
    costs = [(each.with_s - each.without_s) / each.without_s for each in rounds]
    shares = [each.publishing_s / each.with_s for each in rounds]
    print(f"cost of publishing:  {100 * median(costs):6.2f} % of the time without (median)")
    print(f"inside the publisher:{100 * median(shares):6.2f} % of the time with (median)")
    return 0


async def measured(settings: JobSettings, recording: bytes, rounds: int) -> list[Round]:
    """So many rounds, after one that does not count."""
    async with running_base(settings) as base:
        recognisers = RecogniserPool(settings, engine=resolve(settings), size=1, idle_s=600)
        try:
            found = [await one_round(base, settings, recognisers, recording)]
            for _ in range(rounds):
                found.append(await one_round(base, settings, recognisers, recording))
        finally:
            await recognisers.close()
        return found[1:]


async def one_round(
    base: Base, settings: JobSettings, recognisers: RecogniserPool, recording: bytes
) -> Round:
    publisher = TimedPublisher(base.pool)
    shop = Workshop(
        pool=base.pool,
        settings=settings,
        publisher=publisher,
        lifecycle=replace(base.lifecycle, publisher=publisher),
        store=base.store,
        recognisers=recognisers,
        owner=process_id(),
        host=host_name(),
        stopping=asyncio.Event(),
    )
    session_id, audio_key = await submitted(base, shop.lifecycle, recording)
    publisher.calls, publisher.spent_s = 0, 0.0
    started = time.perf_counter()
    await transcribe(shop, session_id, 1)
    with_s = time.perf_counter() - started
    started = time.perf_counter()
    await only_recognised(base, recognisers, audio_key)
    without_s = time.perf_counter() - started
    return Round(with_s, without_s, publisher.spent_s, publisher.calls)


async def submitted(base: Base, lifecycle: Lifecycle, recording: bytes) -> tuple[UUID, str]:
    """A session of this recording, and the key of its audio."""

    async def whole() -> AsyncIterator[bytes]:
        yield recording

    stored = await base.store.write(uuid4(), whole())
    new = describe(
        stored,
        AudioInfo(None, "wav", "pcm_s16le", clips.SAMPLE_RATE_HZ, 1),
        owner_id=await make_user(base.pool),
        title="A recording",
        file_name="recording.wav",
        language=None,
    )
    await lifecycle.create(new)
    return new.id, stored.key


async def only_recognised(base: Base, recognisers: RecogniserPool, audio_key: str) -> None:
    source = await base.store.open(audio_key)
    async with (
        recognisers.borrow() as recogniser,
        aclosing(recogniser.transcribe(source)) as events,
    ):
        async for _ in events:
            pass


if __name__ == "__main__":
    sys.exit(main())
