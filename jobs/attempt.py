"""What an attempt at a recording works with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from jobs.database import Pool
from jobs.lifecycle import Lifecycle
from jobs.publisher import StatusPublisher
from jobs.recognisers import RecogniserPool
from jobs.settings import JobSettings
from jobs.storage import AudioStore


class Fenced(Exception):
    """This attempt no longer has the session."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """The parts that all attempts of a process share."""

    pool: Pool
    settings: JobSettings
    publisher: StatusPublisher
    lifecycle: Lifecycle
    store: AudioStore
    recognisers: RecogniserPool
    owner: str  # of the leases
    host: str  # by which past runs are known
    stopping: asyncio.Event  # set when the process stops, and its work is to go on elsewhere
