"""Settings of the streams and of the LISTEN connection behind them."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.settings import DAYS, MINUTES, SECONDS


class StreamSettings(BaseSettings):
    """Every number of the status stream. Times are seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix="QUARTAPP_", extra="ignore", frozen=True, populate_by_name=True
    )

    heartbeat_s: float = Field(
        15 * SECONDS, gt=0, description="A stream silent for so long sends a heartbeat."
    )
    idle_timeout_s: float = Field(
        5 * MINUTES, gt=0, description="A stream without a status event for so long is ended."
    )
    max_lifetime_s: float = Field(
        30 * MINUTES,
        gt=0,
        description="Longest life of one stream; each ends somewhere in the last fifth of it.",
    )
    access_check_s: float = Field(
        20 * SECONDS,
        gt=0,
        description="How often an open stream asks whether its viewer may still see the session.",
    )
    retry_min_ms: int = Field(
        1000, ge=0, description="Shortest wait a stream tells its client before a reconnect."
    )
    retry_max_ms: int = Field(
        5000, ge=0, description="Longest wait a stream tells its client before a reconnect."
    )
    restart_retry_max_ms: int = Field(
        10_000,
        ge=0,
        description="Longest wait told at a restart of the server, when all come back at once.",
    )
    streams_per_user: int = Field(
        3, ge=1, description="Streams one user may have open, over all processes."
    )
    stream_opens_per_minute: int = Field(
        60, ge=1, description="Streams one user may open in a minute, over all processes."
    )
    max_streams: int = Field(
        10_000, ge=1, description="Streams one process holds; beyond, it answers 503."
    )
    process_beat_s: float = Field(
        5 * SECONDS,
        gt=0,
        description="How often a process says that it lives, and looks for streams taken over.",
    )
    process_expiry_s: float = Field(
        20 * SECONDS,
        gt=0,
        description="The streams of a process not heard of for so long count no more.",
    )
    stream_write_timeout_s: float = Field(
        20 * SECONDS,
        gt=0,
        description="A stream whose client takes nothing for so long is cut; it may resume.",
    )
    stream_events_retention_s: float = Field(
        30 * DAYS, gt=0, description="How long it is remembered who opened and closed streams."
    )
    subscriber_buffer: int = Field(
        64,
        ge=1,
        description="Events kept for a stream that lags; beyond, it reads them from the table.",
    )
    read_page_size: int = Field(
        100, ge=1, description="Status events read from the table at once for one stream."
    )
    read_timeout_s: float = Field(
        2 * SECONDS, gt=0, description="Longest wait for the database while following a status."
    )
    listen_wait_s: float = Field(
        2 * SECONDS,
        ge=0,
        description="A new stream waits at most so long for LISTEN; polling covers it then.",
    )
    listen_probe_interval_s: float = Field(
        1 * SECONDS,
        gt=0,
        description="A LISTEN connection that heard nothing for so long is sent a probe.",
    )
    listen_probe_timeout_s: float = Field(
        1 * SECONDS, gt=0, description="A probe not delivered within this time was lost."
    )
    unlisten_delay_s: float = Field(
        10 * SECONDS,
        ge=0,
        description="A channel is kept so long after its last stream left, for quick reconnects.",
    )
    poll_interval_s: float = Field(
        1 * SECONDS, gt=0, description="How often the table is asked while LISTEN does not work."
    )
    safety_poll_s: float = Field(
        15 * SECONDS, gt=0, description="How often the table is asked while LISTEN works."
    )
    reconnect_min_s: float = Field(
        0.1 * SECONDS, gt=0, description="First bound of the random wait before LISTEN is re-made."
    )
    reconnect_max_s: float = Field(
        10 * SECONDS, gt=0, description="Last bound of the random wait before LISTEN is re-made."
    )
