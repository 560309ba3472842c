"""What the routes work with, made once at start and handed to the app."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

from quart import current_app

from jobs.database import Pool
from jobs.lifecycle import Lifecycle
from jobs.publisher import StatusPublisher
from jobs.recognisers import RecogniserPool
from jobs.storage import AudioStore
from quartapp.settings import WebSettings
from quartapp.streaming.listener import Listener
from quartapp.streaming.open_streams import OpenStreams
from quartapp.streaming.segments import SegmentReader
from quartapp.streaming.subscriber import StatusSubscriber

EXTENSION = "quartapp"


@dataclass(frozen=True)
class Services:
    """Everything a route may need."""

    settings: WebSettings
    pool: Pool
    publisher: StatusPublisher
    lifecycle: Lifecycle
    store: AudioStore
    prober: RecogniserPool
    listener: Listener
    subscriber: StatusSubscriber
    segments: SegmentReader
    streams: OpenStreams
    drain: asyncio.Event  # set once the process begins to stop


def services() -> Services:
    """The services of the running app; needs an app context."""
    return cast(Services, current_app.extensions[EXTENSION])
