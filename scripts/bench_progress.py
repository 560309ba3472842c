#!/usr/bin/env python3
"""How honest progress and estimates are, measured on recordings of 1 to 20 minutes.

The recordings are spoken by flite, each by one voice or as a conversation of two (or taken from
--audio, repeated to length). They are uploaded all at once to a `quartapp serve` of their own, and
transcribed one after the other with its default settings. Everything is read from the status events
that any client sees:

- progress: every 100 ms of the transcription, the percentage last shown is held against the share
  of the recording done at that moment (between two events: interpolated). Column 1 is the median
  difference, column 2 the largest, in points.
- time left: at every event after 25 %, the time until `estimated_completion` is held against the
  time that it really took from there. Column 3 is the median error.
- the whole wait: the same for the estimates given while a recording waited. Column 4.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle, pairwise
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv" / "bin" / "python"
sys.path.insert(0, str(ROOT))

try:
    from rich.console import Console
    from rich.table import Table

    from jobs.embedded import EmbeddedPostgres
    from tests import clips
    from tests.net import free_port
    from tests.product import Product
    from tests.sessions import SESSIONS, TERMINAL, address, upload
except ModuleNotFoundError:
    if not ENVIRONMENT.exists() or Path(sys.prefix) == ENVIRONMENT.parent.parent:
        raise
    os.execv(ENVIRONMENT, [str(ENVIRONMENT), *sys.argv])  # noqa: S606 - our own interpreter

SAMPLE_S = 0.1
AFTER_PROGRESS = 25
SHORTEST_S, LONGEST_S = 60.0, 1200.0
MOSTLY_SHORT = 3  # half of the recordings are shorter than a minute and a half
VOICES = ("slt", "rms", "awb", "kal16")

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Honesty:
    """What one recording showed; None where nothing was said."""

    audio_s: float
    wall_s: float
    median_points: float
    largest_points: float
    time_left_error: float | None
    wait_error: float | None


def main() -> int:
    arguments = _arguments()
    steps = [number / max(1, arguments.recordings - 1) for number in range(arguments.recordings)]
    lengths_s = [
        arguments.scale * SHORTEST_S * (LONGEST_S / SHORTEST_S) ** (step**MOSTLY_SHORT)
        for step in steps
    ]
    random = Random(arguments.seed)
    random.shuffle(lengths_s)
    with TemporaryDirectory(prefix="bench-") as directory:
        recordings = [
            recording_of(sources_of(arguments.audio, Path(directory), random), length_s)
            for length_s in lengths_s
        ]
        told = transcribed(recordings, Path(directory), arguments.slots)
    if arguments.events is not None:
        arguments.events.write_text(json.dumps(told), encoding="utf-8")
    found = [honesty_of(events) for events in told]
    Console().print(table_of(found))
    return 0


def sources_of(audio: Path | None, directory: Path, random: Random) -> Iterator[clips.Samples]:
    """Pieces of one recording's speech, without end."""
    if audio is not None:
        return cycle([clips.decoded(path.read_bytes()) for path in sorted(audio.glob("*.[fw]*"))])
    voices = random.sample(VOICES, random.choice((1, 2)))
    sentences = [each.strip() + "." for each in clips.LONG_TEXT.split(".") if each.strip()]
    return cycle(
        clips.samples_of(clips.speech(" ".join(random.sample(sentences, 3)), directory, voice))
        for voice in voices * 10
    )


def recording_of(sources: Iterator[clips.Samples], length_s: float) -> bytes:
    """A WAV file of this length, cut from the pieces that come next."""
    wanted = int(length_s * clips.SAMPLE_RATE_HZ)
    pieces: list[clips.Samples] = []
    while sum(map(len, pieces)) < wanted:
        pieces.append(next(sources))
    return clips.wav_of(clips.joined(pieces)[:wanted])


def transcribed(recordings: Sequence[bytes], directory: Path, slots: int) -> list[list[Event]]:
    """The status events of each recording, from its upload to its end."""
    port = free_port()
    server = EmbeddedPostgres(directory / "database")
    server.start(tcp_port=port)
    environment = {"QUARTAPP_JOB_SLOTS": str(slots), "QUARTAPP_UPLOAD_LIMIT": "1000"}
    dsn = f"postgresql://quartapp@127.0.0.1:{port}/quartapp"
    product = Product(dsn, directory, environment).start()
    try:
        with product.client(address()) as client:
            made = [upload(client, recording).json()["id"] for recording in recordings]
            for session_id in made:
                while client.get(f"{SESSIONS}/{session_id}").json()["status"] not in TERMINAL:
                    time.sleep(1)
        rows = {
            session_id: product.rows(
                "SELECT status_message(event) FROM processing_status AS event "
                "WHERE session_id = %s ORDER BY id",
                session_id,
            )
            for session_id in made
        }
    finally:
        product.stop()
        server.stop()
    return [[row[0] for row in rows[session_id]] for session_id in made]


def honesty_of(events: Sequence[Event]) -> Honesty:
    """What the events of one recording said, against what came about."""
    end = events[-1]
    if end["status"] != "completed":
        raise SystemExit(f"a recording ended as {end['status']}: {end['message']}")
    running = [event for event in events if event["stage"] == "transcribing"]
    points = sorted(_differences(running, end["duration_total"]))
    late = [event for event in running if event["progress"] >= AFTER_PROGRESS]
    waiting = [event for event in events if event["status"] == "queued"]
    return Honesty(
        audio_s=end["duration_total"],
        wall_s=_at(end["timestamp"]) - _at(running[0]["timestamp"]),
        median_points=median(points),
        largest_points=points[-1],
        time_left_error=_error(late, end),
        wait_error=_error(waiting, end),
    )


def _differences(running: Sequence[Event], total_s: float) -> Iterator[float]:
    """Points between the percentage shown and the share done, all through the transcription."""
    for before, after in pairwise(running):
        start, end = _at(before["timestamp"]), _at(after["timestamp"])
        for step in range(int((end - start) / SAMPLE_S) + 1):
            share = min(1.0, step * SAMPLE_S / (end - start)) if end > start else 0.0
            done_s = before["duration_processed"] + share * (
                after["duration_processed"] - before["duration_processed"]
            )
            yield abs(before["progress"] - 100 * done_s / total_s)


def _error(events: Sequence[Event], end: Event) -> float | None:
    """The median error of the time left, as a share of what it really was."""
    errors = []
    for event in events:
        left_s = _at(end["timestamp"]) - _at(event["timestamp"])
        if event["estimated_completion"] is not None and left_s > 0:
            said_s = _at(event["estimated_completion"]) - _at(event["timestamp"])
            errors.append(abs(said_s - left_s) / left_s)
    return median(errors) if errors else None


def _at(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def table_of(found: Sequence[Honesty]) -> Table:
    """One row a recording, and the medians over all."""
    table = Table("audio", "took", "progress off by", "at most", "time left off by", "wait off by")
    for each in sorted(found, key=lambda each: each.audio_s):
        table.add_row(
            f"{each.audio_s / 60:.1f} min",
            f"{each.wall_s:.0f} s",
            f"{each.median_points:.2f} points",
            f"{each.largest_points:.1f} points",
            _percent(each.time_left_error),
            _percent(each.wait_error),
        )
    table.add_section()
    table.add_row(
        f"{sum(each.audio_s for each in found) / 60:.0f} min",
        f"{sum(each.wall_s for each in found):.0f} s",
        f"{median(each.median_points for each in found):.2f} points",
        f"{max(each.largest_points for each in found):.1f} points",
        _percent(_median_of(each.time_left_error for each in found)),
        _percent(_median_of(each.wait_error for each in found)),
    )
    return table


def _median_of(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _percent(share: float | None) -> str:
    return "nothing said" if share is None else f"{100 * share:.1f} %"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--slots", type=int, default=1, help="at the same time (default 1)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="of lengths and sentences")
    parser.add_argument("--audio", type=Path, help="a directory of recordings to speak instead")
    parser.add_argument("--events", type=Path, help="keep all status events in this file (JSON)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
